//! What Narrows does with a device that misbehaves, is asked back, or is another's: on a lab host with three VFs of each
//! device and the emulator's monitor.

use std::{fs, process::Command, thread, time::Duration};

use iommu::{
    bind::{Binding, VFIO_PCI},
    space::{AddressSpace, DeviceNode, Interface, VfToken},
    sysfs::SysRoot,
    topology::Topology,
};

use crate::{guest::GuestFile, host};

/// edu is no VF and has no reset, so it is accepted by name.
const ACCEPT_EDU: &str = "accept = [\"device-not-a-vf\", \"device-no-reset\"]";
/// An address at which a guest of 128 MiB has nothing.
const OUTSIDE: u64 = 0x5000_0000;
const TOKEN: &str = "83d8f4f2-509f-382f-3c1e-e6bfe0fa1001";

/// Runs `narrows` with these words: status, standard output, standard error.
fn narrows(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new("narrows").args(words).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Fails unless nothing is in quarantine.
fn assert_nothing_quarantined() {
    let (status, list, _) = narrows(&["quarantine"]);
    assert_eq!(status, Some(0));
    assert_eq!(list.trim(), "nothing is in quarantine");
}

fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

#[test]
#[ignore = "needs a lab host"]
fn device_that_does_not_reset_is_in_quarantine_until_it_is_released_by_name() {
    let bdf = host::nvme(0);
    let method = format!("/sys/bus/pci/devices/{bdf}/reset_method");
    let mut guest = GuestFile::small("unclean", "sleep:600")
        .device(&bdf)
        .start();
    guest.wait_for("GUEST init=yes");
    host::shell(&format!("echo > {method}"));
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(1), "{text}");
    contains(
        &text,
        &["error[device-not-clean]", "ENOTTY", "is in quarantine"],
    );
    host::shell(&format!("echo default > {method}"));
    host::assert_returned(&bdf);

    let text = GuestFile::small("next", "lspci").device(&bdf).refused(3);
    contains(
        &text,
        &[
            "error[device-quarantined]",
            "guest unclean",
            "ENOTTY",
            &format!("narrows quarantine release {bdf}"),
        ],
    );
    host::assert_returned(&bdf);
    let (status, list, _) = narrows(&["quarantine", "--json"]);
    assert_eq!(status, Some(0));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.pointer("/quarantined/0/bdf").unwrap(), &bdf);
    assert_eq!(
        list.pointer("/quarantined/0/device/vendor").unwrap(),
        "0x1b36"
    );

    let other = host::nvme(1);
    let (status, _, text) = narrows(&["quarantine", "release", &bdf, &other]);
    assert_eq!(status, Some(1), "{text}");
    contains(
        &text,
        &["error[not-quarantined]", &format!("in quarantine: {bdf}")],
    );
    let (status, said, text) = narrows(&["quarantine", "release", &bdf, "--note", "reset by hand"]);
    assert_eq!(status, Some(0), "{text}");
    contains(&said, &["is released", "guest unclean"]);
    assert_nothing_quarantined();

    GuestFile::small("after", "lspci").device(&bdf).run();
    host::assert_returned(&bdf);
    assert_nothing_quarantined();
}

#[test]
#[ignore = "needs a lab host"]
fn quarantine_that_cannot_be_written_is_said_loudly() {
    let bdf = host::nvme(0);
    let method = format!("/sys/bus/pci/devices/{bdf}/reset_method");
    let mut guest = GuestFile::small("unwritten", "sleep:600")
        .device(&bdf)
        .start();
    guest.wait_for("GUEST init=yes");
    // A file where the folder was: also root cannot write there.
    let folder = "/var/lib/narrows/quarantine";
    host::shell(&format!(
        "echo > {method}; mv {folder} {folder}.away; touch {folder}"
    ));
    guest.signal("TERM");
    let (status, transcript) = guest.end();
    host::shell(&format!(
        "echo default > {method}; rm {folder}; mv {folder}.away {folder}"
    ));
    let text = transcript.text();
    assert_eq!(status.code(), Some(1), "{text}");
    contains(
        &text,
        &[
            "error[quarantine-failed]",
            "ENOTTY",
            &format!("give {bdf} to no guest"),
        ],
    );
    assert_nothing_quarantined();
    host::assert_returned(&bdf);
}

