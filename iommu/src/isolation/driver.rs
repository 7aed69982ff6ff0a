//! Checks of the driver that answers the VF's mailbox: versions that are known to be bad.
//!
//! The mailbox is the one door from a guest to the host's kernel that no IOMMU guards. The table knows the versions of
//! kernel.org alone. A distribution that has ported a fix keeps its older number: there the operator accepts this check
//! by name, after a look at the distribution's own list.

use super::{
    Check, CheckId, Verdict,
    row::{Case, Find, Found, NOT_READ, Row, attribute, evidence},
};
use crate::error::Blame;

pub(super) const ROWS: &[Row] = &[Row {
    check: Check {
        id: CheckId::PfDriverKnownBad,
        worst: Verdict::Refuse,
        title: "the PF's driver has no known hole that a VF can reach",
        why: "the guest could attack the host's kernel through the mailbox between VF and PF",
        remedy: "update the host's kernel",
        sources: &[
            "CVE-2022-48949 (igb)",
            "CVE-2025-39968, -39969, -39970, -39971, -39972, -39973 (i40e)",
            "the records of the kernel's CNA, which name the fixed versions",
        ],
        accepted: Some(
            "the guest may attack the host's kernel, unless the distribution has ported the fix",
        ),
        blame: Blame::Host,
    },
    find: Find::Function(pf_driver_known_bad),
}];

/// Major, minor, patch.
type Version = (u32, u32, u32);

/// A hole in a PF's driver that its VFs can reach.
struct KnownBad {
    driver: &'static str,
    cve: &'static str,
    what: &'static str,
    /// The first bad version of each branch that got the fault as an update, ascending; last that of all others.
    since: &'static [Version],
    /// The first good version of each maintained branch, ascending; last that of the main line.
    fixed: &'static [Version],
}

/// Fixes of i40e that were released together.
const I40E_FIXED: &[Version] = &[
    (5, 4, 300),
    (5, 10, 245),
    (5, 15, 194),
    (6, 1, 155),
    (6, 6, 109),
    (6, 12, 50),
    (6, 16, 10),
    (6, 17, 0),
];

// Source: the CVE records of the kernel's CNA.
const KNOWN_BAD: &[KnownBad] = &[
    KnownBad {
        driver: "igb",
        cve: "CVE-2022-48949",
        what: "the answer to a VF's reset holds bytes of the kernel's stack",
        since: &[(4, 0, 0)],
        fixed: &[
            (4, 14, 303),
            (4, 19, 270),
            (5, 4, 229),
            (5, 10, 161),
            (5, 15, 85),
            (6, 0, 15),
            (6, 1, 1),
            (6, 2, 0),
        ],
    },
    i40e(
        "CVE-2025-39968",
        "a VF may ask for any number of filters",
        &[(4, 17, 0)],
    ),
    i40e(
        "CVE-2025-39969",
        "a VF in the wrong state gets resources",
        &[(5, 4, 165), (5, 10, 85), (5, 15, 8), (5, 16, 0)],
    ),
    i40e(
        "CVE-2025-39970",
        "an index of a VF's filter is off by one",
        &[(4, 17, 0)],
    ),
    i40e(
        "CVE-2025-39971",
        "a VF's index of queues is not checked",
        &[(4, 17, 0)],
    ),
    i40e(
        "CVE-2025-39972",
        "a VF's map of queues is not checked",
        &[(4, 17, 0)],
    ),
    i40e(
        "CVE-2025-39973",
        "a VF's length of a ring is not checked",
        &[(3, 12, 0)],
    ),
];

const fn i40e(cve: &'static str, what: &'static str, since: &'static [Version]) -> KnownBad {
    KnownBad {
        driver: "i40e",
        cve,
        what,
        since,
        fixed: I40E_FIXED,
    }
}

impl KnownBad {
    fn has(&self, kernel: Version) -> bool {
        let has_begun = of_branch(self.since, kernel).is_some_and(|first| kernel >= first);
        // A branch between those that were fixed, or that ended before, never got the fix.
        let is_fixed = of_branch(self.fixed, kernel).is_some_and(|good| kernel >= good);
        has_begun && !is_fixed
    }
}

/// The entry of the kernel's own branch, or else the last.
fn of_branch(versions: &[Version], kernel: Version) -> Option<Version> {
    let is_branch = |version: &&Version| (version.0, version.1) == (kernel.0, kernel.1);
    versions.iter().find(is_branch).or(versions.last()).copied()
}

