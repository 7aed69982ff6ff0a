use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use iommu::fake::FakeHost;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;
use crate::{
    cli::planning::replan,
    error::ErrorId,
    host::{self, Anew},
    sriov::Event,
    state::{InUse, now},
};

const PF: &str = "0000:01:00.0";
const FILE: &str = "[[pool]]\nname = \"a\"\nkind = \"nic\"\nmac = \"none\"\n[[pf]]\ninterface = \"eth0\"\nvfs = 3\npools = { a = \"0-2\" }\n";
const BY_POOL: &str = "[[device]]\npool = \"a\"\n";

/// What comes of a reservation.
type Outcome = Result<(Plan, Reserved), Vec<Report>>;

/// A host with three clean VFs in a pool, and guest files; removed at its end.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("narrows-reserve-{}-{count}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).unwrap();
        let mut kernel = vec![0; 0x1000];
        kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&[0x0F, 2]);
        kernel[0x236] = 1;
        fs::write(folder.join("vmlinuz"), kernel).unwrap();
        let cpus = "address sizes : 39 bits physical, 48 bits virtual\n";
        let mut host = FakeHost::new(folder.join("root"))
            .file("proc/cpuinfo", cpus)
            .file("proc/meminfo", "MemAvailable: 8388608 kB\n")
            .file("proc/sys/kernel/random/boot_id", "boot")
            .file("sys/devices/system/cpu/online", "0-3\n")
            .file("dev/kvm", "")
            .pf(PF, 12)
            .driver("igb")
            .total_vfs(7)
            .interface("eth0")
            .port("eth0", true, 1000)
            .autoprobe(false);
        for number in 0..3 {
            let none = "mac 00:00:00:00:00:00";
            let vf = format!("0000:01:10.{number}");
            host = host.vf(&vf, PF, 20 + number).vf_policy(none);
        }
        host.write().unwrap();
        let scene = Self(folder);
        let state = scene.state();
        state.set_applied(&scene.0.join("host.toml"), FILE).unwrap();
        let observed = host::sriov::read(&scene.root()).unwrap();
        let facts = &observed.pfs[&bdf(PF)];
        state
            .change_pf(facts.bdf, &facts.anchor, |kept| {
                kept.enter(&observed.boot, false, &now());
                for vf in &facts.vfs {
                    kept.step(vf.index, vf.bdf, Event::Created, &now())?;
                    kept.step(vf.index, vf.bdf, Event::ResetSeen, &now())?;
                }
                Ok(())
            })
            .unwrap();
        scene
    }

    fn root(&self) -> SysRoot {
        SysRoot::new(self.0.join("root"))
    }

    fn state(&self) -> State {
        State::new(self.0.join("state"))
    }

    fn guest(&self, name: &str, devices: &str) -> PathBuf {
        let path = self.0.join(format!("{name}.toml"));
        let text = format!("name = \"{name}\"\nmemory = \"512M\"\nkernel = \"vmlinuz\"\n{devices}");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn plan_to_run(file: &Path, root: &SysRoot, state: &State) -> Result<Plan, Vec<Report>> {
    plan_without(file, root, Some(state), &Lost::new(), Purpose::Run).map(|planned| planned.plan)
}

/// Reserves, with other runs that begin between the plan and its locks: each takes what was chosen, `times` times.
fn raced(scene: &Scene, file: &Path, times: usize) -> (Outcome, Vec<InUse>) {
    let (root, state) = (scene.root(), scene.state());
    let others = Cell::new(Vec::new());
    let result = until_reserved(
        |lost| plan_without(file, &root, Some(&state), lost, Purpose::Run),
        |plan| {
            let mut taken = others.take();
            if taken.len() < times {
                let bdf = plan.functions[0].bdf;
                let other = format!("other-{}", taken.len());
                taken.push(InUse::take(&state, bdf, &other).unwrap());
            }
            others.set(taken);
            Reserved::take(plan, &root, &state)
        },
    );
    let result = result.map(|(planned, reserved)| (planned.plan, reserved));
    (result, others.take())
}

#[test]
fn who_loses_a_chosen_vf_to_another_run_gets_the_next_one() {
    let scene = Scene::new();
    let file = scene.guest("web", BY_POOL);
    for times in [0, 1, 2] {
        let (result, others) = raced(&scene, &file, times);
        let (plan, reserved) = result.unwrap();
        let its = plan.functions[0].bdf;
        assert_eq!(others.len(), times);
        assert!(others.iter().all(|other| other.bdf() != its));
        drop(reserved);
    }
}

#[test]
fn who_loses_all_is_told_who_has_each() {
    let scene = Scene::new();
    let (result, _others) = raced(&scene, &scene.guest("web", BY_POOL), 3);
    let reports = result.unwrap_err();
    let [report] = &reports[..] else {
        panic!("{reports:?}");
    };
    assert_eq!(report.id, ErrorId::PoolExhausted);
    let why = report.why.join("\n");
    for other in ["other-0", "other-1", "other-2"] {
        assert!(why.contains(other), "{other}: {why}");
    }
}

#[test]
fn what_the_guest_names_itself_is_not_replaced() {
    let scene = Scene::new();
    let (result, others) = raced(
        &scene,
        &scene.guest("web", "[[device]]\nbdf = \"0000:01:10.1\"\n"),
        1,
    );
    let reports = result.unwrap_err();
    assert_eq!(reports[0].id, ErrorId::DeviceInUse);
    assert!(reports[0].why[0].contains("other-0"), "{reports:?}");
    assert_eq!(others.len(), 1);
}

#[test]
fn a_vf_that_became_another_guests_lease_before_it_was_locked_is_not_taken() {
    let scene = Scene::new();
    let (root, state) = (scene.root(), scene.state());
    let file = scene.guest("web", BY_POOL);
    let is_first = Cell::new(true);
    let (planned, _reserved) = until_reserved(
        |lost| plan_without(&file, &root, Some(&state), lost, Purpose::Run),
        |plan| {
            if is_first.replace(false) {
                let terms = plan.functions[0].lease.as_ref().unwrap();
                let holder = crate::sriov::Holder {
                    pid: 1,
                    start: 1,
                    boot: "boot".to_owned(),
                };
                crate::vf::lease::claim(&state, "other", &holder, terms).unwrap();
            }
            Reserved::take(plan, &root, &state)
        },
    )
    .unwrap();
    assert_ne!(planned.plan.functions[0].bdf, bdf("0000:01:10.0"));
}

#[test]
fn of_runs_that_begin_together_each_gets_a_vf_or_is_told_who_has_them() {
    let scene = Scene::new();
    let names = ["a", "b", "c", "d"];
    let files = names.map(|name| scene.guest(name, BY_POOL));
    let barrier = Barrier::new(names.len());
    let results = thread::scope(|scope| {
        let runs = files.each_ref().map(|file| {
            scope.spawn(|| {
                barrier.wait();
                reserve(file, &scene.root(), &scene.state())
            })
        });
        runs.map(|run| run.join().unwrap())
    });
    let won: BTreeSet<Bdf> = results
        .iter()
        .filter_map(|result| Some(result.as_ref().ok()?.plan.functions[0].bdf))
        .collect();
    let lost: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert_eq!((won.len(), lost.len()), (3, 1), "{lost:?}");
    assert_eq!(lost[0][0].id, ErrorId::PoolExhausted);
}

/// What `f` gives in a thread that may not read what root alone may.
fn without_privilege<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Of this thread alone. What is left is what its user may.
            let mut kept = capabilities(None).unwrap();
            let passing = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            kept.effective.remove(passing);
            set_capabilities(None, kept).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}