#[test]
#[ignore = "needs a lab host"]
fn second_run_of_a_vf_is_refused_and_told_who_has_it() {
    let bdf = host::nvme(0);
    let mut first = GuestFile::small("first", "sleep:600").device(&bdf).start();
    first.wait_for("GUEST init=yes");
    let text = GuestFile::small("second", "lspci").device(&bdf).refused(3);
    let who = format!("guest first, process {}", first.keeper_pid());
    contains(&text, &["error[device-in-use]", &who]);
    assert_eq!(
        host::driver(&bdf).as_deref(),
        Some("vfio-pci"),
        "the first has it still"
    );
    // Killed without a chance to clean up: the lock ends with the process, but the function has to be put right first.
    host::shell(&format!("kill -KILL {}", first.keeper_pid()));
    first.end();
    let third = GuestFile::small("third", "lspci").device(&bdf);
    contains(&third.refused(3), &["error[recover-needed]", "guest first"]);
    let told = host::shell("narrows recover");
    contains(&told, &[&bdf, "first"]);
    host::assert_returned(&bdf);
    third.run();
    assert_nothing_quarantined();
    host::assert_returned(&bdf);
}

#[test]
#[ignore = "needs a lab host"]
fn device_that_could_not_be_quarantined_is_not_taken() {
    let bdf = host::nvme(0);
    let path = GuestFile::small("stateless", "lspci").device(&bdf).write();
    let (status, _, text) = narrows(&["--state", "/proc/narrows", "run", &path]);
    assert_eq!(status, Some(1), "{text}");
    contains(&text, &["error[state-unwritable]", "/proc/narrows"]);
    assert!(!text.contains("is bound to vfio-pci"), "{text}");
    host::assert_returned(&bdf);
}

#[test]
#[ignore = "needs a lab host"]
fn dma_outside_of_ram_ends_the_guest() {
    let edu = host::fact("EDU");
    let words = format!("edu-dma:{OUTSIDE:#x},sleep:600");
    let guest = GuestFile::small("fault", &words)
        .device_with(&edu, ACCEPT_EDU)
        .start();
    let (status, transcript) = guest.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(27), "{text}");
    contains(
        &text,
        &[
            &format!("DMA fault of {edu}: "),
            &format!("at {OUTSIDE:#x}"),
            "reason 0x0",
        ],
    );
    assert!(transcript.stat("/dma_faults/total") >= 1);
    host::assert_returned(&edu);
    assert_nothing_quarantined();
}

#[test]
#[ignore = "needs a lab host"]
fn dma_outside_of_ram_is_logged_briefly_where_the_file_says_so() {
    let edu = host::fact("EDU");
    let storm: Vec<String> = (0..12)
        .map(|page| format!("edu-dma:{:#x}", OUTSIDE + 0x1000 * page))
        .collect();
    let transcript = GuestFile::small("storm", &storm.join(","))
        .key("on_dma_fault = \"log\"")
        .device_with(&edu, ACCEPT_EDU)
        .run();
    let text = transcript.text();
    let lines = text.matches(&format!("DMA fault of {edu}: ")).count();
    let total = transcript.stat("/dma_faults/total");
    let said = u64::try_from(lines).unwrap();
    assert!(
        (1..=8).contains(&said),
        "{said} lines of {total} faults:\n{text}"
    );
    if total > 8 {
        assert_eq!(said, 8);
        contains(
            &text,
            &[&format!("{} more DMA faults were stopped", total - 8)],
        );
    }
    assert_eq!(transcript.stat("/dma_faults/functions/0/count"), total);
    host::assert_returned(&edu);
}

#[test]
#[ignore = "needs a lab host"]
fn dma_within_ram_is_no_fault() {
    let edu = host::fact("EDU");
    let transcript = GuestFile::small("control", "edu-dma:0x3000000")
        .device_with(&edu, ACCEPT_EDU)
        .run();
    assert_eq!(transcript.count("edu-dma"), 2);
    assert_eq!(transcript.stat("/dma_faults/total"), 0);
}

