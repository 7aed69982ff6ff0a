//! A guest under `narrows run`, driven by the words its init understands (`narrows.do=`) and read by its console.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// Nothing in a lab takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(240);
/// Nor does a run that was told to end take so long to give its devices back.
const RETURN: Duration = Duration::from_secs(30);

/// What the guest is to be.
#[derive(Clone, Debug)]
pub(crate) struct GuestFile {
    name: String,
    vcpus: u32,
    memory: String,
    kernel: &'static str,
    initramfs: &'static str,
    words: String,
    cmdline: String,
    head: String,
    devices: String,
    console: &'static str,
    env: Vec<(&'static str, String)>,
}

impl GuestFile {
    /// A guest with the lab's small kernel as an ELF file, one vCPU, 128 MiB and no device, doing `words`.
    pub(crate) fn small(name: &str, words: &str) -> Self {
        Self {
            name: name.to_owned(),
            vcpus: 1,
            memory: "memory = \"128M\"".to_owned(),
            kernel: "/lab/guest/vmlinux-lab",
            initramfs: "/lab/guest/initrd-lab",
            words: words.to_owned(),
            cmdline: String::new(),
            head: String::new(),
            devices: String::new(),
            console: "stdio",
            env: Vec::new(),
        }
    }

    /// A guest without an operating system: `tests/guests`, which does what its console is told.
    pub(crate) fn attacker(name: &str) -> Self {
        Self {
            memory: "memory = \"64M\"".to_owned(),
            kernel: "/lab/guest/attack",
            initramfs: "",
            ..Self::small(name, "")
        }
    }

    /// A guest with the distribution's kernel as it is shipped.
    pub(crate) fn stock(name: &str, words: &str) -> Self {
        Self {
            memory: "memory = \"512M\"".to_owned(),
            kernel: "/lab/guest/vmlinuz-stock",
            initramfs: "/lab/guest/initrd-stock",
            ..Self::small(name, words)
        }
    }

    pub(crate) fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    pub(crate) fn memory(mut self, size: &str) -> Self {
        self.memory = format!("memory = \"{size}\"");
        self
    }

    pub(crate) fn huge_memory(mut self, size: &str, pages: &str) -> Self {
        self.memory = format!("memory = {{ size = \"{size}\", hugepages = \"{pages}\" }}");
        self
    }

    pub(crate) fn memory_of_node(mut self, size: &str, node: u32) -> Self {
        self.memory = format!("memory = {{ size = \"{size}\", numa_node = {node} }}");
        self
    }

    pub(crate) fn kernel(mut self, path: &'static str) -> Self {
        self.kernel = path;
        self
    }

    pub(crate) fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = format!(" {words}");
        self
    }

    /// A line of the file's head, such as `on_reboot = "exit"` or `interface = "type1"`.
    pub(crate) fn key(mut self, line: &str) -> Self {
        writeln!(self.head, "{line}").unwrap();
        self
    }

    pub(crate) fn device(self, bdf: &str) -> Self {
        self.device_with(bdf, "")
    }

    pub(crate) fn device_with(mut self, bdf: &str, more: &str) -> Self {
        writeln!(self.devices, "[[device]]\nbdf = \"{bdf}\"\n{more}").unwrap();
        self
    }

    /// A VF of a pool.
    pub(crate) fn pool(self, name: &str) -> Self {
        self.pool_with(name, "")
    }

    pub(crate) fn pool_with(mut self, name: &str, more: &str) -> Self {
        writeln!(self.devices, "[[device]]\npool = \"{name}\"\n{more}").unwrap();
        self
    }

    /// Without a console: then nothing in the guest has a reason to exit.
    pub(crate) fn silent(mut self) -> Self {
        self.console = "off";
        self
    }

    /// A variable in the environment of `narrows run`.
    pub(crate) fn env(mut self, key: &'static str, value: &str) -> Self {
        self.env.push((key, value.to_owned()));
        self
    }

    /// A table behind the head, such as `[root]`.
    pub(crate) fn table(mut self, text: &str) -> Self {
        writeln!(self.devices, "{text}").unwrap();
        self
    }

    /// Writes the file and gives its path.
    pub(crate) fn write(&self) -> String {
        let path = format!("/tmp/{}.toml", self.name);
        let initramfs = if self.initramfs.is_empty() {
            String::new()
        } else {
            format!("initramfs = \"{}\"\n", self.initramfs)
        };
        let text = format!(
            "name = \"{}\"\nvcpus = {}\n{}\nkernel = \"{}\"\n{initramfs}\
             cmdline = \"console=ttyS0 quiet panic=-1 narrows.do={}{}\"\n{}\n[console]\nmode = \"{}\"\n{}",
            self.name,
            self.vcpus,
            self.memory,
            self.kernel,
            self.words,
            self.cmdline,
            self.head,
            self.console,
            self.devices
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Guest {
        Guest::start(self)
    }

    /// Starts what must be refused with this exit status, and gives what the operator is told.
    pub(crate) fn refused(&self, status: i32) -> String {
        let path = self.write();
        let output = Command::new("narrows")
            .args(["run", &path])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{text}");
        text
    }

    /// Starts it, waits for its end, and gives what it said; fails unless it powered off.
    pub(crate) fn run(&self) -> Transcript {
        let (status, transcript) = self.start().end();
        assert_eq!(status.code(), Some(0), "{}", transcript.text());
        transcript
    }
}

/// A guest that was started.
#[derive(Debug)]
pub(crate) struct Guest {
    child: Child,
    lines: Receiver<String>,
    transcript: Transcript,
    stats: String,
}

/// What a guest and `narrows run` said.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    lines: Vec<String>,
    stats: String,
}

impl Guest {
    fn start(file: &GuestFile) -> Self {
        let path = file.write();
        let stats = format!("/tmp/{}.json", file.name);
        let mut child = Command::new("narrows")
            .args(["run", &path, "--stats", &stats])
            .envs(file.env.iter().map(|(key, value)| (*key, value)))
            // Its end does not end the guest.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("narrows is in the lab host");
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        let other = sender.clone();
        thread::spawn(move || forward(out, &sender));
        thread::spawn(move || forward(err, &other));
        Self {
            child,
            lines,
            transcript: Transcript::default(),
            stats,
        }
    }

