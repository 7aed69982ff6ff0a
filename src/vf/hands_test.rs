use std::{fs, path::PathBuf, process};

use iommu::{bdf::Bdf, fake::FakeHost, topology::Mac};

use super::*;
use crate::sriov::AttributeValue;

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("narrows-hands-{name}-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// Hands that do not wait, on a host with one VF.
fn hands(folder: &Folder) -> KernelHands {
    let root = FakeHost::new(&folder.0)
        .pf(PF, 12)
        .interface("eth0")
        .vf(VF, PF, 13)
        .driver("igbvf")
        .vf_policy("mac 52:54:00:00:01:00 vlan 101 qos 0")
        .write()
        .unwrap();
    KernelHands {
        root,
        patience: Duration::ZERO,
    }
}

fn done(hands: &mut KernelHands, step: &Step) -> Result<Seen, StepFault> {
    hands.carry_out(step, &mut drop)
}

#[test]
fn autoprobe_is_written_and_read_back() {
    let folder = Folder::new("autoprobe");
    let mut hands = hands(&folder);
    let step = |from, to| Step::Autoprobe {
        pf: bdf(PF),
        from,
        to,
    };
    let place = folder
        .0
        .join("sys/bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe");
    assert_eq!(done(&mut hands, &step(false, true)), Ok(Seen::AsAsked));
    assert_eq!(fs::read_to_string(&place).unwrap().trim(), "1");
    assert_eq!(done(&mut hands, &step(true, false)), Ok(Seen::AsAsked));
    assert_eq!(fs::read_to_string(&place).unwrap().trim(), "0");
}

#[test]
fn vfs_that_do_not_appear_are_no_success() {
    let folder = Folder::new("appear");
    let mut hands = hands(&folder);
    let step = Step::Destroy {
        pf: bdf(PF),
        count: 1,
        snapshot: Vec::new(),
        interface: None,
        drive: None,
    };
    // The made-up kernel writes the number, but takes nothing away.
    let fault = done(&mut hands, &step).unwrap_err();
    assert!(fault.is_ignored && !fault.is_busy, "{fault}");
    let place = "sys/bus/pci/devices/0000:01:00.0/virtfn0";
    fs::remove_file(folder.0.join(place)).unwrap();
    assert_eq!(done(&mut hands, &step), Ok(Seen::AsAsked));
}

#[test]
fn another_number_of_vfs_is_not_tried_while_there_are_some() {
    let folder = Folder::new("number");
    let mut hands = hands(&folder);
    let step = |count| Step::Create {
        pf: bdf(PF),
        count,
        snapshot: Vec::new(),
        interface: None,
    };
    let fault = done(&mut hands, &step(4)).unwrap_err();
    assert_eq!(fault.evidence, "it has 1 VFs, which must go first");
    // As many as there are is done already.
    assert_eq!(done(&mut hands, &step(1)), Ok(Seen::AsAsked));
}

#[test]
fn vf_is_taken_only_from_the_driver_that_was_seen() {
    let folder = Folder::new("driver");
    let mut hands = hands(&folder);
    let unbind = |driver: &str| Step::Unbind {
        pf: bdf(PF),
        index: 0,
        vf: bdf(VF),
        driver: driver.to_owned(),
    };
    let fault = done(&mut hands, &unbind("ixgbevf")).unwrap_err();
    assert_eq!(fault.evidence, "it is bound to igbvf");
    // The made-up kernel does not let go.
    assert!(done(&mut hands, &unbind("igbvf")).unwrap_err().is_ignored);
    let written = fs::read_to_string(folder.0.join("sys/bus/pci/drivers/igbvf/unbind"));
    assert_eq!(written.unwrap(), VF);
}

#[test]
fn vf_with_a_driver_of_the_host_is_not_reset() {
    let folder = Folder::new("reset");
    let mut hands = hands(&folder);
    let step = |index, vf| Step::Reset {
        pf: bdf(PF),
        index,
        vf,
    };
    let fault = done(&mut hands, &step(0, None)).unwrap_err();
    assert_eq!(fault.evidence, "it is bound to igbvf");
    let fault = done(&mut hands, &step(0, Some(bdf("0000:01:10.2")))).unwrap_err();
    assert!(fault.evidence.contains("and was 0000:01:10.2"), "{fault}");
    let fault = done(&mut hands, &step(1, None)).unwrap_err();
    assert_eq!(fault.evidence, "there is no such VF");
}

#[test]
fn netlink_is_not_used_for_another_root() {
    let folder = Folder::new("netlink");
    let mut hands = hands(&folder);
    let attribute = |to| Step::Attribute {
        pf: bdf(PF),
        interface: "eth0".to_owned(),
        index: 0,
        from: None,
        to,
        stays: false,
    };
    let same = AttributeValue::Mac(Some(Mac([0x52, 0x54, 0, 0, 1, 0])));
    assert_eq!(done(&mut hands, &attribute(same)), Ok(Seen::AsAsked));
    let other = attribute(AttributeValue::Mac(None));
    let fault = done(&mut hands, &other).unwrap_err();
    assert!(fault.evidence.ends_with("is not this host"), "{fault}");
    let link = Step::Link {
        pf: bdf(PF),
        interface: "eth0".to_owned(),
        up: true,
    };
    assert!(done(&mut hands, &link).is_err());
}

#[test]
fn controller_that_cannot_be_opened_says_why() {
    let folder = Folder::new("controller");
    let mut hands = hands(&folder);
    let step = Step::Online {
        pf: bdf(PF),
        controller: "nvme9".to_owned(),
        cntlid: 1,
    };
    let fault = done(&mut hands, &step).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "set secondary controller 1 of nvme9 online: open /dev/nvme9: ENOENT"
    );
}
