//! One probe after the other: launch, wait, read what is left, launch again where the next try waits.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use jailed::{
    breakout::{
        record::{BYTES, Left, OFFSET},
        table::{Leaves, Probe},
    },
    handoff::{CMDLINE_BYTES, Handoff},
    manifest::{Phase, Role, Rules},
};

use super::{
    environment::Environment,
    needs,
    outcome::{End, Outcome},
};
use crate::{
    jail::Jail,
    supervisor::{
        assign::Assigned,
        fault::Fault,
        files::Files,
        inspection::Inspector,
        launch::{Parts, Programs, Running, launch},
        link::Link,
        ram::Ram,
    },
    vf::Tenancy,
};

/// A probe that has not ended by then waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a probe of one process has come to.
struct Turn {
    probe: &'static Probe,
    from: usize,
    outcome: Outcome,
}

/// The probes of one process that wait.
pub(super) struct Queue {
    role: Role,
    waiting: VecDeque<(&'static Probe, usize, Option<Outcome>)>,
}

impl Queue {
    pub(super) fn new(
        probes: &'static [Probe],
        role: Role,
        is_wanted: impl Fn(&Probe) -> bool,
    ) -> Self {
        let own = |probe: &&Probe| probe.roles.contains(&role) && is_wanted(probe);
        let waiting = probes.iter().filter(own).map(|probe| (probe, 0, None));
        Self {
            role,
            waiting: waiting.collect(),
        }
    }

    fn needs_the_other(&self) -> bool {
        let next = self.waiting.front();
        next.is_some_and(|(probe, ..)| probe.leaves == Leaves::Other)
    }

    fn next(&mut self, environment: &str) -> Option<Turn> {
        let (probe, from, outcome) = self.waiting.pop_front()?;
        let outcome = outcome.unwrap_or_else(|| Outcome::new(probe, self.role, environment));
        Some(Turn {
            probe,
            from,
            outcome,
        })
    }
}

/// What every launch has.
pub(in crate::supervisor) struct Harness<'a, 'p> {
    pub(in crate::supervisor) programs: &'a Programs,
    pub(in crate::supervisor) jail: &'a Jail,
    pub(in crate::supervisor) inspector: &'a Inspector<'a>,
    pub(in crate::supervisor) handoff: &'a Handoff,
    pub(in crate::supervisor) files: &'a Files,
    pub(in crate::supervisor) ram: &'a Ram,
    pub(in crate::supervisor) console: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    pub(in crate::supervisor) assigned: &'a mut Assigned<'p>,
    pub(in crate::supervisor) link: &'a Link,
    /// How long one process is let attack the other.
    pub(in crate::supervisor) attack: Duration,
    pub(in crate::supervisor) launches: usize,
}

impl Harness<'_, '_> {
    /// Empties both queues, a probe of each at a time.
    pub(super) fn run(
        &mut self,
        environment: &Environment,
        words: &[String],
        mut queues: [Queue; 2],
    ) -> Result<Vec<Outcome>, Fault> {
        let mut outcomes = Vec::new();
        loop {
            let mut turns = take(&environment.name, &mut queues);
            if turns.iter().all(Option::is_none) {
                return Ok(outcomes);
            }
            let handoff = asking(self.handoff, environment, words, &turns);
            let next = self.launch(environment, &handoff, &mut turns)?;
            for ((turn, next), queue) in turns.into_iter().zip(next).zip(&mut queues) {
                let Some(mut turn) = turn else { continue };
                match next {
                    Some(from) => {
                        let again = (turn.probe, from, Some(turn.outcome));
                        queue.waiting.push_front(again);
                    }
                    None => {
                        if turn.probe.id == "B01" {
                            let rules = Rules::of(queue.role, Phase::Run, self.handoff);
                            turn.outcome.judge_sweep(&rules);
                        }
                        turn.outcome.judge();
                        outcomes.push(turn.outcome);
                    }
                }
            }
        }
    }

