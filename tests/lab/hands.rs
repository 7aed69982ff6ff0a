//! Steps on real devices, one after the other, with `ip` and `nvme` as witnesses: what they say counts, not what the
//! steps read back. The host has devices without VFs (`--no-vfs`), with at least 4 each, and nobody else changes them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    process::Command,
};

use iommu::{
    bdf::Bdf,
    sysfs::SysRoot,
    topology::{LinkPolicy, VlanProto},
};
use narrows::{
    spec::host::{Mbps, Vlan},
    sriov::{
        AttributeValue, EraseHow, Hands, Observed, Percent, ResourceKind, Seen, Step, StepFault,
    },
    vf::KernelHands,
};

use crate::host;

/// What a program says.
fn said(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn hands() -> KernelHands {
    KernelHands::new(SysRoot::default())
}

fn try_step(step: &Step) -> Result<Seen, StepFault> {
    hands().carry_out(step, &mut drop)
}

fn done(step: &Step) -> Seen {
    try_step(step).unwrap_or_else(|fault| panic!("{step:?}: {fault}"))
}

fn observed() -> Observed {
    let observed = hands().observe().unwrap();
    assert_eq!(observed.unread, []);
    observed
}

/// The line of `ip -d link` about a VF.
fn ip_vf(interface: &str, index: u32) -> Option<String> {
    let start = format!("vf {index} ");
    said(&["ip", "-d", "link", "show", "dev", interface])
        .lines()
        .map(|line| line.trim().to_owned())
        .find(|line| line.starts_with(&start))
}

fn nic() -> (Bdf, String) {
    (host::fact("NIC_PF").parse().unwrap(), host::fact("NIC_IF"))
}

fn attribute(index: u32, to: AttributeValue) -> Step {
    let (pf, interface) = nic();
    Step::Attribute {
        pf,
        interface,
        index,
        from: None,
        to,
        stays: false,
    }
}

fn count(pf: Bdf, count: u32, interface: Option<&str>) -> Step {
    Step::Create {
        pf,
        count,
        snapshot: Vec::new(),
        interface: interface.map(str::to_owned),
    }
}

fn destroy(pf: Bdf, count: u32, interface: Option<&str>) -> Step {
    Step::Destroy {
        pf,
        count,
        snapshot: Vec::new(),
        interface: interface.map(str::to_owned),
        drive: None,
    }
}

#[test]
#[ignore = "needs a lab host"]
fn vfs_of_the_nic_are_what_ip_says() {
    let (pf, interface) = nic();
    done(&Step::Link {
        pf,
        interface: interface.clone(),
        up: true,
    });
    let before = observed();
    let facts = &before.pfs[&pf];
    assert_eq!((facts.count, facts.total), (0, 7));
    let port = facts.nic().unwrap();
    assert!(port.is_up && port.has_carrier, "{port:?}");
    assert_eq!(port.link, Some(Mbps(1000)));
    done(&Step::Autoprobe {
        pf,
        from: true,
        to: false,
    });
    done(&count(pf, 4, Some(&interface)));
    assert!(ip_vf(&interface, 3).is_some() && ip_vf(&interface, 4).is_none());
    // Another number is refused at once, not after ten seconds.
    let fault = try_step(&count(pf, 5, Some(&interface))).unwrap_err();
    assert!(!fault.is_busy, "{fault}");
    let vlan = Vlan {
        id: 101,
        qos: 3,
        proto: VlanProto::Dot1Q,
    };
    let mac = "02:4e:57:00:00:01".parse().unwrap();
    for to in [
        AttributeValue::Spoofchk(false),
        AttributeValue::Trust(true),
        AttributeValue::Mac(Some(mac)),
        AttributeValue::Vlan(vlan),
        AttributeValue::Rate {
            min: Mbps(0),
            max: Mbps(500),
        },
    ] {
        done(&attribute(1, to));
        // Once more is no change.
        done(&attribute(1, to));
    }
    let line = ip_vf(&interface, 1).unwrap();
    for word in [
        "02:4e:57:00:00:01",
        "vlan 101",
        "qos 3",
        "500",
        "spoof checking off",
        "trust on",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let other = ip_vf(&interface, 2).unwrap();
    assert!(
        other.contains("spoof checking on") && !other.contains("vlan"),
        "{other}"
    );
    // What the driver has no switch for says so, and nothing is tried again.
    let fault = try_step(&attribute(1, AttributeValue::State(LinkPolicy::Up))).unwrap_err();
    assert!(
        fault.evidence.contains("EOPNOTSUPP") && !fault.is_busy,
        "{fault}"
    );
    let fault = try_step(&attribute(
        1,
        AttributeValue::Rate {
            min: Mbps(0),
            max: Mbps(1001),
        },
    ));
    assert!(fault.unwrap_err().evidence.contains("EINVAL"));
    // A reset leaves what the PF holds it to.
    let vf = observed().pfs[&pf].vfs[1].bdf;
    let reset = Step::Reset {
        pf,
        index: 1,
        vf: Some(vf),
    };
    assert_eq!(done(&reset), Seen::Function(vf));
    assert_eq!(ip_vf(&interface, 1).unwrap(), line);
    // Gone, and back as they were.
    let snapshot: Vec<_> = observed().pfs[&pf]
        .vfs
        .iter()
        .map(|vf| vf.nic.unwrap())
        .collect();
    done(&destroy(pf, 4, Some(&interface)));
    assert!(ip_vf(&interface, 0).is_none());
    done(&Step::Create {
        pf,
        count: 4,
        snapshot,
        interface: Some(interface.clone()),
    });
    assert_eq!(ip_vf(&interface, 1).unwrap(), line);
    done(&destroy(pf, 4, Some(&interface)));
    done(&Step::Autoprobe {
        pf,
        from: false,
        to: true,
    });
    let after = observed();
    assert_eq!(after.pfs[&pf].vfs, []);
    assert_eq!(after.pfs[&pf].anchor, before.pfs[&pf].anchor);
}

#[test]
#[ignore = "needs a lab host"]
fn vf_is_given_to_a_driver_and_taken_back() {
    let (pf, interface) = nic();
    done(&Step::Autoprobe {
        pf,
        from: true,
        to: false,
    });
    done(&count(pf, 1, Some(&interface)));
    let vf = observed().pfs[&pf].vfs[0].bdf;
    for driver in ["vfio-pci", "igbvf"] {
        if !Path::new("/sys/bus/pci/drivers").join(driver).exists() {
            continue;
        }
        let driver = driver.to_owned();
        let (index, taken) = (0, driver.clone());
        done(&Step::Bind {
            pf,
            index,
            vf,
            driver,
        });
        assert_eq!(host::driver(&vf.to_string()), Some(taken.clone()));
        assert_eq!(host::driver_override(&vf.to_string()), "");
        done(&Step::Unbind {
            pf,
            index,
            vf,
            driver: taken,
        });
        assert_eq!(host::driver(&vf.to_string()), None);
    }
    done(&destroy(pf, 1, Some(&interface)));
}

/// The controller as its name and as the address of its function.
fn nvme() -> (Bdf, String) {
    let node = host::fact("NVME_CTRL");
    let name = node.trim_start_matches("/dev/").to_owned();
    (host::fact("NVME_PF").parse().unwrap(), name)
}

/// nvme-cli writes zero without `0x`.
fn hex(text: &str) -> Option<u16> {
    u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// What nvme-cli says of a secondary controller, by its words.
fn secondary(cntlid: u16) -> BTreeMap<String, u16> {
    let text = said(&["nvme", "list-secondary", &host::fact("NVME_CTRL")]);
    let entries = text.split("SCEntry").skip(1).map(|entry| {
        entry
            .lines()
            .filter_map(|line| {
                let (word, rest) = line.trim().split_once(' ')?;
                let number = rest.rsplit(": ").next()?.split_whitespace().next()?;
                Some((word.to_owned(), hex(number)?))
            })
            .collect::<BTreeMap<String, u16>>()
    });
    entries
        .into_iter()
        .find(|entry| entry.get("SCID") == Some(&cntlid))
        .unwrap_or_else(|| panic!("{cntlid}: {text}"))
}

/// What nvme-cli says who has a namespace.
fn attached(nsid: u32) -> Vec<u16> {
    let (nsid, node) = (nsid.to_string(), host::fact("NVME_CTRL"));
    said(&["nvme", "list-ctrl", &node, "-n", &nsid])
        .lines()
        .filter_map(|line| line.split_once("]:"))
        .map(|(_, id)| hex(id.trim()).unwrap())
        .collect()
}

fn attach(nsid: u32, cntlid: u16) -> Step {
    let (pf, controller) = nvme();
    Step::Attach {
        pf,
        controller,
        nsid,
        cntlid,
    }
}

fn detach(nsid: u32, cntlid: u16) -> Step {
    let (pf, controller) = nvme();
    Step::Detach {
        pf,
        controller,
        nsid,
        cntlid,
    }
}

fn assign(cntlid: u16, resource: ResourceKind, to: u16) -> Step {
    let (pf, controller) = nvme();
    Step::Assign {
        pf,
        controller,
        cntlid,
        resource,
        from: 0,
        to,
    }
}

#[test]
#[ignore = "needs a lab host"]
fn secondary_controllers_are_what_nvme_cli_says() {
    let (pf, controller) = nvme();
    done(&Step::Autoprobe {
        pf,
        from: true,
        to: false,
    });
    done(&count(pf, 4, None));
    let online = |cntlid| Step::Online {
        pf,
        controller: controller.clone(),
        cntlid,
    };
    let offline = |cntlid| Step::Offline {
        pf,
        controller: controller.clone(),
        cntlid,
        queues: 3,
        vectors: 2,
    };
    // Without resources it does not go.
    let fault = try_step(&online(1)).unwrap_err();
    assert!(fault.evidence.contains("status 1/20"), "{fault}");
    for index in 0..4 {
        let cntlid = index + 1;
        done(&assign(cntlid, ResourceKind::Vectors, 2));
        done(&assign(cntlid, ResourceKind::Queues, 3));
        done(&Step::Reset {
            pf,
            index: index.into(),
            vf: None,
        });
        done(&online(cntlid));
        let said = secondary(cntlid);
        assert_eq!((said["SCS"], said["VFN"]), (1, cntlid), "{said:?}");
        assert_eq!((said["NVQ"], said["NVI"]), (3, 2), "{said:?}");
    }
    let fault = try_step(&assign(1, ResourceKind::Queues, 2)).unwrap_err();
    assert!(fault.evidence.contains("status 1/20"), "{fault}");
    let fault = try_step(&online(99)).unwrap_err();
    assert!(
        fault.evidence.contains("no secondary controller"),
        "{fault}"
    );
    done(&attach(2, 1));
    done(&attach(2, 1));
    assert_eq!(attached(2), [1]);
    let facts = observed();
    let facts = facts.pfs[&pf].nvme().unwrap();
    assert_eq!(facts.serial, "lab-sriov");
    assert_eq!(facts.namespaces[&2].attached, [1].into());
    assert!(facts.secondaries.iter().filter(|one| one.is_online).count() == 4);
    assert!(facts.can.attach && facts.can.format && !facts.can.manage);
    done(&detach(2, 1));
    assert_eq!(attached(2), Vec::<u16>::new());
    for cntlid in 1..=4 {
        done(&offline(cntlid));
        assert_eq!(secondary(cntlid)["SCS"], 0);
    }
    done(&destroy(pf, 4, None));
}

/// The host's block device of a namespace.
fn device(nsid: u32) -> Option<std::path::PathBuf> {
    let (pf, _) = nvme();
    let name = observed().pfs[&pf].nvme().unwrap().namespaces[&nsid]
        .block_device
        .clone()?;
    Some(Path::new("/dev").join(name))
}

#[test]
#[ignore = "needs a lab host"]
fn erased_namespace_has_nothing_left_of_its_guest() {
    let (pf, controller) = nvme();
    for how in [EraseHow::Overwrite, EraseHow::Format, EraseHow::Crypto] {
        done(&attach(2, 0));
        let path = device(2).unwrap();
        let secret = vec![0x5a_u8; 1 << 20];
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for at in [0, 5 << 20, 15 << 20] {
            file.write_all_at(&secret, at).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        done(&detach(2, 0));
        assert_eq!(device(2), None);
        let erase = Step::Erase {
            pf,
            controller: controller.clone(),
            nsid: 2,
            how,
            block: 512,
        };
        let mut last = None;
        let result = hands().carry_out(&erase, &mut |percent| last = Some(percent));
        assert_eq!(result, Ok(Seen::AsAsked), "{how:?}");
        assert_eq!(last, Some(Percent(100)));
        // It is nobody's again.
        assert_eq!(attached(2), Vec::<u16>::new());
        done(&attach(2, 0));
        let bytes = fs::read(device(2).unwrap()).unwrap();
        assert_eq!(bytes.len(), 16 << 20);
        assert!(bytes.iter().all(|byte| *byte == 0), "{how:?}");
        done(&detach(2, 0));
    }
}

#[test]
#[ignore = "needs a lab host"]
fn namespace_that_the_host_holds_is_neither_erased_nor_detached() {
    let (pf, controller) = nvme();
    done(&attach(3, 0));
    let holder = File::options()
        .read(true)
        .custom_flags(0o200) // O_EXCL: as a mount does
        .open(device(3).unwrap())
        .unwrap();
    let erase = Step::Erase {
        pf,
        controller: controller.clone(),
        nsid: 3,
        how: EraseHow::Format,
        block: 512,
    };
    for step in [&erase, &detach(3, 0)] {
        let fault = try_step(step).unwrap_err();
        assert!(fault.evidence.contains("EBUSY"), "{fault}");
    }
    assert_eq!(attached(3), [0]);
    drop(holder);
    // Nor one that a secondary controller has.
    done(&attach(3, 1));
    let fault = try_step(&erase).unwrap_err();
    assert!(
        fault.evidence.contains("attached to controllers"),
        "{fault}"
    );
    done(&detach(3, 1));
    done(&detach(3, 0));
}
