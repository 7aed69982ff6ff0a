//! Templates, filled in.

use super::*;
use crate::{
    plan,
    record::{Guest, Pages},
};

/// Two functions that no machine has.
pub(in crate::vmm) const FUNCTIONS: [&str; 2] = ["0000:f1:10.0", "0000:f2:00.1"];

/// A guest with these functions.
pub(in crate::vmm) fn setup(functions: &[String]) -> Setup<'_> {
    Setup {
        interface: Interface::Iommufd,
        guest: Guest {
            vcpus: 1,
            memory_mib: 256,
            pages: Pages::Default,
            nics: 1,
            nvmes: 1,
            console: true,
        },
        kernel: Path::new("/lab/guest/vmlinux-lab"),
        initramfs: Some(Path::new("/lab/guest/bench")),
        cmdline: "console=ttyS0 bench.do=idle:1",
        functions,
        scratch: Path::new("/tmp/run"),
    }
}

fn arguments(name: &str, change: impl FnOnce(&mut Setup<'_>)) -> String {
    let functions = FUNCTIONS.map(str::to_owned);
    let mut setup = setup(&functions);
    change(&mut setup);
    let peer = Peer::load(name, None).unwrap();
    peer.arguments(&setup).join(" ")
}

#[test]
fn every_template_fills_in_completely() {
    for (name, _) in TEMPLATES {
        let peer = Peer::load(name, None).unwrap();
        let functions = FUNCTIONS.map(str::to_owned);
        let mut setup = setup(&functions);
        for interface in [Interface::Iommufd, Interface::Type1] {
            setup.interface = interface;
            if !peer
                .template
                .devices
                .contains_key(words::interface_key(interface))
            {
                continue;
            }
            let mut text = peer.arguments(&setup).join(" ");
            text.push_str(&peer.config(&setup).unwrap_or_default());
            assert!(
                text.contains("console=ttyS0 bench.do=idle:1"),
                "{name}: {text}"
            );
            assert!(
                text.contains("256") || text.contains("268435456"),
                "{name}: {text}"
            );
            assert!(
                !text.contains("{kernel}") && !text.contains("[devices]"),
                "{name}: {text}"
            );
            let mut placeholders = words::values(&setup, "");
            placeholders.extend(words::device_values("", 0));
            for placeholder in placeholders.keys() {
                assert!(!text.contains(placeholder), "{name}: {text}");
            }
        }
    }
}

#[test]
fn every_template_has_an_interface_and_a_name_for_ram_or_says_that_it_has_none() {
    for (name, text) in TEMPLATES {
        let peer = Peer::load(name, None).unwrap();
        assert!(!peer.template.devices.is_empty(), "{name}");
        assert!(
            !peer.template.ram.is_empty() || text.contains("no name"),
            "{name}"
        );
        assert!(peer.template.pages.contains_key("default"), "{name}");
    }
}

#[test]
fn qemu_gets_its_devices_by_the_interface_that_is_wanted() {
    let text = arguments("qemu", |_| {});
    assert!(text.contains("-object iommufd,id=io0 "), "{text}");
    assert!(
        text.contains("-device vfio-pci,host=0000:f2:00.1,iommufd=io0"),
        "{text}"
    );
    let text = arguments("qemu", |setup| setup.interface = Interface::Type1);
    assert!(!text.contains("iommufd"), "{text}");
    assert!(
        text.contains("-device vfio-pci,host=0000:f1:10.0 "),
        "{text}"
    );
}

#[test]
fn guest_without_devices_gets_no_word_of_them() {
    let text = arguments("qemu", |setup| setup.functions = &[]);
    assert!(
        !text.contains("iommufd") && !text.contains("vfio"),
        "{text}"
    );
}

#[test]
fn qemu_is_hardened_by_its_own_sandbox() {
    assert!(!arguments("qemu", |_| {}).contains("-sandbox"));
    let qemu = Peer::load("qemu", None).unwrap();
    let hardened = qemu.hardened().expect("it has a sandbox");
    assert_eq!(hardened.name(), "qemu-hardened");
    assert!(hardened.hardened().is_none());
    let functions = FUNCTIONS.map(str::to_owned);
    let command = hardened.command(&setup(&functions));
    let words: Vec<_> = command.get_args().collect();
    let [.., option, value] = &words[..] else {
        panic!("{words:?}");
    };
    assert_eq!(*option, "-sandbox");
    assert!(value.to_string_lossy().starts_with("on,obsolete=deny,"));
    let alioth = Peer::load("alioth", None).unwrap();
    assert!(alioth.hardened().is_none());
}

#[test]
fn large_pages_and_no_console_change_the_words() {
    let text = arguments("qemu", |setup| {
        setup.guest.pages = Pages::TwoMib;
        setup.guest.console = false;
        setup.initramfs = None;
    });
    assert!(text.contains("hugetlb=on,hugetlbsize=2M"), "{text}");
    assert!(
        text.contains("-serial none") && !text.contains("stdio"),
        "{text}"
    );
    assert!(!text.contains("-initrd"), "{text}");
}

#[test]
fn what_a_template_lacks_is_left_out() {
    let lacks = |name, guest| {
        let peer = Peer::load(name, None).unwrap();
        peer.lacks(Interface::Iommufd, &guest)
    };
    let crosvm = lacks("crosvm", plan::NIC);
    assert_eq!(crosvm.as_deref(), Some("crosvm has no iommufd"));
    assert_eq!(lacks("crosvm", plan::guest(0, 0)), None);
    let huge = Guest {
        pages: Pages::TwoMib,
        ..plan::NIC
    };
    let alioth = lacks("alioth", huge);
    assert_eq!(alioth.as_deref(), Some("alioth has no 2m pages"));
    let unknown = Peer::load("bhyve", None).unwrap_err();
    assert!(
        unknown.to_string().contains("there are: qemu, "),
        "{unknown}"
    );
}

#[test]
fn a_peer_takes_part_in_the_cases_without_the_devices_that_it_lacks() {
    let alioth = Peer::load("alioth", None).unwrap();
    for interface in plan::INTERFACES {
        assert_eq!(alioth.lacks(interface, &plan::NIC), None);
        for guest in [plan::NVME, plan::guest(1, 1)] {
            let why = alioth.lacks(interface, &guest).expect("it is left out");
            assert!(why.contains("NVMe controller: it panics"), "{why}");
        }
    }
    let qemu = Peer::load("qemu", None).unwrap();
    assert_eq!(qemu.lacks(Interface::Type1, &plan::guest(1, 1)), None);
}

#[test]
fn an_unknown_name_is_refused() {
    let unknown = Peer::load("bhyve", None).unwrap_err();
    assert!(
        unknown.to_string().contains("there are: qemu, "),
        "{unknown}"
    );
}

#[test]
fn ram_of_qemu_is_told_by_its_name() {
    let qemu = Peer::load("qemu", None).unwrap();
    assert!(qemu.is_ram("/memfd:memory-backend-memfd (deleted)"));
    assert!(!qemu.is_ram("[heap]"));
}
