//! An `NVMe` subsystem as text lines, which a captured machine can hold as a file.
//!
//! ```text
//! cntlid 0
//! serial lab-sriov
//! model QEMU NVMe Ctrl
//! subnqn nqn.2019-08.org.qemu:lab
//! capacity 0
//! unallocated 0
//! can attach virt format
//! flexible vq total 28 assigned 0 to-primary 0 private 3 most 4 granularity 1
//! flexible vi total 14 assigned 0 to-primary 0 private 17 most 2 granularity 1
//! secondary 1 vf 1 offline vq 0 vi 0
//! namespace 2 size 67108864 block 512 private nguid 00…01 attached 1,3
//! unread CNS 12h of namespace 3: status 0/06 (internal error)
//! ```
//! `nguid` or `eui64` is left out where there is none, `attached` where nobody has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use iommu::{
    error::Errno,
    sysfs::{Asked, SysRoot},
};

use super::controller::{Controller, Identity, Layout};
use crate::{
    sriov::{Flexible, Namespace, NamespaceId, NvmeCan, NvmeFacts, Resource, Secondary},
    sys::nvme::CommandFault,
};

/// What was read of a subsystem, and what could not be.
pub(super) type Told = (NvmeFacts, Vec<String>);

/// Reads the subsystem behind `controller`; where its namespaces are on the host is for the caller to add.
///
/// # Errors
/// Why nothing at all could be read.
pub(super) fn read(root: &SysRoot, controller: &str) -> Result<Told, String> {
    let place = Path::new("narrows/nvme").join(controller);
    let node = Path::new("dev").join(controller);
    let asked = Asked {
        call: "NVME_IOCTL_ADMIN_CMD",
        of: &node,
    };
    let text = root
        .ask(place, asked, || ask(root, controller).map(Some))
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("nothing is kept of {controller}"))?;
    parse(controller, &text)
}

fn ask(root: &SysRoot, name: &str) -> Result<String, Errno> {
    let controller = Controller::open(root, name).map_err(|error| Errno::of(&error))?;
    let (facts, unread) = look(&controller, name).map_err(|fault| match fault {
        CommandFault::Kernel(error) => Errno::of(&error),
        CommandFault::Controller(_) => Errno::new(libc::EIO),
    })?;
    Ok(text(&facts, &unread))
}

/// Asks for everything. What the controller refuses is told; only without its identity there is nothing to tell.
fn look(controller: &Controller, name: &str) -> Result<Told, CommandFault> {
    let identity = controller.identity()?;
    let mut unread = Vec::new();
    let can = abilities(controller, &identity, &mut unread);
    let (flexible, secondaries) = if can.virt {
        let flexible = note(controller.flexible(), "CNS 14h", &mut unread);
        let list = note(controller.secondaries(), "CNS 15h", &mut unread);
        (flexible, list.unwrap_or_default())
    } else {
        (None, Vec::new())
    };
    let mut facts = NvmeFacts {
        controller: name.to_owned(),
        cntlid: identity.cntlid,
        serial: identity.serial,
        model: identity.model,
        subnqn: identity.subnqn,
        capacity: identity.capacity,
        unallocated: identity.unallocated,
        can,
        flexible,
        secondaries,
        namespaces: BTreeMap::new(),
    };
    // Without attachment there is one controller's view, and no other.
    let cns = if can.attach { 0x10 } else { 0x02 };
    let ids = note(
        controller.namespaces(cns),
        &format!("CNS {cns:02x}h"),
        &mut unread,
    );
    for nsid in ids.unwrap_or_default() {
        let layout = if can.attach {
            controller.layout(nsid)
        } else {
            controller
                .identify(0x00, nsid, 0)
                .map(|page| Layout::parse(&page))
        };
        let what = format!("the structure of namespace {nsid}");
        let Some(layout) = note(layout, &what, &mut unread) else {
            continue;
        };
        let Some(layout) = layout else {
            unread.push(format!("{what}: it is empty, or of no known format"));
            continue;
        };
        let attached = match can.attach {
            true => {
                let what = format!("CNS 12h of namespace {nsid}");
                match note(controller.attached(nsid), &what, &mut unread) {
                    Some(attached) => attached,
                    None => continue,
                }
            }
            false => BTreeSet::from([facts.cntlid]),
        };
        let namespace = Namespace {
            size: layout.len_bytes(),
            block: layout.block,
            metadata: layout.metadata,
            protection: layout.dps & 7,
            is_shared: layout.is_shared,
            id: layout.id,
            attached,
            block_device: None,
        };
        facts.namespaces.insert(nsid, namespace);
    }
    Ok((facts, unread))
}

