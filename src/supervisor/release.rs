//! Devices given back to the host, or kept from the next guest.
//!
//! On entry: V and D are gone. On exit: each function is silent, reset, compared with what it was, closed, and bound as
//! before; or it is in quarantine; or it is gone, because the host has removed it. The order: bus master of all off; for
//! each device, interrupts off, reset, read back, closed; then all are bound as before.

use std::{
    thread,
    time::{Duration, Instant},
};

use iommu::{
    IommuError as Error,
    bdf::Bdf,
    bind::{self, VFIO_PCI},
    clean::ConfigSnapshot,
    sysfs::SysRoot,
    topology::{function_path, read_driver},
};

use super::{
    assign::Taken,
    log::Log,
    quiet::{Reset, quiesce_all, stop_all},
};
use crate::{
    error::{ErrorId, Report},
    sriov::{Hands, LeaseTerms},
    state::{Identity, InUse, Journal, Record, State, boot},
    sys::crash::{self, Step},
    vf::{KernelHands, lease},
};

/// How long the host may take to unbind or remove a function, once nobody has it open.
const TAKING: Duration = Duration::from_secs(5);
const TAKING_POLL: Duration = Duration::from_millis(5);

impl Taken<'_> {
    /// Gives every function back. What fails does not keep the rest from being given back.
    #[must_use]
    pub(super) fn release(mut self, state: &State, log: &Log) -> Released {
        let root = self.root;
        let mut unclean = std::mem::take(&mut self.unclean);
        let mut taken_back = Vec::new();
        let devices = std::mem::take(&mut self.devices);
        stop_all(&devices);
        crash::point(Step::MastersOff);
        let quiesced = quiesce_all(&devices, Reset::Now);
        for (opened, quiesced) in devices.into_iter().zip(quiesced) {
            let bdf = opened.device.bdf();
            match quiesced {
                Ok(()) => unclean.push((bdf, traces(root, bdf, opened.before.as_ref()))),
                Err(error) if is_locked(&error) => taken_back.push((bdf, opened.before, error)),
                Err(error) => unclean.push((bdf, vec![error.to_string()])),
            }
            // The kernel lets nobody else have it before it is closed.
            drop(opened.device);
            crash::point(Step::Closed);
        }
        for (bdf, before, error) in taken_back {
            let evidence = after_taking(root, bdf, before.as_ref(), &error, log);
            unclean.push((bdf, evidence));
        }
        let mut left = Vec::new();
        for binding in self.bound.iter().rev() {
            let bdf = binding.bdf();
            let restored = binding.restore(root);
            crash::point(Step::Restored);
            if !bind::is_there(root, bdf) {
                log.say(&format!("{bdf} is gone: the host has removed it"));
                continue;
            }
            match restored {
                Ok(()) => {
                    unclean.push((bdf, traces(root, bdf, None)));
                    log.say(&format!("{bdf} is given back"));
                }
                Err(error) => left.push(not_restored(bdf, &error)),
            }
        }
        let is_restored = left.is_empty();
        let quarantine = Quarantine {
            guest: self.guest.to_owned(),
            functions: self.functions,
            root: root.clone(),
        };
        left.extend(quarantine.put(&unclean, state, log));
        crash::point(Step::GivenBack);
        Released {
            left,
            journal: self.journal.filter(|_| is_restored),
            leases: self.leases,
            quarantine,
            _reserved: self.reserved,
        }
    }
}

/// Keeps functions of a guest from the next one.
#[derive(Debug)]
pub(super) struct Quarantine {
    pub(super) guest: String,
    pub(super) functions: Vec<Bdf>,
    pub(super) root: SysRoot,
}