#[test]
#[ignore = "needs a lab host"]
fn fault_that_a_process_writes_to_the_kernel_log_stops_nobody() {
    let edu = host::fact("EDU");
    let mut guest = GuestFile::small("forged", "sleep:5")
        .device_with(&edu, ACCEPT_EDU)
        .start();
    guest.wait_for("GUEST init=yes");
    let device = edu.trim_start_matches("0000:");
    for priority in ["", "<0>", "<3>", "<7>", "<8>", "<11>"] {
        let line = format!(
            "{priority}DMAR: [DMA Write NO_PASID] Request device [{device}] fault addr 0x50000000 [fault reason 0x05] x"
        );
        fs::write("/dev/kmsg", line).unwrap();
    }
    let (status, transcript) = guest.end();
    assert_eq!(status.code(), Some(0), "{}", transcript.text());
    assert_eq!(transcript.stat("/dma_faults/total"), 0);
}

#[test]
#[ignore = "needs a lab host"]
fn host_that_unbinds_the_device_gets_it_back() {
    let bdf = host::nvme(1);
    let mut guest = GuestFile::small("asked", "sleep:600").device(&bdf).start();
    guest.wait_for("GUEST init=yes");
    let unbind = format!("echo {bdf} > /sys/bus/pci/drivers/vfio-pci/unbind");
    let host_asks = thread::spawn(move || host::shell(&unbind));
    let (status, transcript) = guest.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(26), "{text}");
    contains(
        &text,
        &[
            &format!("the host asked for device {bdf} back"),
            "it is reset now",
        ],
    );
    host_asks.join().unwrap();
    host::assert_returned(&bdf);
    assert_nothing_quarantined();
    GuestFile::small("again", "lspci").device(&bdf).run();
}

#[test]
#[ignore = "needs a lab host"]
fn vf_that_the_host_removes_counts_as_given_back() {
    let (pf, bdf) = (host::fact("NIC_PF"), host::nic(2));
    let vfs = format!("/sys/bus/pci/devices/{pf}/sriov_numvfs");
    let mut guest = GuestFile::small("removed", "sleep:600")
        .device(&bdf)
        .start();
    guest.wait_for("GUEST init=yes");
    let remove = format!("echo 0 > {vfs}");
    let host_removes = thread::spawn(move || host::shell(&remove));
    let (status, transcript) = guest.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(26), "{text}");
    contains(&text, &[&format!("{bdf} is gone: the host has removed it")]);
    host_removes.join().unwrap();
    assert_nothing_quarantined();
    host::shell(&format!("echo 3 > {vfs}"));
    GuestFile::small("anew", "lspci").device(&bdf).run();
    host::assert_returned(&bdf);
}

#[test]
#[ignore = "needs a lab host"]
fn error_of_a_device_ends_its_guest_and_no_other() {
    let (nvme, nic) = (host::nvme(0), host::nic(0));
    // All VFs of the controller: a VF without a driver has no answer to the error, and then the kernel gives the PF up.
    let mut hit = GuestFile::small("hit", "sleep:600")
        .device(&nvme)
        .device(&host::nvme(1))
        .device(&host::nvme(2))
        .start();
    let mut spared = GuestFile::small("spared", "sleep:600").device(&nic).start();
    hit.wait_for("GUEST init=yes");
    spared.wait_for("GUEST init=yes");
    // The emulator gives VFs no name, so the error is that of the port above; the kernel tells all that is below it.
    host::shell("printf 'pcie_aer_inject_error port2 0x4000\\r' >/dev/ttyS2");
    let (status, transcript) = hit.end();
    let text = transcript.text();
    assert_eq!(status.code(), Some(22), "{text}");
    contains(&text, &["failed: it reported an uncorrectable error (AER)"]);
    thread::sleep(Duration::from_secs(1));
    spared.signal("TERM");
    let (status, transcript) = spared.end();
    assert_eq!(status.code(), Some(25), "{}", transcript.text());
    host::assert_returned(&nvme);
    host::assert_returned(&nic);
    assert_nothing_quarantined();
}

