//! What the operator has, and no process of the guest may hold: claim (b) of credentials.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    process::{Child, Command, Stdio},
};

use crate::{guest::GuestFile, host};

/// Where each secret is planted.
const SECRETS: [(&str, &str); 4] = [
    ("the environment", "secret-of-the-environment-7f3a"),
    ("an argument", "secret-of-an-argument-91bc"),
    ("the guest file's path", "secret-of-the-path-d20e"),
    ("the guest file's text", "secret-of-the-text-5c68"),
];

/// Which secrets a process has in its memory (but guest RAM), its environment, arguments, auxiliary vector, and in the
/// files and names of its descriptors.
fn found_in(pid: u32) -> Vec<&'static str> {
    const COLLECTED: &str = "/tmp/collected";
    let mut all = Vec::new();
    let mut look = |bytes: &[u8]| {
        all.extend_from_slice(bytes);
        // Two pieces side by side are no secret.
        all.push(b'\n');
    };
    let folder = format!("/proc/{pid}");
    for name in ["environ", "cmdline", "auxv", "maps", "comm", "status"] {
        look(&fs::read(format!("{folder}/{name}")).unwrap());
    }
    let memory = File::open(format!("{folder}/mem")).unwrap();
    let maps = fs::read_to_string(format!("{folder}/maps")).unwrap();
    let mut read_bytes = 0;
    for line in maps.lines().filter(|line| is_own(line)) {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
        memory.read_exact_at(&mut bytes, number(start)).expect(line);
        read_bytes += bytes.len();
        look(&bytes);
    }
    assert!(read_bytes > 100_000, "{read_bytes} bytes of {pid}:\n{maps}");
    for entry in fs::read_dir(format!("{folder}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap();
        let target = target.to_string_lossy();
        look(target.as_bytes());
        // The ring and the handoff; the RAM is the guest's own.
        if target.contains("memfd:") && !target.contains("narrows-ram") {
            let mut bytes = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            look(&bytes);
        }
    }
    fs::write(COLLECTED, all).unwrap();
    // The tests are built without optimization, and the host is emulated: the search is a program's.
    let text = host::shell(&format!(
        "grep -a -o 'secret-of-[-a-z0-9]*' {COLLECTED} || true"
    ));
    fs::remove_file(COLLECTED).unwrap();
    SECRETS
        .into_iter()
        .filter(|(_, secret)| text.contains(secret))
        .map(|(name, _)| name)
        .collect()
}

/// Whether a mapping is memory that the process can read, and neither guest RAM, nor a device's, nor the kernel's page.
fn is_own(line: &str) -> bool {
    let is_readable = line
        .split(' ')
        .nth(1)
        .is_some_and(|flags| flags.starts_with('r'));
    let foreign = [
        "narrows-ram",
        "narrows-image",
        "vfio",
        "[vvar",
        "[vsyscall]",
    ];
    is_readable && !foreign.iter().any(|name| line.contains(name))
}

/// A run with the secrets planted; it has ended when this is dropped.
struct Run(Child);

impl Run {
    fn start() -> Self {
        let [(_, environment), (_, argument), (_, path), (_, text)] = SECRETS;
        let file = GuestFile::attacker("secrets")
            .device(&host::nvme(0))
            .table(&format!("# token = {text}"))
            .write();
        let path = format!("/tmp/{path}.toml");
        fs::rename(file, &path).unwrap();
        let mut child = Command::new("narrows")
            .args(["run", &path, "--stats", &format!("/tmp/{argument}.json")])
            .env("NARROWS_TEST_TOKEN", environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begun = lines.any(|line| line.is_ok_and(|line| line.contains("GUEST init=")));
        assert!(begun, "the guest did not begin");
        Self(child)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        host::shell(&format!("kill -TERM {}", self.0.id()));
        self.0.wait().ok();
    }
}

/// Claim: no process that a guest may own holds a secret of the operator: not in its memory, environment, arguments or
/// descriptors. Attack: C32: root reads all of V and of D. Control: the supervisor has them.
#[test]
#[ignore = "needs a lab host"]
fn no_process_of_the_guest_holds_a_secret_of_the_operator() {
    let run = Run::start();
    let in_supervisor = found_in(run.0.id());
    println!("the supervisor has: {in_supervisor:?}");
    for name in ["the environment", "an argument", "the guest file's path"] {
        assert!(
            in_supervisor.contains(&name),
            "the control failed: the supervisor has {in_supervisor:?}"
        );
    }
    for program in ["narrows-vcpu", "narrows-device"] {
        let processes = host::processes(program);
        assert_eq!(processes.len(), 1, "{program}");
        for pid in processes {
            assert_eq!(found_in(pid), Vec::<&str>::new(), "LEAK: {program} has it");
        }
    }
    drop(run);
    host::assert_returned(&host::nvme(0));
}
