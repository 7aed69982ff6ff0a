//! What `doctor` and `inventory` say of a host that is real as far as the kernel can tell.

use std::{fs, process::Command};

use serde_json::Value;

use crate::host;

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
