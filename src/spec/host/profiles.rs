//! Which profiles there are, and which of them is a PF's: the built-in ones, those of the host file, and the generic ones
//! for what nobody has described.

use iommu::topology::VlanProto;

use std::{collections::BTreeSet, fs, io, path::Path};

use super::{
    profile::{
        AttributeRules, CountRules, Manages, NvmeRules, OrderRules, Origin, Profile, ProfileMatch,
    },
    profile_read::read_profile,
    types::{HostSpec, Kind, PfMatch, PfSpec},
};
use crate::{
    error::{ErrorId, Location, Report},
    spec::near::nearest,
};

/// The profiles that Narrows brings: the name of the file, and its text.
const BUILT_IN: [(&str, &str); 8] = [
    (
        "intel-igb.toml",
        include_str!("../../../hw-configs/profiles/intel-igb.toml"),
    ),
    (
        "intel-igb-i350.toml",
        include_str!("../../../hw-configs/profiles/intel-igb-i350.toml"),
    ),
    (
        "intel-ixgbe.toml",
        include_str!("../../../hw-configs/profiles/intel-ixgbe.toml"),
    ),
    (
        "intel-i40e.toml",
        include_str!("../../../hw-configs/profiles/intel-i40e.toml"),
    ),
    (
        "intel-ice.toml",
        include_str!("../../../hw-configs/profiles/intel-ice.toml"),
    ),
    (
        "nvidia-mlx5.toml",
        include_str!("../../../hw-configs/profiles/nvidia-mlx5.toml"),
    ),
    (
        "nvme-sriov.toml",
        include_str!("../../../hw-configs/profiles/nvme-sriov.toml"),
    ),
    (
        "qemu-nvme.toml",
        include_str!("../../../hw-configs/profiles/qemu-nvme.toml"),
    ),
];

/// All profiles that there are for a host file.
#[derive(Clone, Debug)]
pub struct Profiles {
    /// Those of the host file: of two that fit alike, theirs counts.
    from_files: Vec<Profile>,
    built_in: Vec<Profile>,
    generic_nic: Profile,
    generic_nvme: Profile,
}

impl Profiles {
    /// Those that Narrows brings.
    #[must_use]
    pub fn built_in() -> Self {
        // `every_built_in_profile_is_well_formed` holds that none is left out.
        let read = |(name, text): &(&str, &str)| read_profile(Path::new(name), text).ok();
        Self {
            from_files: Vec::new(),
            built_in: BUILT_IN.iter().filter_map(read).collect(),
            generic_nic: generic("generic-nic", Kind::Nic),
            generic_nvme: generic("generic-nvme", Kind::Nvme),
        }
    }

    /// Those that Narrows brings, and those in the files that `spec` names; then `spec` names no others.
    ///
    /// # Errors
    ///
    /// Every problem of the files and of the names: `file-unreadable`, `profile-malformed`, `profile-unknown`, and
    /// `pool-kind` where a profile is of another kind than what the host file says of the PF.
    pub fn load(spec: &HostSpec) -> Result<Self, Vec<Report>> {
        let mut all = Self::built_in();
        let mut problems = Vec::new();
        for (path, place) in &spec.profiles {
            match fs::read_to_string(path) {
                Ok(text) => problems.extend(all.add(path, &text, Some(place)).err()),
                Err(error) => problems.push(vec![unreadable(path, &error, place)]),
            }
        }
        // A name may be that of a file that could not be read.
        if problems.is_empty() {
            let named = spec.pfs.iter().filter_map(|pf| all.check(pf, spec).err());
            problems.push(named.collect());
        }
        let problems = problems.concat();
        if problems.is_empty() {
            Ok(all)
        } else {
            Err(problems)
        }
    }

    /// Adds the profile in the file at `path`; `place` is where the host file names it.
    ///
    /// # Errors
    ///
    /// Every problem of the file: `profile-malformed`.
    pub fn add(
        &mut self,
        path: &Path,
        text: &str,
        place: Option<&Location>,
    ) -> Result<(), Vec<Report>> {
        let profile = read_profile(path, text)?;
        if let Some(other) = self.named(&profile.name) {
            let report = Report::new(
                ErrorId::ProfileMalformed,
                format!("profile {} is there twice", path.display()),
                format!(
                    "there is one with the name {:?}: {}",
                    other.name, other.title
                ),
                "give it a name of its own, and name that in `[[pf]]` or narrow its `ids`",
            );
            return Err(vec![report.at(place.cloned())]);
        }
        self.from_files.push(profile);
        Ok(())
    }

