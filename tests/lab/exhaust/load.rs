//! Two guests on one processor, and how far one of them gets.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{attack::Attacker, guest::GuestFile, host};

/// What any guest may do: the baseline.
const SPIN: &str = "storm spin";
/// How long one measurement takes: short, because what else the emulator's machine does changes from second to second.
const WINDOW: Duration = Duration::from_millis(350);
/// How many pairs of measurements there are, an odd number.
const PAIRS: usize = 7;
/// How many questions measure how fast a guest answers.
const QUESTIONS: usize = 3;

/// An attacker and its neighbour, each with its fair share of the host's processor.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) attacker: Attacker,
    pub(super) neighbour: Attacker,
}

/// What an attack does to the neighbour, in parts of what it has beside a guest that computes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    /// How much of its work it gets done, by the clock of a host that is emulated now faster, now slower.
    pub(super) progress: f64,
    /// How much of its work it gets done for each second of the processor that its vCPU has, in parts of what it gets done
    /// while the attacker stands still.
    pub(super) work: f64,
    /// How much of the processor the kernel gives its process of vCPUs.
    pub(super) share: f64,
    /// How long it takes to answer.
    pub(super) latency: f64,
    /// How often the attacker did what it does, in all.
    pub(super) attacks: u64,
}

/// A measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rounds_a_second: f64,
    rounds_a_cpu_second: f64,
    share: f64,
    answer_s: f64,
    attacks: u64,
}

impl Pair {
    /// Starts both.
    pub(super) fn start(attacker: &GuestFile, neighbour: &GuestFile) -> Self {
        let pair = Self {
            attacker: Attacker::start(attacker),
            neighbour: Attacker::start(neighbour),
        };
        give_share(pair.attacker.guest.pid(), "exhaust-attacker");
        give_share(pair.neighbour.guest.pid(), "exhaust-neighbour");
        pair
    }

    /// Has the attacker do `command`, which begins with `storm`, spin, and stand still, by turns.
    pub(super) fn measure(&mut self, command: &str) -> Effect {
        let mut progress = Vec::new();
        let mut yields = Vec::new();
        let mut share = Vec::new();
        let mut latency = Vec::new();
        let mut attacks = 0;
        for _ in 0..PAIRS {
            let calm = self.sample(SPIN);
            let storm = self.sample(command);
            // Right behind it: the emulator is as fast as then.
            let alone = self.sample_alone();
            yields.push(storm.rounds_a_cpu_second / alone);
            progress.push(storm.rounds_a_second / calm.rounds_a_second);
            share.push(storm.share / calm.share);
            latency.push(storm.answer_s / calm.answer_s);
            attacks += storm.attacks;
        }
        Effect {
            progress: median(&mut progress),
            work: median(&mut yields),
            share: median(&mut share),
            latency: median(&mut latency),
            attacks,
        }
    }

    fn sample(&mut self, command: &str) -> Sample {
        self.attacker.begin(command);
        let vcpus = self.neighbour.guest.child_pid("narrows-vcpu");
        let before = run_time_s(vcpus);
        self.neighbour.begin("work");
        let (started, ran) = (Instant::now(), run_time_s(vcpus));
        thread::sleep(WINDOW);
        let share = (run_time_s(vcpus) - ran) / started.elapsed().as_secs_f64();
        let rounds = stop(&mut self.neighbour);
        let elapsed = started.elapsed().as_secs_f64();
        let had = run_time_s(vcpus) - before;
        let mut answers = Vec::new();
        for _ in 0..QUESTIONS {
            let asked = Instant::now();
            self.neighbour.tell("read 4 0x800000");
            answers.push(asked.elapsed().as_secs_f64());
        }
        let attacks = stop(&mut self.attacker);
        Sample {
            rounds_a_second: rounds as f64 / elapsed,
            rounds_a_cpu_second: per_second(rounds, had),
            share,
            answer_s: median(&mut answers),
            attacks,
        }
    }

    /// What the neighbour gets done for each second that its vCPU runs, while the attacker's processes stand still.
    fn sample_alone(&mut self) -> f64 {
        let attackers = ["narrows-vcpu", "narrows-device"].map(|p| self.attacker.guest.pid_of(p));
        let signal = |name: &str| {
            let [vcpu, device] = attackers;
            host::shell(&format!("kill -{name} {vcpu} {device}"));
        };
        let vcpus = self.neighbour.guest.child_pid("narrows-vcpu");
        signal("STOP");
        let before = run_time_s(vcpus);
        self.neighbour.begin("work");
        thread::sleep(WINDOW);
        let rounds = stop(&mut self.neighbour);
        let had = run_time_s(vcpus) - before;
        signal("CONT");
        assert!(rounds > 0, "the control failed: alone it does nothing");
        per_second(rounds, had)
    }
}

/// Ends what goes on until a line is typed, which is then obeyed as the next command; what it answers.
fn stop(guest: &mut Attacker) -> u64 {
    guest.begin("wait 0");
    let answer = guest.answer();
    guest.answer();
    u64::from_str_radix(answer["value"].trim_start_matches("0x"), 16).unwrap()
}

/// Nothing done is nothing, however little time there was.
fn per_second(rounds: u64, seconds: f64) -> f64 {
    match rounds {
        0 => 0.0,
        _ => rounds as f64 / seconds,
    }
}

/// How long all threads of a process have run, as the scheduler counts.
fn run_time_s(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        let first = text.split_whitespace().next().unwrap();
        first.parse::<f64>().unwrap()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Gives the processes of a run a group of their own, as a unit of systemd has: the kernel then shares out the processor by
/// guests, and not by threads. A run that has its own already keeps it.
fn give_share(supervisor: u32, name: &str) {
    let own = fs::read_to_string(format!("/proc/{supervisor}/cgroup")).unwrap();
    if own.trim() != "0::/" {
        return;
    }
    let root = "/sys/fs/cgroup";
    let folder = format!("{root}/{name}");
    fs::write(format!("{root}/cgroup.subtree_control"), "+cpu").unwrap();
    if !fs::exists(&folder).unwrap() {
        fs::create_dir(&folder).unwrap();
    }
    for pid in family(supervisor) {
        fs::write(format!("{folder}/cgroup.procs"), pid.to_string()).unwrap();
    }
}

/// A process and its descendants.
pub(super) fn family(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        at += 1;
    }
    all
}