    /// What is written here is typed into the guest's console.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("taken once")
    }

    /// The process id of the supervisor.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the keeper, the supervisor's child.
    pub(crate) fn keeper_pid(&self) -> u32 {
        self.find("narrows", self.pid())
    }

    /// The process id of this guest's V or D, the keeper's children.
    pub(crate) fn child_pid(&self, program: &str) -> u32 {
        self.find(program, self.keeper_pid())
    }

    /// The process id of `who`: a program, or "supervisor" or "keeper".
    pub(crate) fn pid_of(&self, who: &str) -> u32 {
        match who {
            "supervisor" => self.pid(),
            "keeper" => self.keeper_pid(),
            program => self.child_pid(program),
        }
    }

    fn find(&self, program: &str, parent: u32) -> u32 {
        let parent = format!("PPid:\t{parent}");
        super::host::processes(program)
            .into_iter()
            .find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/status"))
                    .is_ok_and(|status| status.lines().any(|line| line == parent))
            })
            .unwrap_or_else(|| panic!("{program} is not running:\n{}", self.transcript.text()))
    }

    /// Waits for a line that holds `text`, and gives it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.transcript.lines.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{text:?} did not come:\n{}", self.hung());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the run ended before {text:?}:\n{}", self.transcript.text())
                }
            }
        }
    }

    /// What is known of a run that does not go on.
    fn hung(&self) -> String {
        format!(
            "{}\n{}",
            self.transcript.text(),
            super::hang::look(self.pid())
        )
    }

    /// Sends the supervisor a signal.
    pub(crate) fn signal(&self, name: &str) {
        super::host::shell(&format!("kill -{name} {}", self.pid()));
    }

    /// Exits to user space so far.
    pub(crate) fn exits(&self) -> u64 {
        let json = self.figures();
        json.pointer("/counters/exits").unwrap().as_u64().unwrap()
    }

    /// The figures so far, as `--stats` has them.
    pub(crate) fn figures(&self) -> serde_json::Value {
        drop(fs::remove_file(&self.stats));
        self.signal("USR1");
        for _ in 0..2400 {
            thread::sleep(Duration::from_millis(25));
            if let Ok(text) = fs::read_to_string(&self.stats) {
                return serde_json::from_str(&text).unwrap();
            }
        }
        panic!("no statistics came:\n{}", self.transcript.text());
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> (ExitStatus, Transcript) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.transcript.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the guest did not end:\n{}", self.hung());
                }
            }
        }
        let status = self.child.wait().unwrap();
        self.transcript.stats = fs::read_to_string(&self.stats).unwrap_or_default();
        (status, std::mem::take(&mut self.transcript))
    }
}

impl Drop for Guest {
    /// A test that fails must not leave its guest to the next one.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal("TERM");
            let deadline = Instant::now() + RETURN;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(50));
            }
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

impl Transcript {
    /// All lines.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The `key=value` words of the guest's first line whose first word is `key=…` and that holds `with`.
    pub(crate) fn facts(&self, key: &str, with: &str) -> HashMap<String, String> {
        let start = format!("GUEST {key}=");
        let line = self
            .lines
            .iter()
            .find(|line| line.contains(&start) && line.contains(with))
            .unwrap_or_else(|| panic!("no line {start}… with {with:?}:\n{}", self.text()));
        line.split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// How many of the guest's lines start with `key=`.
    pub(crate) fn count(&self, key: &str) -> usize {
        let start = format!("GUEST {key}=");
        self.lines
            .iter()
            .filter(|line| line.contains(&start))
            .count()
    }

    /// A number of the statistics that `narrows run --stats` wrote, by JSON pointer.
    pub(crate) fn stat(&self, pointer: &str) -> u64 {
        let json: serde_json::Value =
            serde_json::from_str(&self.stats).expect("statistics are JSON");
        json.pointer(pointer)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_else(|| panic!("no number {pointer} in {}", self.stats))
    }
}

fn forward(from: impl BufRead, to: &std::sync::mpsc::Sender<String>) {
    for line in from.split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).replace('\r', "");
        if to.send(line).is_err() {
            return;
        }
    }
}