#[test]
#[ignore = "needs a lab host"]
fn reset_that_fails_while_the_guest_runs_is_told_with_its_errno() {
    let bdf = host::nvme(0);
    let method = format!("/sys/bus/pci/devices/{bdf}/reset_method");
    let mut guest = GuestFile::small("noflr", "sleep:5,flr,sleep:600")
        .device(&bdf)
        .start();
    guest.wait_for("GUEST init=yes");
    host::shell(&format!("echo > {method}"));
    let (status, transcript) = guest.end();
    let text = transcript.text();
    host::shell(&format!("echo default > {method}"));
    // Not 22: the device could not be reset at the end, either.
    assert_eq!(status.code(), Some(1), "{text}");
    contains(
        &text,
        &[
            &format!(
                "device {bdf} failed while the guest ran: the reset that the guest asked for: ENOTTY"
            ),
            "error[device-not-clean]",
        ],
    );
    let (status, _, text) = narrows(&["quarantine", "release", &bdf]);
    assert_eq!(status, Some(0), "{text}");
}

// The PF is taken from its driver for these, and stays so: they are the last by their names.

#[test]
#[ignore = "needs a lab host"]
fn vf_of_a_pf_in_user_space_wants_its_token_by_iommufd() {
    token_decides(Interface::Iommufd);
}

#[test]
#[ignore = "needs a lab host"]
fn vf_of_a_pf_in_user_space_wants_its_token_by_type1() {
    token_decides(Interface::Type1);
}

/// Plays the owner of a PF in user space, who sets the token, and tries guests with and without it.
fn token_decides(interface: Interface) {
    let pf = host::fact("NVME_PF");
    let folder = format!("/sys/bus/pci/devices/{pf}");
    host::shell(&format!(
        "echo 1 > /sys/module/vfio_pci/parameters/enable_sriov; echo 0 > {folder}/sriov_numvfs; \
         [ ! -e {folder}/driver ] || echo {pf} > {folder}/driver/unbind"
    ));
    let root = SysRoot::default();
    let bdf = pf.parse().unwrap();
    let binding = Binding::bind(&root, bdf, VFIO_PCI).unwrap();
    let topology = Topology::read(&root).unwrap();
    let mut space = AddressSpace::open(interface, &root).unwrap();
    let mut node = DeviceNode::of(&topology, bdf).unwrap();
    let digits: String = TOKEN.chars().filter(|c| *c != '-').collect();
    node.vf_token = Some(VfToken::new(
        u128::from_str_radix(&digits, 16).unwrap().to_be_bytes(),
    ));
    let owner = space.attach(&node).unwrap();
    host::shell(&format!("echo 1 > {folder}/sriov_numvfs"));
    let vf = fs::read_link(format!("{folder}/virtfn0")).unwrap();
    let vf = vf.file_name().unwrap().to_string_lossy().into_owned();

    let file = |name: &str, token: &str| {
        GuestFile::small(name, "lspci")
            .key(&format!("interface = \"{interface}\""))
            .device_with(&vf, token)
    };
    let text = file("no-token", "").refused(3);
    contains(
        &text,
        &["error[vf-token-wrong]", "EACCES", "wants a VF token"],
    );
    let wrong = TOKEN.replace('8', "9");
    let text = file("wrong-token", &format!("vf_token = \"{wrong}\"")).refused(3);
    contains(&text, &["error[vf-token-wrong]", "is not that of its PF"]);
    assert!(!text.contains(&wrong), "a token is a secret");
    let transcript = file("right-token", &format!("vf_token = \"{TOKEN}\"")).run();
    transcript.facts("pci", "id=1b36:0010");
    assert_nothing_quarantined();

    host::shell(&format!("echo 0 > {folder}/sriov_numvfs"));
    drop((owner, space));
    binding.restore(&root).unwrap();
    // A token for a PF that is not in user space is wrong, too.
    let nic = host::nic(1);
    let text = GuestFile::small("needless-token", "lspci")
        .key(&format!("interface = \"{interface}\""))
        .device_with(&nic, &format!("vf_token = \"{TOKEN}\""))
        .refused(3);
    contains(&text, &["error[vf-token-wrong]", "takes no VF token"]);
    host::assert_returned(&nic);
}