fn pf_driver_known_bad(case: &Case<'_>) -> Found {
    const RELEASE: &str = "/proc/sys/kernel/osrelease";
    let Some(pf) = case.function.physfn else {
        return Found::pass("no VF").saw(attribute(case.function.bdf, "physfn"), "does not exist");
    };
    let link = attribute(pf, "driver");
    let Some(driver) = case.pf().and_then(|pf| pf.driver.as_deref()) else {
        return Found::pass("no driver").saw(link, "does not exist");
    };
    let mut rows = KNOWN_BAD
        .iter()
        .filter(|row| row.driver == driver)
        .peekable();
    if rows.peek().is_none() {
        return Found::pass(driver).saw(link, format!("{driver}, of which nothing is known"));
    }
    let release = case.topology.host.kernel.as_deref();
    let Some(kernel) = release.and_then(version) else {
        return Found::refuse(NOT_READ, "mount /proc")
            .saw(RELEASE, release.unwrap_or("cannot be read"));
    };
    let found: Vec<&KnownBad> = rows.filter(|row| row.has(kernel)).collect();
    let said = release.unwrap_or_default();
    if let Some(worst) = found
        .iter()
        .filter_map(|row| of_branch(row.fixed, kernel))
        .max()
    {
        let fix = format!(
            "update the host's kernel to {}.{}.{} or later; accept it where the distribution has ported the fix",
            worst.0, worst.1, worst.2
        );
        return Found::refuse(format!("{driver} of {said}"), fix)
            .saw(RELEASE, said)
            .saw_all(
                found
                    .iter()
                    .map(|row| evidence(&link, format!("{driver}, {}: {}", row.cve, row.what))),
            );
    }
    // The kernel's own drivers state no version, or one that ends with -k.
    let stated = case.pf().and_then(|pf| pf.driver_version.as_deref());
    match stated.filter(|version| !version.ends_with("-k")) {
        None => Found::pass(format!("{driver} of {said}")).saw(RELEASE, said),
        Some(version) => Found::warn(
            format!("{driver} {version}"),
            "use the kernel's own driver, or see the maker's list of fixes",
        )
        .saw(
            format!("/sys/module/{driver}/version"),
            format!("{version}: not the kernel's own, so the kernel's version says nothing of it"),
        ),
    }
}

/// The numbers at the front of a release: `6.12.95+deb13-amd64` is 6.12.95, `6.17-rc1` is 6.17.0.
pub(super) fn version(release: &str) -> Option<Version> {
    let numbers = release
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    let mut parts = numbers.split('.').filter(|part| !part.is_empty());
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let patch = parts.next().map_or(Some(0), |patch| patch.parse().ok())?;
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(driver: &str, release: &str) -> Vec<&'static str> {
        let kernel = version(release).unwrap();
        KNOWN_BAD
            .iter()
            .filter(|row| row.driver == driver && row.has(kernel))
            .map(|row| row.cve)
            .collect()
    }

    #[test]
    fn releases_are_read_as_numbers() {
        let table = [
            ("6.12.95+deb13-amd64", Some((6, 12, 95))),
            ("6.8.0-90-generic", Some((6, 8, 0))),
            ("5.14.0-570.el9.x86_64", Some((5, 14, 0))),
            ("6.17-rc1", Some((6, 17, 0))),
            ("6.17", Some((6, 17, 0))),
            ("6", None),
            ("", None),
            ("linux", None),
            ("99999999999.1.1", None),
        ];
        for (release, wanted) in table {
            assert_eq!(version(release), wanted, "{release}");
        }
    }

    #[test]
    fn a_branch_is_bad_until_its_own_fix() {
        assert_eq!(bad("i40e", "6.12.49").len(), 6);
        assert_eq!(bad("i40e", "6.12.50").len(), 0);
        assert_eq!(bad("i40e", "6.16.9").len(), 6);
        assert_eq!(bad("i40e", "6.17.0").len(), 0);
        assert_eq!(bad("i40e", "7.2.1").len(), 0);
        assert_eq!(
            bad("i40e", "6.13.12").len(),
            6,
            "a branch that ended before the fix"
        );
        assert_eq!(bad("igb", "6.1.0"), ["CVE-2022-48949"]);
        assert_eq!(bad("igb", "6.1.1").len(), 0);
        assert_eq!(bad("igb", "6.12.1").len(), 0);
        assert_eq!(bad("mlx5_core", "4.19.1").len(), 0);
    }

    #[test]
    fn a_kernel_before_the_fault_is_not_bad() {
        assert!(!bad("i40e", "5.15.7").contains(&"CVE-2025-39969"));
        assert!(bad("i40e", "5.15.8").contains(&"CVE-2025-39969"));
        assert_eq!(bad("i40e", "4.14.300"), ["CVE-2025-39973"]);
        assert!(bad("i40e", "3.10.0").is_empty());
    }
}
