//! Who gets a VF, who does not, and what is kept.

use std::process::{Command, Stdio};

use super::{applied, document, expect, host_file, narrows, oracle, write};
use crate::guest::GuestFile;

/// The state, the guest and the address of each VF of a pool.
fn pool(name: &str) -> Vec<(String, String, String)> {
    let list = document(0, &["vf", "ls", "--pool", name, "--json"]);
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or("").to_owned();
    let rows = list["vfs"].as_array().unwrap();
    rows.iter()
        .map(|row| (text(row, "state"), text(row, "guest"), text(row, "bdf")))
        .collect()
}

#[test]
#[ignore = "needs a lab host"]
fn two_runs_that_want_the_last_vf_are_told_apart() {
    applied();
    // One VF is left in the pool.
    let text = host_file().replace(
        "kind = \"nic\"\nmac = {",
        "kind = \"nic\"\nreserve = 3\nmac = {",
    );
    let file = write(&text);
    expect(0, &["host", "apply", file]);
    let files = ["one", "two"].map(|name| {
        let words = if name == "one" { "sleep:8" } else { "sleep:9" };
        GuestFile::small(name, words).pool("tenant-a").write()
    });
    let runs = files.map(|file| {
        Command::new("narrows")
            .args(["run", &file])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let ended = runs.map(|run| run.wait_with_output().unwrap());
    let codes = [&ended[0], &ended[1]].map(|one| one.status.code());
    let said = ended.map(|one| String::from_utf8_lossy(&one.stderr).into_owned());
    let refused = match codes {
        [Some(0), Some(3)] => &said[1],
        [Some(3), Some(0)] => &said[0],
        _ => panic!("{codes:?}\n{}\n{}", said[0], said[1]),
    };
    let winner = if codes[0] == Some(0) { "one" } else { "two" };
    // Before it has chosen, or when it takes what it has chosen.
    let is_told = ["pool-exhausted", "device-in-use"];
    assert!(
        is_told
            .iter()
            .any(|id| refused.contains(&format!("error[{id}]"))),
        "{refused}"
    );
    assert!(
        refused.contains(winner),
        "it is not told who has it: {refused}"
    );
    assert!(pool("tenant-a").iter().all(|(state, ..)| state == "clean"));
}

#[test]
#[ignore = "needs a lab host"]
fn guest_sees_its_vf_in_use_and_gets_the_kept_one_again() {
    applied();
    let file = GuestFile::small("keeper", "sleep:600").pool_with("tenant-a", "keep = true");
    let mut guest = file.start();
    guest.wait_for("GUEST init=yes");
    let rows = pool("tenant-a");
    let (_, _, bdf) = rows
        .iter()
        .find(|(state, ..)| state == "in-use")
        .unwrap()
        .clone();
    let link = (0..4)
        .map(oracle::link)
        .find(|link| link.contains("vlan 101"));
    assert!(link.is_some(), "no VF has the VLAN of its pool");
    let ps = document(0, &["ps", "--json"]);
    assert_eq!(ps["guests"][0]["name"], "keeper", "{ps}");
    assert_eq!(ps["guests"][0]["state"], "running", "{ps}");
    assert_eq!(ps["guests"][0]["vfs"][0], bdf, "{ps}");
    // A change of the count would take it away, so it is refused, and the guest is named.
    let fewer = host_file()
        .replace("vfs = 7", "vfs = 5")
        .replace("4-6", "4");
    let said = expect(3, &["host", "plan", write(&fewer)]);
    assert!(
        said.err.contains("error[vf-in-use]") && said.err.contains("keeper"),
        "{}",
        said.err
    );
    guest.signal("TERM");
    guest.end();
    let row = pool("tenant-a")
        .into_iter()
        .find(|row| row.2 == bdf)
        .unwrap();
    assert_eq!((row.0.as_str(), row.1.as_str()), ("leased", "keeper"));
    // Nobody else gets it, by pool or by address.
    let other = GuestFile::small("other", "").device(&bdf).refused(3);
    assert!(other.contains("error[lease-foreign]"), "{other}");
    let ps = document(0, &["ps", "--json"]);
    assert_eq!(ps["kept"][0]["name"], "keeper", "{ps}");
    let mut again = file.start();
    again.wait_for("GUEST init=yes");
    assert!(pool("tenant-a").contains(&("in-use".to_owned(), "keeper".to_owned(), bdf.clone())));
    again.signal("TERM");
    again.end();
    expect(0, &["vf", "return", "--guest", "keeper"]);
    let row = pool("tenant-a")
        .into_iter()
        .find(|row| row.2 == bdf)
        .unwrap();
    assert_eq!((row.0.as_str(), row.1.as_str()), ("clean", ""));
}

#[test]
#[ignore = "needs a lab host"]
fn vf_that_a_guest_names_by_address_is_leased_on_its_pools_terms() {
    applied();
    let bdf = super::vf("NIC_PF", 1);
    let mut guest = GuestFile::small("named", "sleep:600").device(&bdf).start();
    guest.wait_for("GUEST init=yes");
    assert!(oracle::link(1).contains("vlan 101"), "{}", oracle::link(1));
    let why = narrows(&["vf", "why", &bdf]);
    assert!(
        why.out.contains("in use") && why.out.contains("named"),
        "{}",
        why.out
    );
    guest.signal("TERM");
    guest.end();
    assert!(!oracle::link(1).contains("vlan"), "{}", oracle::link(1));
}
