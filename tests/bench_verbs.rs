//! How long `narrows host plan` and `narrows host status` take as a program, on a large host: 16 PFs with 128 VFs each,
//! a record of every VF, a quarter of them with guests that run.
//!
//! scripts/bench-host runs it with a release build, and writes what it prints.

#![expect(
    clippy::unwrap_used,
    reason = "a made-up host that is wrong ends the test"
)]

use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, id},
    time::{Duration, Instant},
};

use iommu::{bdf::Bdf, fake::FakeHost, sysfs::SysRoot, topology::Mac};
use narrows::{
    host::sriov,
    spec::host::Eraser,
    sriov::{Holder, Lease, LeaseTerms, Observed, VfRecord, VfState},
    state::{InUse, ProcessId, State, now},
};

const PFS: u8 = 16;
const VFS: u8 = 128;
/// So many of each PF have guests.
const LEASED: u8 = 32;
const RUNS: usize = 20;

/// The host is as this says.
const APPLIED: &str = "vlan = 5\n";
/// Every VF would change.
const OTHER: &str =
    "vlan = 7\nhold = \"always\"\ntrust = true\nmax_tx_rate = \"1G\"\nstate = \"enable\"\n";

/// A folder for the host, in memory where that is possible; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() {
            memory.to_owned()
        } else {
            env::temp_dir()
        };
        Self(above.join(format!("narrows-bench-{}", id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn bus(pf: u8) -> u8 {
    2 + 2 * pf
}

fn mac(pf: u8, vf: u8) -> Mac {
    Mac([0x02, 0, 0, 0, pf, vf])
}

fn name_of(pf: u8) -> String {
    format!("0000:{:02x}:00.0", bus(pf))
}

fn make_host(folder: &Path) -> SysRoot {
    let mut host = FakeHost::new(folder);
    for pf in 0..PFS {
        let bdf = name_of(pf);
        let first = 1000 * (u32::from(pf) + 1);
        let interface = format!("eth{pf}");
        host = host
            .pf(&bdf, first)
            .ids(0x15b3, 0x101d, 0x02_0000)
            .driver("mlx5_core")
            .total_vfs(u32::from(VFS))
            .autoprobe(false)
            .interface(&interface)
            .port(&interface, true, 100_000);
        for vf in 0..VFS {
            let at = format!("0000:{:02x}:{:02x}.{}", bus(pf) + 1, vf / 8, vf % 8);
            let vlan = if vf < LEASED { 5 } else { 0 };
            host = host
                .vf(&at, &bdf, first + 1 + u32::from(vf))
                .vf_policy(&format!("mac {} vlan {vlan}", mac(pf, vf)));
            if vf < LEASED {
                host = host.driver("vfio-pci");
            }
        }
    }
    host.write().unwrap()
}

fn host_file(pool: &str) -> String {
    let mut text = format!("[[pool]]\nname = \"t\"\nkind = \"nic\"\n{pool}");
    for pf in 0..PFS {
        let bdf = name_of(pf);
        writeln!(
            text,
            "[[pf]]\nbdf = \"{bdf}\"\nvfs = {VFS}\npools = {{ t = \"0-{}\" }}",
            VFS - 1
        )
        .unwrap();
    }
    text
}

/// Writes the state folder of a host to which [`APPLIED`] was applied, and takes the VFs that have guests: they are free
/// again when what is returned is dropped.
fn make_state(state: &State, observed: &Observed) -> Vec<InUse> {
    state.seed().unwrap();
    state.set_baseline(observed).unwrap();
    state
        .set_applied(Path::new("host.toml"), &host_file(APPLIED))
        .unwrap();
    let own = ProcessId::of(&SysRoot::default(), id()).unwrap().unwrap();
    let mut taken = Vec::new();
    for (number, pf) in (0..PFS).zip(observed.pfs.values()) {
        let record = |index: u8, bdf: Bdf| VfRecord {
            bdf,
            state: match index < LEASED {
                true => VfState::InUse,
                false => VfState::Clean,
            },
            since: now(),
            pool: Some("t".to_owned()),
            mac: Some(mac(number, index)),
            lease: (index < LEASED).then(|| Lease {
                guest: format!("guest-{number}-{index}"),
                keep: false,
                since: now(),
                run: Some(Holder {
                    pid: own.pid,
                    start: own.start,
                    boot: observed.boot.clone(),
                }),
                terms: LeaseTerms {
                    pool: "t".to_owned(),
                    vf: bdf,
                    pf: pf.bdf,
                    anchor: pf.anchor.clone(),
                    index: u32::from(index),
                    interface: pf.nic().and_then(|nic| nic.interface.clone()),
                    controller: None,
                    cntlid: None,
                    keep: false,
                    rest: pf.vfs[usize::from(index)].nic.unwrap(),
                    leased: pf.vfs[usize::from(index)].nic.unwrap(),
                    no_mac: false,
                    resources: None,
                    namespaces: Vec::new(),
                    erase: Eraser::None,
                    accept: Vec::new(),
                },
            }),
        };
        state
            .change_pf(pf.bdf, &pf.anchor, |kept| {
                kept.boot.clone_from(&observed.boot);
                for (index, vf) in (0..VFS).zip(&pf.vfs) {
                    kept.vfs.insert(vf.index, record(index, vf.bdf));
                }
                Ok(())
            })
            .unwrap();
        for (index, vf) in (0..VFS).zip(&pf.vfs) {
            // The file of a VF that some guest had stays.
            let lock = InUse::take(state, vf.bdf, &format!("guest-{number}-{index}")).unwrap();
            taken.extend((index < LEASED).then_some(lock));
        }
    }
    taken
}

#[test]
#[ignore = "prints times: scripts/bench-host runs it"]
#[expect(clippy::print_stdout, reason = "the times are what it is for")]
fn verbs_on_a_host_with_2048_vfs() {
    let folder = Folder::new();
    let at = |name: &str| folder.0.join(name);
    let root = make_host(&at("root"));
    let observed = sriov::read(&root).unwrap();
    assert_eq!(observed.unread, []);
    let state = State::new(at("state"));
    let taken = make_state(&state, &observed);
    assert_eq!(taken.len(), usize::from(PFS) * usize::from(LEASED));
    fs::write(at("same.toml"), host_file(APPLIED)).unwrap();
    fs::write(at("other.toml"), host_file(OTHER)).unwrap();
    let program = env::var_os("NARROWS_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_narrows").into());
    println!("bench folder {}", folder.0.parent().unwrap().display());
    for (verb, file, status) in [
        ("plan", "same.toml", 0),
        ("plan", "other.toml", 2),
        ("status", "same.toml", 0),
        ("status", "other.toml", 2),
    ] {
        let run = || -> (Duration, u64) {
            let out = at("out");
            let mut command = Command::new(&program);
            command
                .args(["host", verb, file, "--json", "--root", "root"])
                .args(["--state", "state"])
                .current_dir(&folder.0)
                .stdout(File::create(&out).unwrap());
            let began = Instant::now();
            let ended = command.status().unwrap();
            let took = began.elapsed();
            let text = fs::read_to_string(&out).unwrap();
            let first: String = text.chars().take(2000).collect();
            assert_eq!(ended.code(), Some(status), "{verb} {file}: {first}");
            (took, text.len() as u64)
        };
        let mut times: Vec<Duration> = (0..RUNS).map(|_| run().0).collect();
        times.sort();
        let [best, .., worst] = times.as_slice() else {
            unreachable!("there are {RUNS}");
        };
        let (median, len_kib) = (times[RUNS / 2], run().1 >> 10);
        let ms = |time: &Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
        println!(
            "bench {verb}_{} {} {} {} {len_kib}",
            file.trim_end_matches(".toml"),
            ms(best),
            ms(&median),
            ms(worst)
        );
    }
}