impl Quarantine {
    /// Puts the functions for which there is evidence into quarantine, each once.
    pub(super) fn put(
        &self,
        unclean: &[(Bdf, Vec<String>)],
        state: &State,
        log: &Log,
    ) -> Vec<Report> {
        let mut reports = Vec::new();
        for &bdf in &self.functions {
            let mut evidence: Vec<String> = Vec::new();
            for found in unclean.iter().filter(|(of, _)| *of == bdf) {
                for line in &found.1 {
                    if !evidence.contains(line) {
                        evidence.push(line.clone());
                    }
                }
            }
            // One that the host has removed will be a new one when it comes back.
            if evidence.is_empty() || !bind::is_there(&self.root, bdf) {
                continue;
            }
            let reason = "it did not come back clean";
            let device = identity(&self.root, bdf);
            let record = Record::new(bdf, device, reason, evidence.clone(), &self.guest);
            crash::point(Step::Unclean);
            let put = state.put_into_quarantine(&record);
            if put.is_ok() {
                reports.extend(state.mark_quarantined(bdf).err());
            }
            let mut report = match put {
                Ok(path) => {
                    crash::point(Step::Quarantined);
                    log.warn(&format!(
                        "{bdf} is in quarantine: {reason} ({})",
                        path.display()
                    ));
                    Report::new(
                        ErrorId::DeviceNotClean,
                        format!("{bdf} did not come back clean and is in quarantine"),
                        "",
                        format!(
                            "reset its PF or the host, see that it is sound, then: narrows quarantine release {bdf}"
                        ),
                    )
                }
                Err(error) => Report::new(
                    ErrorId::QuarantineFailed,
                    format!("{bdf} did not come back clean, and that could not be written down"),
                    "",
                    format!(
                        "give {bdf} to no guest until its PF or the host was reset: nothing but you keeps it from the \
                         next one ({error})"
                    ),
                ),
            };
            report.why = evidence;
            reports.push(report);
        }
        reports
    }
}

/// Functions that were given back, by a run that is still written down.
#[derive(Debug)]
pub(super) struct Released {
    left: Vec<Report>,
    /// `None` where a function could not be put back: that stays written down, for `narrows recover`.
    journal: Option<Journal>,
    /// Leases that are still to be given back: an erase takes its time, and the guest's name and memory need not wait.
    leases: Vec<LeaseTerms>,
    quarantine: Quarantine,
    /// Until the journal is removed, which would have another run refused.
    _reserved: Vec<InUse>,
}

impl Released {
    /// Gives the leases back, and removes the journal, unless `besides` tells of something of the host that is left. All that
    /// is left.
    #[must_use]
    pub(super) fn end(mut self, state: &State, besides: Vec<Report>, log: &Log) -> Vec<Report> {
        let unreturned = self.give_back(state, log);
        let is_all = besides.is_empty() && unreturned.is_empty();
        self.left.extend(besides);
        self.left.extend(unreturned);
        if let Some(journal) = self.journal.filter(|_| is_all) {
            let path = journal.path().to_owned();
            if let Err(error) = journal.remove() {
                self.left.push(state.unwritable(&path, &error));
            }
            crash::point(Step::JournalRemoved);
        }
        self.left
    }

    /// Gives the leases back. A VF that is not clean goes into quarantine; what is left to be done is given.
    fn give_back(&mut self, state: &State, log: &Log) -> Vec<Report> {
        let Quarantine { guest, root, .. } = &self.quarantine;
        let mut hands = KernelHands::new(root.clone());
        let mut left = Vec::new();
        for terms in &self.leases {
            let bdf = terms.vf;
            let mut say = |line: &str| log.say(&format!("{bdf}: {line}"));
            if !bind::is_there(root, bdf) {
                left.extend(ended_with_vf(
                    &mut hands, state, root, guest, terms, &mut say,
                ));
                continue;
            }
            let evidence = lease::give_back(&mut hands, state, guest, terms, &mut say);
            if evidence.is_empty() {
                log.say(&format!("the lease of {bdf} is given back"));
                continue;
            }
            let unclean = [(bdf, evidence)];
            let reports = self.quarantine.put(&unclean, state, log);
            self.left.extend(reports);
        }
        left
    }
}

/// Ends the lease of a VF that is not there any more: its namespaces are. What could not be done.
pub(super) fn ended_with_vf(
    hands: &mut dyn Hands,
    state: &State,
    root: &SysRoot,
    guest: &str,
    terms: &LeaseTerms,
    say: &mut dyn FnMut(&str),
) -> Option<Report> {
    let evidence = match boot(root) {
        Ok(boot) => lease::give_back_gone(hands, state, guest, &boot, terms, say),
        Err(error) => vec![format!("the boot cannot be told: {error}")],
    };
    if evidence.is_empty() {
        return None;
    }
    let mut report = Report::new(
        ErrorId::HostNotRestored,
        format!("the lease of {} by guest {guest} is not ended", terms.vf),
        "",
        "put right what is said above, then: narrows recover",
    );
    report.why = evidence;
    Some(report)
}

/// What keeps a function from counting as clean: none where it is silent and as it was `before`.
pub(super) fn traces(root: &SysRoot, bdf: Bdf, before: Option<&ConfigSnapshot>) -> Vec<String> {
    let after = match ConfigSnapshot::read(root, bdf) {
        Ok(after) => after,
        Err(error) => return vec![error.to_string()],
    };
    let mut traces = after.noise();
    // One that does not answer differs everywhere.
    if traces.is_empty()
        && let Some(before) = before
    {
        traces = before.differences(&after);
    }
    traces
}

