//! SIGKILL at each step of an apply, of a lease, and of its return; then `narrows recover`, and the host is as it was before
//! or as the file says. On a host as `vf` wants it, whose programs have crash points.

use std::process::Command;

use crate::{
    attack::Attacker,
    guest::GuestFile,
    host,
    vf::{
        applied, bare, document, expect, host_file,
        hostile::{self, Kind},
        oracle, write,
    },
};

/// The points of a return.
const RETURN: [&str; 4] = ["dirty", "rested", "sanitising", "erased"];

/// The crash points of these kinds.
fn steps(kinds: &[&str]) -> Vec<(String, String)> {
    let said = expect(0, &["crash-steps"]);
    let steps = said.out.lines().filter_map(|line| line.split_once(' '));
    steps
        .filter(|(_, how)| kinds.contains(how))
        .map(|(name, how)| (name.to_owned(), how.to_owned()))
        .collect()
}

/// The host file with addresses that are the same whatever the seed is.
fn without_generated() -> String {
    host_file().replace(
        "name = \"open\"\nkind = \"nic\"\n",
        "name = \"open\"\nkind = \"nic\"\nmac = { first = \"02:4e:58:00:00:00\", last = \"02:4e:58:00:00:ff\" }\n",
    )
}

/// Has what was left put right, and sees that nothing is left to be.
fn recover(case: &str) {
    let said = expect(0, &["recover"]);
    assert!(
        said.err.is_empty() || !said.err.contains("error["),
        "{case}: {}",
        said.err
    );
    let again = expect(0, &["recover"]);
    assert_eq!(
        again.out.trim(),
        "nothing to recover",
        "{case}: {}",
        said.out
    );
}

#[test]
#[ignore = "needs a lab host"]
fn host_is_as_before_or_as_declared_whichever_step_an_apply_is_killed_at() {
    bare();
    let before = oracle::dump();
    let file = write(&without_generated());
    expect(0, &["host", "apply", file]);
    let declared = oracle::dump();
    bare();
    let file = write(&without_generated());
    let mut walked = 0;
    for (name, how) in steps(&["host", "host-each"]) {
        // Of the steps of the apply: the first, one of a NIC's attributes, one of a controller, the last but one.
        let times: &[u32] = if how == "host" { &[1] } else { &[1, 9, 34, 44] };
        for number in times {
            let at = format!("{name}:{number}");
            let output = Command::new("narrows")
                .args(["host", "apply", file])
                .env("NARROWS_CRASH_AT", &at)
                .output()
                .unwrap();
            assert!(
                output.status.code().is_none(),
                "{at} was not reached: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            recover(&at);
            let now = oracle::dump();
            assert!(
                now == before || now == declared,
                "{at}:\n{now}\nbefore:\n{before}"
            );
            expect(0, &["host", "apply", file]);
            assert_eq!(oracle::dump(), declared, "{at}: the next apply");
            expect(0, &["host", "release"]);
            assert_eq!(oracle::dump(), before, "{at}: the release");
            walked += 1;
        }
    }
    assert!(walked >= 10, "only {walked} steps were walked");
}

#[test]
#[ignore = "needs a lab host"]
fn every_vf_is_clean_again_whichever_step_of_a_lease_the_keeper_is_killed_at() {
    applied();
    let rest = oracle::dump();
    let mut walked = 0;
    for (name, _) in steps(&["lease"]) {
        let at = format!("{name}:1");
        let guest = GuestFile::small("crash", "")
            .pool("tenant-a")
            .pool("disk-a")
            .env("NARROWS_CRASH_AT", &at)
            .start();
        let (status, transcript) = guest.end();
        assert_eq!(
            status.code(),
            Some(1),
            "{at} was not reached: {}",
            transcript.text()
        );
        recover(&at);
        assert_eq!(oracle::dump(), rest, "{at}");
        for row in document(0, &["vf", "ls", "--json"])["vfs"]
            .as_array()
            .unwrap()
        {
            assert_eq!(row["state"], "clean", "{at}: {row}");
        }
        walked += 1;
    }
    assert!(walked >= 8, "only {walked} steps were walked");
    GuestFile::small("next", "")
        .pool("tenant-a")
        .pool("disk-a")
        .run();
    assert_eq!(oracle::dump(), rest);
    // Counters of pinned pages are added up lazily; each guest had 16384.
    assert!(host::pinned_pages() < 1000, "{}", host::pinned_pages());
}

/// The same where the guest has spoiled both of its VFs before.
#[test]
#[ignore = "needs a lab host"]
fn spoiled_vfs_are_clean_again_whichever_step_of_their_return_the_keeper_is_killed_at() {
    applied();
    let rest = oracle::dump();
    let known = steps(&["lease"]);
    for (number, name) in RETURN.into_iter().enumerate() {
        assert!(known.iter().any(|(is, _)| is == name), "no point {name}");
        let at = format!("{name}:1");
        let file = hostile::file("spoiler")
            .pool("tenant-a")
            .pool("disk-a")
            .env("NARROWS_CRASH_AT", &at);
        let mut guest = Attacker::start(&file);
        hostile::spoil(&mut guest, 1, Kind::Nic, number);
        hostile::spoil(&mut guest, 2, Kind::Nvme(2), number);
        if number.is_multiple_of(4) {
            guest.guest.signal("TERM");
        } else {
            guest.begin("off");
        }
        let (status, transcript) = guest.guest.end();
        assert_eq!(
            status.code(),
            Some(1),
            "{at} was not reached: {}",
            transcript.text()
        );
        recover(&at);
        assert_eq!(oracle::dump(), rest, "{at}");
        for row in document(0, &["vf", "ls", "--json"])["vfs"]
            .as_array()
            .unwrap()
        {
            assert_eq!(row["state"], "clean", "{at}: {row}");
        }
        assert!(oracle::is_zero(2), "{at}: its data is there");
        assert_eq!(oracle::dump(), rest, "{at}: after the look at namespace 2");
    }
}
