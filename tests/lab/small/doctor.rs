//! What `doctor` and `inventory` say of a host that is real as far as the kernel can tell.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{guest::GuestFile, host};

/// Runs `narrows` with these arguments and `--json`; gives its exit status and its document.
fn ask(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new("narrows")
        .args(arguments)
        .arg("--json")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let document = serde_json::from_str(&text);
    let document = document.unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code(), document)
}

/// The ids of the checks that refuse, of a list of findings.
fn refusals(findings: &Value) -> Vec<&str> {
    let findings = findings.as_array().unwrap();
    findings
        .iter()
        .filter(|finding| finding["verdict"] == "refuse")
        .map(|finding| finding["id"].as_str().unwrap())
        .collect()
}

#[test]
#[ignore = "needs a lab host"]
fn free_vfs_of_a_nic_and_a_drive_can_be_assigned() {
    let vfs = [host::nic(0), host::nvme(0)];
    let (status, document) = ask(&["doctor", &vfs[0], &vfs[1]]);
    assert_eq!(refusals(&document["host"]), Vec::<&str>::new());
    for (device, vf) in document["devices"].as_array().unwrap().iter().zip(&vfs) {
        assert_eq!(device["bdf"], vf.as_str());
        assert_eq!(refusals(&device["findings"]), Vec::<&str>::new(), "{vf}");
        assert!(device["findings"].as_array().unwrap().len() > 20, "{vf}");
    }
    assert_eq!(status, Some(0), "{}", document["summary"]);
}

#[test]
#[ignore = "needs a lab host"]
fn device_that_cannot_be_reset_is_refused_by_name() {
    let edu = host::fact("EDU");
    let (status, document) = ask(&["doctor", &edu]);
    assert_eq!(status, Some(3), "{}", document["summary"]);
    let refusals = refusals(&document["devices"][0]["findings"]);
    assert!(refusals.contains(&"device-no-reset"), "{refusals:?}");
    let summary = document["summary"].as_str().unwrap();
    assert!(
        summary.contains(&edu) && summary.contains("device-no-reset"),
        "{summary}"
    );
}

#[test]
#[ignore = "needs a lab host"]
fn inventory_has_every_function_with_its_pf_and_group() {
    let (status, document) = ask(&["inventory"]);
    assert_eq!(status, Some(0));
    let functions = document["functions"].as_array().unwrap();
    let mut listed: Vec<&str> = functions
        .iter()
        .map(|function| function["bdf"].as_str().unwrap())
        .collect();
    listed.sort_unstable();
    let mut there: Vec<String> = fs::read_dir("/sys/bus/pci/devices")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort_unstable();
    assert_eq!(listed, there);
    for (vf, pf) in [(host::nic(0), "NIC_PF"), (host::nvme(0), "NVME_PF")] {
        let function = functions.iter().find(|f| f["bdf"] == vf.as_str()).unwrap();
        assert_eq!(function["kind"], "vf");
        assert_eq!(function["physfn"], host::fact(pf).as_str());
        assert_eq!(function["groupSize"], 1);
        assert_eq!(function["interrupts"]["kind"], "msix");
    }
}

/// The finding of a check for one function.
fn finding(bdf: &str, id: &str) -> Value {
    let (_, document) = ask(&["doctor", bdf]);
    let findings = document["devices"][0]["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == id);
    found
        .unwrap_or_else(|| panic!("{id}: {findings:?}"))
        .clone()
}

/// `lab-vfs` sets the address; the spoof check is on and trust is off because igb begins so.
#[test]
#[ignore = "needs a lab host"]
fn what_the_nic_enforces_on_each_vf_is_read_from_the_kernel() {
    let (_, document) = ask(&["inventory"]);
    let functions = document["functions"].as_array().unwrap();
    for index in 0..2_usize {
        let bdf = host::nic(index);
        let vf = functions.iter().find(|f| f["bdf"] == bdf.as_str()).unwrap();
        let [policy] = &vf["policies"].as_array().unwrap()[..] else {
            panic!("{}", vf["policies"]);
        };
        assert_eq!(policy["interface"], host::fact("NIC_IF").as_str());
        assert_eq!(policy["unknown"], Value::Null);
        assert_eq!(policy["index"], index);
        assert_eq!(policy["mac"], format!("52:54:00:00:01:0{index}"));
        assert_eq!(policy["spoofCheck"], true);
        assert_eq!(policy["trusted"], false);
        assert_eq!(policy["link"], "auto");
        for id in ["nic-vf-trusted", "nic-vf-spoof-check", "nic-vf-mac"] {
            assert_eq!(finding(&bdf, id)["verdict"], "pass", "{id}");
        }
    }
    let drive = host::nvme(0);
    let vf = functions.iter().find(|f| f["bdf"] == drive.as_str());
    assert_eq!(vf.unwrap()["policies"], Value::Array(Vec::new()));
    assert_eq!(
        finding(&drive, "nic-vf-trusted")["value"],
        "no network device"
    );
}

/// A setting of the first NIC VF that is wrong until this is dropped.
struct Setting {
    good: &'static str,
}

impl Setting {
    fn new(bad: &str, good: &'static str) -> Self {
        set(bad);
        Self { good }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        set(self.good);
    }
}

/// As an operator does it; not by the shell, whose own `ip` knows nothing of VFs.
fn set(words: &str) {
    let status = Command::new("ip")
        .args(["link", "set", &host::fact("NIC_IF"), "vf", "0"])
        .args(words.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "{words}: {status}");
}

#[test]
#[ignore = "needs a lab host"]
fn nic_that_lets_its_vf_trick_others_is_refused_by_name_and_the_fix_works() {
    let (vf, other) = (host::nic(0), host::nic(1));
    let interface = host::fact("NIC_IF");
    for (id, bad, good) in [
        ("nic-vf-trusted", "trust on", "trust off"),
        ("nic-vf-spoof-check", "spoofchk off", "spoofchk on"),
    ] {
        let setting = Setting::new(bad, good);
        let found = finding(&vf, id);
        assert_eq!(found["verdict"], "refuse", "{found}");
        assert_eq!(found["fix"], format!("ip link set {interface} vf 0 {good}"));
        assert_eq!(finding(&other, id)["verdict"], "pass", "the other VF");

        let text = GuestFile::small("nic-policy", "lspci")
            .device(&vf)
            .refused(3);
        assert!(text.contains(&format!("error[{id}]")), "{text}");
        assert!(text.contains(&vf), "{text}");
        assert_eq!(host::driver(&vf), None);

        let accepted = GuestFile::small("nic-policy", "lspci")
            .device_with(&vf, &format!("accept = [\"{id}\"]"))
            .run();
        assert!(
            accepted.text().contains(&format!("warning[{id}]")),
            "{}",
            accepted.text()
        );
        host::assert_returned(&vf);
        drop(setting);
        assert_eq!(finding(&vf, id)["verdict"], "pass", "after the fix");
    }
}