#[test]
fn who_may_not_read_the_state_sees_a_plan_of_named_devices_and_is_refused_pools_and_runs() {
    let scene = Scene::new();
    let named = scene.guest("web", "[[device]]\nbdf = \"0000:01:10.1\"\n");
    let by_pool = scene.guest("db", BY_POOL);
    for closed in ["state/host", "state"] {
        let folder = scene.0.join(closed);
        let mode = |bits| fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
        let look = |file: &Path, purpose| {
            let (root, state) = (scene.root(), scene.state());
            without_privilege(|| plan_without(file, &root, Some(&state), &Lost::new(), purpose))
        };
        mode(0);
        let results = [
            look(&named, Purpose::Show),
            look(&named, Purpose::Run),
            look(&by_pool, Purpose::Show),
        ];
        mode(0o700);
        let [shown, run, pool] = results;
        let plan = shown.unwrap().plan;
        assert_eq!(plan.functions[0].bdf, bdf("0000:01:10.1"));
        let warned = plan.warnings.iter().map(|warning| warning.id);
        assert_eq!(
            warned.filter(|id| *id == ErrorId::NotPermitted).count(),
            1,
            "{:?}",
            plan.warnings
        );
        for refused in [run, pool] {
            let reports = refused.unwrap_err();
            assert_eq!(reports[0].id, ErrorId::NotPermitted, "{reports:?}");
        }
    }
}