    /// The profile of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Profile> {
        self.all().find(|profile| profile.name == name)
    }

    /// All of them, the generic ones last.
    pub fn all(&self) -> impl Iterator<Item = &Profile> {
        let generic = [&self.generic_nic, &self.generic_nvme];
        self.specific().chain(generic)
    }

    fn specific(&self) -> impl Iterator<Item = &Profile> {
        self.from_files.iter().chain(&self.built_in)
    }

    /// A PF's profile: the one that the host file names, else the one for its ids, else the one for its driver, else the
    /// generic one.
    #[must_use]
    pub fn of(
        &self,
        name: Option<&str>,
        driver: Option<&str>,
        ids: (u16, u16),
        kind: Kind,
    ) -> &Profile {
        if let Some(named) = name.and_then(|name| self.named(name)) {
            return named;
        }
        let fits = |profile: &&Profile| {
            let wanted = &profile.matches;
            wanted.kind == kind
                && match driver {
                    Some(driver) => wanted.driver.is_empty() || wanted.driver == driver,
                    // Nothing but ids tells what it is.
                    None => !wanted.ids.is_empty(),
                }
        };
        let of_kind = || self.specific().filter(fits);
        let by_ids = of_kind().find(|profile| profile.matches.ids.contains(&ids));
        by_ids
            .or_else(|| of_kind().find(|profile| profile.matches.ids.is_empty()))
            .unwrap_or(match kind {
                Kind::Nic => &self.generic_nic,
                Kind::Nvme => &self.generic_nvme,
            })
    }

    /// Whether the profile that a PF names is there, and of its kind.
    fn check(&self, pf: &PfSpec, spec: &HostSpec) -> Result<(), Report> {
        let Some((name, place)) = &pf.profile else {
            return Ok(());
        };
        let Some(profile) = self.named(name) else {
            let names: Vec<&str> = self.all().map(|profile| profile.name.as_str()).collect();
            let fix = match nearest(name, &names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => {
                    "write one of those, or leave the key out: ids and driver tell it".to_owned()
                }
            };
            let report = Report::new(
                ErrorId::ProfileUnknown,
                format!("there is no profile {name:?}"),
                format!("there are: {}", names.join(", ")),
                fix,
            );
            return Err(report.at(Some(place.clone())));
        };
        let by_match = match pf.match_by {
            PfMatch::Interface(_) => Some(Kind::Nic),
            PfMatch::Serial(_) => Some(Kind::Nvme),
            PfMatch::Bdf(_) | PfMatch::Port { .. } => None,
        };
        let pool = pf.pools.values().find_map(|pool| spec.pool(&pool.name));
        match by_match.or_else(|| pool.map(super::types::Pool::kind)) {
            Some(kind) if kind != profile.matches.kind => Err(Report::new(
                ErrorId::PoolKind,
                format!("profile {name:?} is not of such a device"),
                format!(
                    "it is for {}, and {} is of {}",
                    profile.matches.kind.plural(),
                    pf.match_by,
                    kind.plural()
                ),
                "name a profile of that kind, or leave the key out: ids and driver tell it",
            )
            .at(Some(place.clone()))),
            Some(_) | None => Ok(()),
        }
    }
}

fn unreadable(path: &Path, error: &io::Error, place: &Location) -> Report {
    Report::new(
        ErrorId::FileUnreadable,
        format!("profile {} cannot be read", path.display()),
        error.to_string(),
        "check the path, which starts at the folder of the host file, and its permissions",
    )
    .at(Some(place.clone()))
}

/// What is taken for true of a PF that no profile describes: the worse.
fn generic(name: &str, kind: Kind) -> Profile {
    let is_nic = kind == Kind::Nic;
    Profile {
        name: name.to_owned(),
        title: format!("any of the {} without a profile", kind.plural()),
        origin: Origin::Assumed,
        tested: Vec::new(),
        sources: Vec::new(),
        matches: ProfileMatch {
            kind,
            driver: String::new(),
            ids: BTreeSet::new(),
        },
        count: CountRules {
            max_vfs: None,
            through_zero: true,
            destroys_all: true,
            interrupts_pf: true,
            settle_ms: 3000,
        },
        order: OrderRules {
            pf_up_before_vfs: is_nic,
            autoprobe_off: true,
            resources_before_online: !is_nic,
        },
        attributes: AttributeRules {
            mac: is_nic,
            // Some drivers refuse to take an address away.
            clear_mac: false,
            vlan: Vec::from_iter(is_nic.then_some(VlanProto::Dot1Q)),
            spoofchk: is_nic,
            trust: is_nic,
            query_rss: false,
            state: Vec::new(),
            min_tx_rate: false,
            max_tx_rate: None,
            live: BTreeSet::new(),
            reset_by: BTreeSet::new(),
        },
        quirks: BTreeSet::new(),
        nvme: (!is_nic).then_some(NvmeRules {
            secondary_manages: Manages::Unknown,
        }),
    }
}