/// By the log of supported commands where there is one: what is told in `OACS` is a bit for several commands, and is
/// set where only one of them works.
fn abilities(controller: &Controller, identity: &Identity, unread: &mut Vec<String>) -> NvmeCan {
    let log = match identity.has_effects {
        true => note(controller.supported(), "log of supported commands", unread),
        false => None,
    };
    let can = |opcode: u8, oacs: u16| match &log {
        Some(log) => log.contains(&opcode),
        None => identity.oacs & oacs != 0,
    };
    NvmeCan {
        manage: can(0x0d, 1 << 3),
        attach: can(0x15, 1 << 3),
        virt: can(0x1c, 1 << 7),
        format: can(0x80, 1 << 1),
        crypto: identity.fna & 4 != 0,
        format_all: identity.fna & 1 != 0,
        erase_all: identity.fna & 2 != 0,
    }
}

fn note<T>(answer: Result<T, CommandFault>, what: &str, unread: &mut Vec<String>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(fault) => {
            unread.push(format!("{what}: {fault}"));
            None
        }
    }
}

/// A word, and what it stands for.
type Ability = (&'static str, fn(&mut NvmeCan) -> &mut bool);

/// The words of what a controller can do, in the order of the line.
const ABILITIES: [Ability; 7] = [
    ("manage", |can| &mut can.manage),
    ("attach", |can| &mut can.attach),
    ("virt", |can| &mut can.virt),
    ("format", |can| &mut can.format),
    ("crypto", |can| &mut can.crypto),
    ("format-all", |can| &mut can.format_all),
    ("erase-all", |can| &mut can.erase_all),
];

/// The lines.
fn text(facts: &NvmeFacts, unread: &[String]) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.replace('\n', "?").trim_end());
        out.push('\n');
    };
    line(format!("cntlid {}", facts.cntlid));
    line(format!("serial {}", facts.serial));
    line(format!("model {}", facts.model));
    line(format!("subnqn {}", facts.subnqn));
    line(format!("capacity {}", facts.capacity));
    line(format!("unallocated {}", facts.unallocated));
    let mut can = facts.can;
    let words: Vec<&str> = ABILITIES
        .iter()
        .filter(|(_, of)| *of(&mut can))
        .map(|(word, _)| *word)
        .collect();
    line(format!("can {}", words.join(" ")));
    if let Some(flexible) = facts.flexible {
        for (word, r) in [("vq", flexible.vq), ("vi", flexible.vi)] {
            line(format!(
                "flexible {word} total {} assigned {} to-primary {} private {} most {} granularity {}",
                r.total, r.assigned, r.to_primary, r.private, r.most, r.granularity
            ));
        }
    }
    for one in &facts.secondaries {
        let state = if one.is_online { "online" } else { "offline" };
        line(format!(
            "secondary {} vf {} {state} vq {} vi {}",
            one.cntlid, one.vf, one.queues, one.vectors
        ));
    }
    for (nsid, namespace) in &facts.namespaces {
        line(namespace_line(*nsid, namespace));
    }
    for what in unread {
        line(format!("unread {what}"));
    }
    out
}

fn namespace_line(nsid: u32, namespace: &Namespace) -> String {
    let sharing = if namespace.is_shared {
        "shared"
    } else {
        "private"
    };
    let id = match &namespace.id {
        NamespaceId::Nguid(digits) => format!(" nguid {digits}"),
        NamespaceId::Eui64(digits) => format!(" eui64 {digits}"),
        NamespaceId::None => String::new(),
    };
    let mut attached = String::new();
    for (at, cntlid) in namespace.attached.iter().enumerate() {
        let before = if at == 0 { " attached " } else { "," };
        // Writing to a text does not fail.
        if write!(attached, "{before}{cntlid}").is_err() {
            break;
        }
    }
    let mut layout = String::new();
    for (word, number) in [
        ("metadata", namespace.metadata),
        ("protection", u16::from(namespace.protection)),
    ] {
        if number > 0 {
            layout += &format!(" {word} {number}");
        }
    }
    format!(
        "namespace {nsid} size {} block {} {sharing}{layout}{id}{attached}",
        namespace.size, namespace.block
    )
}

