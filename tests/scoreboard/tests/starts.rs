//! Each VMM of the lab host really starts the guest, which does every work that its VFs allow.
//!
//! `SCOREBOARD_GUESTS` is the folder of `vmlinux-lab` and of the initramfs `scoreboard`; `SCOREBOARD_PEERS` names the templates.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on ends, and says how far each VMM came"
)]

use std::{
    env, fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use scoreboard::{
    guest::ECHO,
    mark,
    record::{Guest, Interface, Pages},
    vmm::{Narrows, Peer, Setup, Vmm},
};

const TRACING: &str = "/sys/kernel/tracing";
/// All works but the last, which is as an earlier one.
const WORKS: &str = "console=ttyS0 quiet panic=-1 bench.net=10.9.0.2/24 bench.do=config-read:64,config-write:16,nvme-read:32,\
                     nvme-write:32,packets-small:32,packets-large:32,pause:1,idle:1";
/// Those for which a NIC will do.
const NIC_WORKS: &str = "console=ttyS0 quiet panic=-1 bench.net=10.9.0.2/24 bench.do=config-read:64,config-write:16,\
                         packets-small:32,packets-large:32,pause:1,idle:1";
const PATIENCE: Duration = Duration::from_secs(150);

/// The marks that KVM's trace has, in their order.
fn marks() -> Vec<u32> {
    let leaf = format!("func {:x} idx ", mark::LEAF);
    let trace = fs::read_to_string(Path::new(TRACING).join("trace")).unwrap();
    let indices = trace.lines().filter_map(|line| {
        let (_, rest) = line.split_once(&leaf)?;
        let (index, _) = rest.split_once(' ')?;
        u32::from_str_radix(index, 16).ok()
    });
    indices.collect()
}

fn stop(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Starts the guest, and gives its marks once the last of them is one of `ends`, the VMM has ended, or it takes too long.
fn run(vmm: &dyn Vmm, setup: &Setup<'_>, ends: &[u32]) -> Vec<u32> {
    vmm.prepare(setup).unwrap();
    fs::write(Path::new(TRACING).join("trace"), "").unwrap();
    let begin = Instant::now();
    let log = fs::File::create(setup.scratch.join("log")).unwrap();
    let mut command = vmm.command(setup);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    let mut seen = Vec::new();
    while !seen.iter().any(|mark| ends.contains(mark)) && begin.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
        seen = marks();
    }
    eprintln!(
        "{} {:?} {}: {seen:x?} in {:?}",
        vmm.name(),
        setup.interface,
        setup.kernel.display(),
        begin.elapsed()
    );
    stop(child);
    vmm.clean_up(setup).unwrap();
    seen
}

/// Answers each datagram by itself.
fn echo() {
    let socket = UdpSocket::bind(ECHO).unwrap();
    thread::spawn(move || {
        let mut data = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut data) {
            socket.send_to(&data[..len], from).unwrap();
        }
    });
}

fn vmms() -> Vec<Box<dyn Vmm>> {
    let peers = env::var("SCOREBOARD_PEERS").unwrap_or_default();
    let mut vmms: Vec<Box<dyn Vmm>> = vec![Box::new(Narrows::new("/usr/bin/narrows"))];
    for name in peers.split(',').filter(|name| !name.is_empty()) {
        vmms.push(Box::new(Peer::load(name, None).unwrap()));
    }
    vmms
}

/// Whether a guest has come as far as it should; what the VMM said, where it has not.
fn judge(vmm: &dyn Vmm, setup: &Setup<'_>, expected: &[u32]) -> Result<(), String> {
    if let Some(why) = vmm.refuses(setup) {
        eprintln!("{} {:?}: {why}", vmm.name(), setup.interface);
        return Ok(());
    }
    let last = *expected.last().unwrap();
    if run(vmm, setup, &[last, mark::FAILED]) == expected {
        return Ok(());
    }
    let log = fs::read(setup.scratch.join("log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    Err(format!("{} {:?}:\n{log}", vmm.name(), setup.interface))
}

#[test]
#[ignore = "needs a lab host with the scoreboard's guests"]
fn every_vmm_starts_the_guests_which_do_their_works() {
    echo();
    fs::write(Path::new(TRACING).join("events/kvm/kvm_cpuid/enable"), "1").unwrap();
    let folder = PathBuf::from(env::var_os("SCOREBOARD_GUESTS").unwrap());
    let (kernel, initramfs) = (folder.join("vmlinux-lab"), folder.join("scoreboard"));
    let tiny = folder.join("tiny");
    let functions = ["NIC_VF0", "NVME_VF0"].map(|name| env::var(name).unwrap());
    let mut failures = Vec::new();
    for vmm in vmms() {
        eprintln!("{}: {}", vmm.name(), vmm.version().unwrap());
        let mut expected = vec![mark::INIT];
        expected.extend(mark::begin(0)..mark::begin(7));
        expected.push(mark::DONE);
        for interface in [Interface::Iommufd, Interface::Type1] {
            let mut setup = Setup {
                interface,
                guest: Guest {
                    vcpus: 1,
                    memory_mib: 256,
                    pages: Pages::Default,
                    nics: 1,
                    nvmes: 1,
                    console: true,
                },
                kernel: &kernel,
                initramfs: Some(&initramfs),
                cmdline: WORKS,
                functions: &functions,
                scratch: Path::new("/tmp/scoreboard"),
            };
            if vmm.refuses(&setup).is_some_and(|why| why.contains("NVMe")) {
                setup.guest.nvmes = 0;
                (setup.functions, setup.cmdline) = (&functions[..1], NIC_WORKS);
                expected.retain(|mark| !(mark::begin(2)..mark::begin(4)).contains(mark));
            }
            failures.extend(judge(vmm.as_ref(), &setup, &expected).err());
            (setup.kernel, setup.initramfs, setup.cmdline) = (&tiny, None, "");
            (setup.guest.pages, setup.guest.console) = (Pages::Small, false);
            failures.extend(judge(vmm.as_ref(), &setup, &[mark::INIT]).err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