#[test]
fn a_pf_that_is_gone_keeps_guests_from_its_pools_and_from_no_other() {
    let scene = Scene::new();
    let (root, state) = (scene.root(), scene.state());
    let more = "[[pool]]\nname = \"b\"\nkind = \"nic\"\n[[pf]]\ninterface = \"eth9\"\nvfs = 1\npools = { b = \"0\" }\n";
    let (pools, pfs) = FILE.split_at(FILE.find("[[pf]]").unwrap());
    let (pool, pf) = more.split_at(more.find("[[pf]]").unwrap());
    let text = [pools, pool, pfs, pf].concat();
    state.set_applied(Path::new("host.toml"), &text).unwrap();
    let plan = |file: &Path| plan_to_run(file, &root, &state);
    for devices in [BY_POOL, "[[device]]\nbdf = \"0000:01:10.1\"\n"] {
        let plan = plan(&scene.guest("web", devices)).unwrap();
        assert!(plan.functions[0].lease.is_some(), "{devices}");
    }
    let refused = plan(&scene.guest("db", "[[device]]\npool = \"b\"\n")).unwrap_err();
    assert_eq!(refused[0].id, ErrorId::PfAbsent);
    // Both pools have VFs of the PF that is gone: a guest might keep one there.
    let both = text.replace("b = \"0\"", "a = \"0\"");
    state.set_applied(Path::new("host.toml"), &both).unwrap();
    let refused = plan(&scene.guest("web", BY_POOL)).unwrap_err();
    assert_eq!(refused[0].id, ErrorId::PfAbsent);
}

#[test]
fn a_named_vf_of_a_pf_that_is_not_as_applied_is_not_given_without_a_lease() {
    let scene = Scene::new();
    let (root, state) = (scene.root(), scene.state());
    // It can have seven.
    let text = FILE.replace("vfs = 3", "vfs = 9");
    state.set_applied(Path::new("host.toml"), &text).unwrap();
    let file = scene.guest("web", "[[device]]\nbdf = \"0000:01:10.1\"\n");
    let refused = plan_to_run(&file, &root, &state).unwrap_err();
    assert_eq!(refused[0].id, ErrorId::VfsOvercommitted);
}

#[test]
fn what_happens_to_a_function_after_its_plan_is_found_when_it_is_planned_again() {
    let scene = Scene::new();
    let (root, state) = (scene.root(), scene.state());
    let file = scene.guest("web", "[[device]]\nbdf = \"0000:01:10.1\"\n");
    let first = plan_without(&file, &root, Some(&state), &Lost::new(), Purpose::Run).unwrap();
    let again = replan(&file, &root, &state, first.host);
    for anew in [Anew::DevicesAndMemory, Anew::Devices] {
        let later = again(anew).unwrap();
        assert_eq!(first.plan.agrees_with(&later), Ok(()));
    }
    // Another function joins its group.
    let joined = root.path("sys/kernel/iommu_groups/21/devices/0000:01:10.2");
    fs::write(&joined, "").unwrap();
    let refused = again(Anew::Devices).unwrap_err();
    assert_eq!(refused[0].id.name(), "group-shared", "{refused:?}");
    fs::remove_file(joined).unwrap();
    // The guest file no longer names it, so that nobody asks about it; or names another one besides.
    let mentioned = fs::read_to_string(&file).unwrap();
    for (others, differs) in [
        (
            mentioned.replace("[[device]]\nbdf = \"0000:01:10.1\"\n", ""),
            "0000:01:10.1",
        ),
        (
            format!("{mentioned}[[device]]\nbdf = \"0000:01:10.2\"\n"),
            "0000:01:10.2",
        ),
    ] {
        fs::write(&file, others).unwrap();
        let later = again(Anew::Devices).unwrap();
        assert_eq!(first.plan.agrees_with(&later), Err(bdf(differs)));
    }
    fs::write(&file, mentioned).unwrap();
    // It is as isolated as before, and without one of its BARs.
    let resource = root.path("sys/bus/pci/devices/0000:01:10.1/resource");
    let text = fs::read_to_string(&resource).unwrap();
    let (_, others) = text.split_once('\n').unwrap();
    fs::write(&resource, format!("0x0 0x0 0x0\n{others}")).unwrap();
    let later = again(Anew::Devices).unwrap();
    assert_eq!(first.plan.agrees_with(&later), Err(bdf("0000:01:10.1")));
}