/// Whether a reset could not be done because somebody holds the function's lock: a host that unbinds or removes it holds
/// it until we have closed the device.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::DeviceCall { call, errno, .. }
        if call.contains("RESET") && errno.raw() == libc::EAGAIN)
}

/// Waits until the host has what it asked for, and does then what could not be done before: the reset. What was found.
fn after_taking(
    root: &SysRoot,
    bdf: Bdf,
    before: Option<&ConfigSnapshot>,
    error: &Error,
    log: &Log,
) -> Vec<String> {
    let deadline = Instant::now() + TAKING;
    loop {
        if !bind::is_there(root, bdf) {
            return Vec::new();
        }
        match read_driver(root, bdf) {
            Ok(driver) if driver.as_deref() == Some(VFIO_PCI) => {}
            Ok(None) => break,
            Ok(Some(driver)) => {
                return vec![format!(
                    "{error}; then the host's driver {driver} took it before it could be reset"
                )];
            }
            Err(error) => return vec![error.to_string()],
        }
        if Instant::now() >= deadline {
            return vec![error.to_string()];
        }
        thread::sleep(TAKING_POLL);
    }
    log.say(&format!(
        "{bdf} was taken back by the host; it is reset now"
    ));
    match bind::reset(root, bdf) {
        Ok(()) => traces(root, bdf, before),
        Err(_) if !bind::is_there(root, bdf) => Vec::new(),
        Err(error) => vec![error.to_string()],
    }
}

/// What the function is, for who has to find it later.
pub(super) fn identity(root: &SysRoot, bdf: Bdf) -> Identity {
    let read = |name: &str| {
        root.read_text(function_path(bdf).join(name))
            .unwrap_or_else(|error| error.to_string())
    };
    Identity {
        vendor: read("vendor"),
        device: read("device"),
        class: read("class"),
    }
}

fn not_restored(bdf: Bdf, error: &Error) -> Report {
    Report::new(
        ErrorId::HostNotRestored,
        format!("{bdf} is not as it was before the guest"),
        error.to_string(),
        "do not give it to another guest; reset the PF or the host, then unbind it from vfio-pci by hand",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use iommu::fake::FakeHost;

    use super::*;

    #[test]
    fn a_function_is_clean_only_where_it_is_silent_and_as_before() {
        let folder = std::env::temp_dir().join(format!("narrows-release-{}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        let root = FakeHost::new(&folder)
            .pf("0000:01:00.0", 12)
            .vf("0000:01:10.0", "0000:01:00.0", 13)
            .write()
            .unwrap();
        let bdf = "0000:01:10.0".parse().unwrap();
        let before = ConfigSnapshot::read(&root, bdf).unwrap();
        let config = root.path(function_path(bdf).join("config"));
        let bytes = fs::read(&config).unwrap();
        let found = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            fs::write(&config, bytes).unwrap();
            traces(&root, bdf, Some(&before))
        };
        assert_eq!(
            found(4, bytes[4] | 2),
            Vec::<String>::new(),
            "decoding may differ"
        );
        assert!(found(4, bytes[4] | 4)[0].contains("bus master"));
        assert!(found(0x2c, !bytes[0x2c])[0].contains("at 0x02c"));
        assert_eq!(
            traces(&root, bdf, None),
            Vec::<String>::new(),
            "silent is enough"
        );
        fs::write(&config, vec![0xff; bytes.len()]).unwrap();
        let silent = traces(&root, bdf, Some(&before));
        assert_eq!(silent.len(), 1);
        assert!(silent[0].contains("does not answer"));
        fs::remove_file(&config).unwrap();
        assert!(traces(&root, bdf, Some(&before))[0].contains("ENOENT"));
        fs::remove_dir_all(&folder).ok();
    }

    #[test]
    fn only_a_reset_that_somebody_locks_out_is_put_off() {
        let error = |call, errno| Error::DeviceCall {
            bdf: "0000:01:10.0".parse().unwrap(),
            call,
            errno: iommu::Errno::new(errno),
        };
        assert!(is_locked(&error("VFIO_DEVICE_RESET", libc::EAGAIN)));
        assert!(!is_locked(&error("VFIO_DEVICE_RESET", libc::ENOTTY)));
        assert!(!is_locked(&error("pread", libc::EAGAIN)));
    }
}
