//! The inventory and the verdicts as JSON; docs/schema says what each field is. New fields may be added, none changes
//! its meaning.

use iommu::{
    isolation::{Finding, Verdict},
    topology::{
        Enforced, Function, InterfacePolicy, Interrupts, IommuKind, LinkPolicy, Remapping, Topology,
    },
};
use serde::Serialize;

use crate::host::Known;

use super::{
    Examination, Scene, advice, doctor,
    layers::verdict_of_layers,
    words::{self, AcsState, Fence, Kind},
};

const API_VERSION: &str = "v1alpha1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InventoryDocument<'a> {
    api_version: &'static str,
    kind: &'static str,
    host: HostDocument<'a>,
    functions: Vec<FunctionDocument<'a>>,
    groups: Vec<GroupDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostDocument<'a> {
    kernel: Option<&'a str>,
    iommus: Vec<IommuDocument<'a>>,
    interrupt_remapping: &'static str,
    has_iommufd: bool,
    has_kvm: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IommuDocument<'a> {
    name: &'a str,
    vendor: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionDocument<'a> {
    bdf: String,
    kind: &'static str,
    /// The address of the bridge right above.
    parent: Option<String>,
    physfn: Option<String>,
    vendor: String,
    device: String,
    class: String,
    vendor_name: Option<&'a str>,
    device_name: Option<&'a str>,
    driver: Option<&'a str>,
    driver_override: Option<&'a str>,
    vfio_cdev: Option<&'a str>,
    group: Option<u32>,
    /// How many members its group has.
    group_size: Option<usize>,
    numa_node: Option<u32>,
    link: Option<LinkDocument<'a>>,
    interfaces: &'a [String],
    controllers: &'a [String],
    reset_methods: &'a [String],
    interrupts: InterruptsDocument,
    sriov: Option<SriovDocument>,
    acs: Option<AcsDocument>,
    policies: Vec<PolicyDocument<'a>>,
}

/// What an interface of its PF enforces on a NIC's VF; nothing but the reason where that is not known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyDocument<'a> {
    interface: &'a str,
    unknown: Option<&'a str>,
    index: Option<u32>,
    mac: Option<String>,
    vlan: Option<u32>,
    qos: Option<u32>,
    spoof_check: Option<bool>,
    trusted: Option<bool>,
    rss_query: Option<bool>,
    link: Option<LinkPolicy>,
    min_tx_mbps: Option<u32>,
    max_tx_mbps: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkDocument<'a> {
    speed: &'a str,
    width: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InterruptsDocument {
    kind: &'static str,
    vectors: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SriovDocument {
    total: u32,
    enabled: u32,
    is_probed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AcsDocument {
    state: &'static str,
    words: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupDocument<'a> {
    id: u32,
    members: Vec<String>,
    other_members: &'a [String],
    domain_type: &'a str,
    reserved: Vec<ReservedDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReservedDocument<'a> {
    start: String,
    /// Exclusive.
    end: String,
    kind: &'a str,
}

/// The inventory as a JSON document of kind `Inventory`: every function, whatever is folded elsewhere.
///
/// # Errors
///
/// None is known.
pub fn inventory_json(scene: &Scene<'_>) -> serde_json::Result<String> {
    let topology = scene.topology;
    let functions = topology.functions.values();
    serde_json::to_string_pretty(&InventoryDocument {
        api_version: API_VERSION,
        kind: "Inventory",
        host: host(topology),
        functions: functions.map(|f| describe(scene, f)).collect(),
        groups: groups(topology),
    })
}

fn host(topology: &Topology) -> HostDocument<'_> {
    let iommus = topology.iommus.iter().map(|unit| IommuDocument {
        name: &unit.name,
        vendor: match unit.kind {
            IommuKind::Intel { .. } => "intel",
            IommuKind::Amd { .. } => "amd",
            IommuKind::Other => "other",
        },
    });
    HostDocument {
        kernel: topology.host.kernel.as_deref(),
        iommus: iommus.collect(),
        interrupt_remapping: match topology.host.remapping {
            Remapping::On { .. } => "on",
            Remapping::Off { .. } => "off",
            Remapping::Unknown => "unknown",
        },
        has_iommufd: topology.has_iommufd,
        has_kvm: topology.host.has_kvm,
    }
}

fn describe<'a>(scene: &Scene<'a>, function: &'a Function) -> FunctionDocument<'a> {
    let Function { vendor, device, .. } = *function;
    FunctionDocument {
        bdf: function.bdf.to_string(),
        kind: match Kind::of(function) {
            Kind::Vf => "vf",
            Kind::Pf => "pf",
            Kind::Bridge(_) => "bridge",
            Kind::Device => "device",
        },
        parent: function.parent.map(|bdf| bdf.to_string()),
        physfn: function.physfn.map(|bdf| bdf.to_string()),
        vendor: format!("{vendor:04x}"),
        device: format!("{device:04x}"),
        class: format!("{:06x}", function.class),
        vendor_name: scene.names.vendor(vendor),
        device_name: scene.names.device(vendor, device),
        driver: function.driver.as_deref(),
        driver_override: function.driver_override.as_deref(),
        vfio_cdev: function.vfio_cdev.as_deref(),
        group: function.group.map(|id| id.0),
        group_size: match words::fence(scene.topology, function) {
            Fence::None => None,
            Fence::Alone(_) => Some(1),
            Fence::Shared(_, count) => Some(count),
        },
        numa_node: function.numa_node,
        link: function.link.as_ref().map(|link| LinkDocument {
            speed: &link.speed,
            width: &link.width,
        }),
        interfaces: &function.interfaces,
        controllers: &function.controllers,
        reset_methods: &function.reset_methods,
        interrupts: interrupts(function.interrupts),
        sriov: function.sriov.map(|sriov| SriovDocument {
            total: sriov.total,
            enabled: sriov.enabled,
            is_probed: sriov.is_probed,
        }),
        acs: words::acs(function).map(|acs| AcsDocument {
            state: match acs {
                AcsState::On => "on",
                AcsState::Weak(_) => "weak",
                AcsState::NotRead => "unknown",
            },
            words: acs.words(),
        }),
        policies: function.policies.iter().map(policy).collect(),
    }
}

fn policy(policy: &InterfacePolicy) -> PolicyDocument<'_> {
    let (unknown, told) = match &policy.enforced {
        Enforced::Told(told) => (None, Some(*told)),
        Enforced::Unknown { reason } => (Some(reason.as_str()), None),
    };
    PolicyDocument {
        interface: &policy.interface,
        unknown,
        index: told.map(|told| told.index),
        mac: told.and_then(|told| told.mac).map(|mac| mac.to_string()),
        vlan: told.and_then(|told| told.vlan),
        qos: told.and_then(|told| told.qos),
        spoof_check: told.and_then(|told| told.spoof_check),
        trusted: told.and_then(|told| told.trusted),
        rss_query: told.and_then(|told| told.rss_query),
        link: told.and_then(|told| told.link),
        min_tx_mbps: told.and_then(|told| told.min_tx_mbps),
        max_tx_mbps: told.and_then(|told| told.max_tx_mbps),
    }
}