    /// Launches V and D once; where each turn goes on, if it does.
    fn launch(
        &mut self,
        environment: &Environment,
        handoff: &Handoff,
        turns: &mut [Option<Turn>; 2],
    ) -> Result<[Option<usize>; 2], Fault> {
        let (devices, mut noting) = self.assigned.for_launch();
        let parts = Parts {
            handoff,
            kvm: self.files.kvm(),
            null: self.files.null(),
            ram: self.ram.file(),
            kernel: self.files.kernel(),
            initramfs: self.files.initramfs(),
            images: self.files.images(),
            devices,
            console: self.console,
            tenancy: Tenancy::Begins,
        };
        // Once, so that what is attacked is what runs otherwise; it would take most of the time.
        let inspector = (environment.is_full() && self.launches == 0).then_some(self.inspector);
        self.launches += 1;
        let mut running = launch(
            self.programs,
            self.jail,
            inspector,
            &parts,
            self.link,
            &mut noting,
        )?;
        let ends =
            wait(&mut running, turns, self.attack).map_err(Fault::io("waiting for a probe"))?;
        let records = records(&running).map_err(Fault::io("reading a start page"))?;
        drop(running);

        let mut next = [None, None];
        let mut must_reset = false;
        for (index, turn) in turns.iter_mut().enumerate() {
            let Some(turn) = turn else { continue };
            let left = Left::new(&records[index]);
            must_reset |= needs::reset(turn.probe, left, ends[index]);
            let is_filtered = environment.is_filtered();
            let from = turn.outcome.add(left, ends[index], is_filtered);
            if turn.probe.leaves == Leaves::Other {
                turn.outcome.judge_other(ends[1 - index]);
            }
            // A filter is the same program in every environment that has one: what it says is tried in full once.
            let is_whole = environment.is_full() || !environment.is_filtered();
            let has_more = is_whole && turn.probe.leaves != Leaves::Other;
            next[index] = from.filter(|_| has_more);
        }
        if must_reset {
            self.assigned.reset_for_reboot()?;
        }
        Ok(next)
    }
}

/// The next probe of each process; of one only, where it is the other that is attacked.
fn take(environment: &str, [first, second]: &mut [Queue; 2]) -> [Option<Turn>; 2] {
    if first.needs_the_other() {
        return [first.next(environment), None];
    }
    if second.needs_the_other() {
        return [None, second.next(environment)];
    }
    [first.next(environment), second.next(environment)]
}

/// The handoff with the words that ask for the turns' probes.
fn asking(
    handoff: &Handoff,
    environment: &Environment,
    words: &[String],
    turns: &[Option<Turn>; 2],
) -> Handoff {
    let mut handoff = *handoff;
    for turn in turns.iter().flatten() {
        let (role, id, from) = (turn.outcome.role, turn.probe.id, turn.from);
        add(&mut handoff, &format!("narrows.probe={role}:{id}#{from}"));
    }
    if environment.is_filtered() && !environment.is_full() {
        add(&mut handoff, "narrows.tries=first");
    }
    if !environment.is_full() {
        let layers = environment.ablated.join(",");
        add(&mut handoff, &format!("narrows.ablate={layers}"));
    }
    let keeper = format!("narrows.keeper-pid={}", std::process::id());
    add(&mut handoff, &keeper);
    for word in words {
        add(&mut handoff, word);
    }
    handoff
}

/// Adds a word to the command line.
fn add(handoff: &mut Handoff, word: &str) {
    let used = usize::try_from(handoff.cmdline_len).unwrap_or(CMDLINE_BYTES);
    let end = used + 1 + word.len();
    if let Some(place) = handoff.cmdline.get_mut(used..end)
        && end < CMDLINE_BYTES
    {
        place[0] = b' ';
        place[1..].copy_from_slice(word.as_bytes());
        handoff.cmdline_len = u32::try_from(end).unwrap_or(0);
    }
}

/// Waits until the processes that probe have ended, then ends both.
fn wait(
    running: &mut Running,
    turns: &[Option<Turn>; 2],
    attack: Duration,
) -> io::Result<[End; 2]> {
    let begin = Instant::now();
    let is_attack = turns
        .iter()
        .flatten()
        .any(|t| t.probe.leaves == Leaves::Other);
    let patience = if is_attack { attack } else { PATIENCE };
    let mut both = [&mut running.vcpu, &mut running.device];
    let mut pause = Duration::from_micros(200);
    let mut statuses = [None, None];
    loop {
        for (status, process) in statuses.iter_mut().zip(&mut both) {
            if status.is_none() {
                *status = process.ended()?;
            }
        }
        let mut pairs = statuses.iter().zip(turns);
        let is_over = pairs.all(|(status, turn)| turn.is_none() || status.is_some());
        if is_over || begin.elapsed() > patience {
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    for process in both {
        process.stop()?;
    }
    Ok(statuses.map(|status| status.map_or(End::Hung, end_of)))
}

fn end_of(status: ExitStatus) -> End {
    match (status.signal(), status.code()) {
        (Some(signal), _) => End::Signal(signal),
        (None, code) => End::Exited(code.unwrap_or(-1)),
    }
}

/// What both have left in their start pages.
fn records(running: &Running) -> io::Result<[Vec<u8>; 2]> {
    let read = |page: BorrowedFd<'_>| {
        let mut bytes = vec![0; BYTES];
        let have = rustix::io::pread(page, &mut bytes, OFFSET as u64)?;
        bytes.truncate(have);
        Ok::<_, io::Error>(bytes)
    };
    let [vcpu, device] = &running.start_pages;
    Ok([read(vcpu.as_fd())?, read(device.as_fd())?])
}
