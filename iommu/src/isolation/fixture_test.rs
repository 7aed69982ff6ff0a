//! A host that every check passes, to be changed.

use crate::{
    bdf::Bdf,
    fake::FakeHost,
    isolation::{CheckId, Finding, judge_function, judge_host},
    topology::Topology,
};

pub(super) const PORT: &str = "0000:00:02.0";
pub(super) const PF: &str = "0000:01:00.0";
pub(super) const VF: &str = "0000:01:10.0";

/// A change of a host in the making.
pub(super) type Change = fn(FakeHost) -> FakeHost;

pub(super) fn same(host: FakeHost) -> FakeHost {
    host
}

/// A host with a free VF, where every check passes unless one of its parts is changed.
pub(super) fn host(port: Change, pf: Change, vf: Change) -> FakeHost {
    let host = port(FakeHost::new("").file("dev/kvm", "").bridge(PORT, 1));
    let host = host
        .pf(PF, 12)
        .under(PORT)
        .attribute("sriov_drivers_autoprobe", "0");
    vf(pf(host).vf(VF, PF, 13))
}

pub(super) fn read(host: &FakeHost) -> Topology {
    let folder = tempfile::tempdir().unwrap();
    let root = host.clone().at(folder.path()).write().unwrap();
    Topology::read(&root).unwrap()
}

pub(super) fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

pub(super) fn judge(host: &FakeHost) -> Vec<Finding> {
    judged(&read(host))
}

fn judged(topology: &Topology) -> Vec<Finding> {
    let mut findings = judge_host(topology);
    findings.extend(judge_function(topology, bdf(VF), &[bdf(VF)]));
    findings
}

/// What a check finds on a healthy host once a file is gone.
pub(super) fn without(path: &str, id: CheckId) -> Finding {
    let folder = tempfile::tempdir().unwrap();
    let root = host(same, same, same).at(folder.path()).write().unwrap();
    std::fs::remove_file(root.path(path)).unwrap();
    let mut findings = judged(&Topology::read(&root).unwrap()).into_iter();
    findings.find(|finding| finding.check == id).unwrap()
}

pub(super) fn of(host: &FakeHost, id: CheckId) -> Finding {
    let mut findings = judge(host).into_iter();
    findings.find(|finding| finding.check == id).unwrap()
}

/// `source: said` of all evidence.
pub(super) fn evidence(finding: &Finding) -> String {
    let lines = finding.evidence.iter();
    lines
        .map(|evidence| format!("{}: {}\n", evidence.source.display(), evidence.said))
        .collect()
}