fn interrupts(interrupts: Interrupts) -> InterruptsDocument {
    let (kind, vectors) = match interrupts {
        Interrupts::None => ("none", None),
        Interrupts::Msi { vectors } => ("msi", Some(vectors)),
        Interrupts::Msix { vectors, .. } => ("msix", Some(vectors)),
        Interrupts::Unknown { .. } => ("unknown", None),
    };
    InterruptsDocument { kind, vectors }
}

fn groups(topology: &Topology) -> Vec<GroupDocument<'_>> {
    let groups = topology.groups.iter().map(|(id, group)| GroupDocument {
        id: id.0,
        members: group.members.iter().map(ToString::to_string).collect(),
        other_members: &group.other_members,
        domain_type: &group.domain_type,
        reserved: group
            .reserved
            .iter()
            .map(|region| ReservedDocument {
                start: format!("{:#x}", region.range.start().raw()),
                end: format!("{:#x}", region.range.end().raw()),
                kind: &region.kind,
            })
            .collect(),
    });
    groups.collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DoctorDocument<'a> {
    api_version: &'static str,
    kind: &'static str,
    verdict: Verdict,
    summary: String,
    unknown: Option<&'a str>,
    host: Vec<FindingDocument<'a>>,
    layers: Vec<LayerDocument<'a>>,
    devices: Vec<DeviceDocument<'a>>,
    advice: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerDocument<'a> {
    id: &'static str,
    state: &'static str,
    evidence: &'a str,
    removes: &'static str,
    since: &'static str,
    may_be_absent: bool,
    fix: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceDocument<'a> {
    bdf: String,
    verdict: Verdict,
    findings: Vec<FindingDocument<'a>>,
    quarantine: Option<QuarantineDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuarantineDocument<'a> {
    id: &'static str,
    why: &'a [String],
    fix: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingDocument<'a> {
    id: &'static str,
    value: &'a str,
    verdict: Verdict,
    evidence: Vec<EvidenceDocument<'a>>,
    why: &'static str,
    fix: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EvidenceDocument<'a> {
    source: String,
    said: &'a str,
}

/// The examination as a JSON document of kind `Doctor`: everything that was checked, passing or not.
///
/// # Errors
///
/// None is known.
pub fn doctor_json(
    scene: &Scene<'_>,
    found: &Examination,
    unknown: Option<&str>,
) -> serde_json::Result<String> {
    let devices = found.devices.iter().map(|judged| DeviceDocument {
        bdf: judged.bdf.to_string(),
        verdict: judged.verdict(),
        findings: judged.findings.iter().map(finding).collect(),
        quarantine: judged.quarantine.as_ref().map(|report| QuarantineDocument {
            id: report.id.name(),
            why: &report.why,
            fix: &report.fix,
        }),
    });
    serde_json::to_string_pretty(&DoctorDocument {
        api_version: API_VERSION,
        kind: "Doctor",
        verdict: found.verdict().max(verdict_of_layers(scene.layers)),
        summary: doctor::summary(scene, found),
        unknown,
        host: found.host.iter().map(finding).collect(),
        layers: scene.layers.iter().map(layer).collect(),
        devices: devices.collect(),
        advice: advice::steps(scene, found),
    })
}

fn layer(known: &Known) -> LayerDocument<'_> {
    let row = known.layer.row();
    LayerDocument {
        id: row.name,
        state: known.presence.word(),
        evidence: known.presence.evidence(),
        removes: row.removes,
        since: row.since,
        may_be_absent: known.layer.may_be_absent(),
        fix: row.fix,
    }
}

fn finding(finding: &Finding) -> FindingDocument<'_> {
    let evidence = finding.evidence.iter().map(|evidence| EvidenceDocument {
        source: evidence.source.display().to_string(),
        said: &evidence.said,
    });
    FindingDocument {
        id: finding.check.name(),
        value: &finding.value,
        verdict: finding.verdict,
        evidence: evidence.collect(),
        why: finding.check.check().why,
        fix: finding.fix.as_deref(),
    }
}