/// Reads the lines: of a machine file, too, which anybody may have written.
pub(super) fn parse(controller: &str, text: &str) -> Result<Told, String> {
    let mut facts = NvmeFacts {
        controller: controller.to_owned(),
        cntlid: 0,
        serial: String::new(),
        model: String::new(),
        subnqn: String::new(),
        capacity: 0,
        unallocated: 0,
        can: NvmeCan::default(),
        flexible: None,
        secondaries: Vec::new(),
        namespaces: BTreeMap::new(),
    };
    let (mut unread, mut vq, mut vi, mut is_named) = (Vec::new(), None, None, false);
    for line in text.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        let understood = match key {
            "cntlid" => rest.parse().map(|id| facts.cntlid = id).is_ok(),
            "serial" => {
                is_named = true;
                rest.clone_into(&mut facts.serial);
                true
            }
            "model" => {
                rest.clone_into(&mut facts.model);
                true
            }
            "subnqn" => {
                rest.clone_into(&mut facts.subnqn);
                true
            }
            "capacity" => rest.parse().map(|bytes| facts.capacity = bytes).is_ok(),
            "unallocated" => rest.parse().map(|bytes| facts.unallocated = bytes).is_ok(),
            "can" => rest.split_whitespace().all(|word| {
                let of = ABILITIES.iter().find(|(known, _)| *known == word);
                of.map(|(_, of)| *of(&mut facts.can) = true).is_some()
            }),
            "flexible" => match rest.split_once(' ') {
                Some(("vq", rest)) => {
                    vq = resource(rest);
                    vq.is_some()
                }
                Some(("vi", rest)) => {
                    vi = resource(rest);
                    vi.is_some()
                }
                _ => false,
            },
            "secondary" => secondary(rest)
                .map(|one| facts.secondaries.push(one))
                .is_some(),
            "namespace" => namespace(rest)
                .filter(|(nsid, _)| !facts.namespaces.contains_key(nsid))
                .map(|(nsid, one)| facts.namespaces.insert(nsid, one))
                .is_some(),
            "unread" => {
                unread.push(rest.to_owned());
                true
            }
            _ => false,
        };
        if !understood {
            return Err(format!("{line:?} is no line about an NVMe subsystem"));
        }
    }
    if !is_named {
        return Err("it has no line with a serial number".to_owned());
    }
    facts.flexible = vq.zip(vi).map(|(vq, vi)| Flexible { vq, vi });
    Ok((facts, unread))
}

fn resource(rest: &str) -> Option<Resource> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [
        "total",
        total,
        "assigned",
        assigned,
        "to-primary",
        to_primary,
        "private",
        private,
        "most",
        most,
        "granularity",
        granularity,
    ] = words.as_slice()
    else {
        return None;
    };
    Some(Resource {
        total: total.parse().ok()?,
        assigned: assigned.parse().ok()?,
        to_primary: to_primary.parse().ok()?,
        private: private.parse().ok()?,
        most: most.parse().ok()?,
        granularity: granularity.parse().ok()?,
    })
}

fn secondary(rest: &str) -> Option<Secondary> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [cntlid, "vf", vf, state, "vq", queues, "vi", vectors] = words.as_slice() else {
        return None;
    };
    Some(Secondary {
        cntlid: cntlid.parse().ok()?,
        vf: vf.parse().ok()?,
        is_online: match *state {
            "online" => true,
            "offline" => false,
            _ => return None,
        },
        queues: queues.parse().ok()?,
        vectors: vectors.parse().ok()?,
    })
}

fn namespace(rest: &str) -> Option<(u32, Namespace)> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [nsid, "size", size, "block", block, sharing, rest @ ..] = words.as_slice() else {
        return None;
    };
    let mut namespace = Namespace {
        size: size.parse().ok()?,
        block: block.parse().ok()?,
        metadata: 0,
        protection: 0,
        is_shared: match *sharing {
            "shared" => true,
            "private" => false,
            _ => return None,
        },
        id: NamespaceId::None,
        attached: BTreeSet::new(),
        block_device: None,
    };
    for pair in rest.chunks(2) {
        match pair {
            ["nguid", digits] => namespace.id = NamespaceId::Nguid((*digits).to_owned()),
            ["metadata", bytes] => namespace.metadata = bytes.parse().ok()?,
            ["protection", kind] => namespace.protection = kind.parse().ok()?,
            ["eui64", digits] => namespace.id = NamespaceId::Eui64((*digits).to_owned()),
            ["attached", ids] => {
                let ids: Result<BTreeSet<u16>, _> = ids.split(',').map(str::parse).collect();
                namespace.attached = ids.ok()?;
            }
            _ => return None,
        }
    }
    Some((nsid.parse().ok()?, namespace))
}

#[cfg(test)]
#[path = "nvme_test.rs"]
mod tests;
