//! What break-outs are tried on: made for them in the lab host, and looked at afterwards.
//!
//! UNSAFETY: keys, segments and queues have no safe wrapper here, and handles of files none anywhere.
#![expect(unsafe_code, reason = "raw calls make what an attacker would look for")]

use std::{
    ffi::CString,
    fs,
    io::Write as _,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
    process::{Child, Command},
};

/// As `jailed::breakout::words` has them.
const FILES: [&str; 3] = [
    "/breakout-canary",
    "/etc/breakout-canary",
    "/var/log/breakout-canary",
];
const SOCKET: &str = "narrows-breakout-canary";
const QUEUE: &str = "narrows-breakout-canary";
const SEGMENT: libc::key_t = 0x6E61_7277;
const TEXT: &str = "not to be read by a guest\n";
/// The owner of the program that changes its user.
const OWNER: u32 = 12345;

/// All of them, until they are dropped.
pub(super) struct Canaries {
    process: Child,
    key: libc::c_long,
    segment: libc::c_int,
    socket: UnixListener,
}

impl Canaries {
    pub(super) fn new() -> Self {
        for file in FILES {
            fs::create_dir_all(Path::new(file).parent().unwrap()).unwrap();
            fs::write(file, TEXT).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::create_dir_all("/tmp/breakout").unwrap();
        set_uid_program();
        let address = SocketAddr::from_abstract_name(SOCKET).unwrap();
        let socket = UnixListener::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        // SAFETY: three numbers.
        let segment = unsafe { libc::shmget(SEGMENT, 4096, libc::IPC_CREAT | 0o666) };
        assert!(segment >= 0, "{}", std::io::Error::last_os_error());
        Self {
            process: Command::new("sleep").arg("100000").spawn().unwrap(),
            key: key(),
            segment,
            socket,
        }
    }

    /// What V and D are told of them.
    pub(super) fn words(&self) -> Vec<String> {
        make_queue();
        let mut words = vec![
            format!("narrows.canary-pid={}", self.process.id()),
            format!("narrows.canary-key={}", self.key),
        ];
        words.extend(handle().map(|text| format!("narrows.canary-handle={text}")));
        words
    }

    /// Fails unless the host has them as it had them.
    pub(super) fn assert_unharmed(&mut self) {
        for file in FILES {
            assert_eq!(fs::read_to_string(file).unwrap(), TEXT, "{file}");
        }
        assert!(
            self.process.try_wait().unwrap().is_none(),
            "the canary process has ended"
        );
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        assert!(status.contains("TracerPid:\t0\n"), "{status}");
        for left in ["/tmp/breakout-disk", "/breakout-memory"] {
            assert!(!Path::new(left).exists(), "{left} was left");
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains("/tmp/breakout"), "{mounts}");
    }

    /// Whether anybody has connected to the socket since the last look.
    pub(super) fn was_called(&self) -> bool {
        let mut called = false;
        while self.socket.accept().is_ok() {
            called = true;
        }
        called
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        // SAFETY: three numbers; the segment is ours.
        unsafe { libc::shmctl(self.segment, libc::IPC_RMID, std::ptr::null_mut()) };
        let name = CString::new(QUEUE).unwrap();
        // SAFETY: the name ends with a zero.
        unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) };
        for file in FILES {
            fs::remove_file(file).ok();
        }
        fs::remove_dir_all("/tmp/breakout").ok();
    }
}

/// A key of root's own, as a file system or a daemon would keep one.
fn key() -> libc::c_long {
    const USER_KEYRING: libc::c_long = -4;
    let (kind, name) = (CString::new("user").unwrap(), CString::new(SOCKET).unwrap());
    // SAFETY: names end with a zero, the payload has one byte.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            c"x".as_ptr(),
            1_usize,
            USER_KEYRING,
        )
    };
    assert!(key > 0, "{}", std::io::Error::last_os_error());
    key
}

fn make_queue() {
    let name = CString::new(QUEUE).unwrap();
    let flags = libc::O_CREAT | libc::O_RDWR;
    let attributes: *const u8 = std::ptr::null();
    // SAFETY: the name ends with a zero; no attributes.
    let queue =
        unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o666, attributes) };
    assert!(queue >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made, and nobody else has it.
    unsafe { libc::close(i32::try_from(queue).unwrap()) };
}

/// Kind and bytes of a file's handle; `None` where its file system has none.
fn handle() -> Option<String> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: u32,
        handle: [u8; 128],
    }
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        handle: [0; 128],
    };
    let mut mount = 0_i32;
    let name = CString::new(FILES[0]).unwrap();
    // SAFETY: the name ends with a zero, the handle has room for as many bytes as it says.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    if done != 0 {
        return None;
    }
    let used = usize::try_from(handle.bytes).ok()?;
    let text: String = handle.handle[..used]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(format!("{}:{text}", handle.kind))
}

/// A program of another user that runs as its owner; it ends normally only as that one, and is stopped otherwise.
fn set_uid_program() {
    const PATH: &str = "/tmp/breakout/set-uid";
    let code: [u8; 23] = [
        0xB8, 107, 0, 0, 0, // mov eax, geteuid
        0x0F, 0x05, // syscall
        0x3D, 0x39, 0x30, 0, 0, // cmp eax, 12345
        0x75, 7, // jne to ud2
        0xB8, 60, 0, 0, 0, // mov eax, exit
        0x0F, 0x05, // syscall: with the status that edi happens to be
        0x0F, 0x0B, // ud2
    ];
    const HEADERS: usize = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let total = (HEADERS + code.len()) as u64;
    let mut file = Vec::new();
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // an executable, x86-64
    for word in [BASE + HEADERS as u64, 64, 0] {
        file.extend(word.to_le_bytes()); // entry, program headers, sections
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]); // loaded, to be read and executed
    for word in [0, BASE, BASE, total, total, 4096_u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    fs::File::create(PATH).unwrap().write_all(&file).unwrap();
    std::os::unix::fs::chown(PATH, Some(OWNER), Some(OWNER)).unwrap();
    fs::set_permissions(PATH, fs::Permissions::from_mode(0o4755)).unwrap();
}
