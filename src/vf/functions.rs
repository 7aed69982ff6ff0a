//! How many VFs there are, which driver they have, and their reset: by sysfs.

use iommu::{
    bdf::Bdf,
    bind,
    clean::ConfigSnapshot,
    error::IommuError,
    topology::{function_path, read_driver, read_driver_override},
};

use super::{
    fault::{self, Call, await_that, while_busy},
    hands::KernelHands,
    network::has_carrier,
};
use crate::sriov::StepFault;

impl KernelHands {
    /// Lets drivers of the host take new VFs, or not.
    pub(super) fn autoprobe(&self, pf: Bdf, on: bool) -> Result<(), StepFault> {
        let doing = format!("set sriov_drivers_autoprobe of {pf}");
        let place = function_path(pf).join("sriov_drivers_autoprobe");
        let text = if on { "1" } else { "0" };
        let unread = |e: IommuError| fault::unread(Call::Bind, &doing, &e);
        self.root.write_text(&place, text).map_err(unread)?;
        let read = self.root.read_text(&place).map_err(unread)?;
        match read == text {
            true => Ok(()),
            false => Err(fault::ignored(&doing, format!("reads {read}"))),
        }
    }

    /// Sets how many VFs a PF has, and waits until they are there, or gone; and until the PF's link is back, which some
    /// drivers take down for it.
    pub(super) fn count(
        &self,
        pf: Bdf,
        count: u32,
        interface: Option<&str>,
    ) -> Result<(), StepFault> {
        let doing = format!("set sriov_numvfs of {pf} to {count}");
        let present = self.numvfs(&doing, pf)?;
        if present != count {
            if present != 0 && count != 0 {
                let evidence = format!("it has {present} VFs, which must go first");
                return Err(fault::found(doing, evidence));
            }
            let had_carrier = interface.is_some_and(|name| has_carrier(&self.root, name));
            let place = function_path(pf).join("sriov_numvfs");
            while_busy(self.patience, || {
                self.root
                    .write_text(&place, &count.to_string())
                    .map_err(|e| fault::unread(Call::Count, &doing, &e))
            })?;
            if let (true, Some(name)) = (had_carrier, interface) {
                // It goes down while the driver makes itself anew, and comes back seconds later.
                std::thread::sleep(fault::PAUSE);
                self.await_carrier(name, self.patience)?;
            }
        }
        let is_so = await_that(self.patience, || {
            let links = self.links(&doing, pf, count)?;
            Ok(links && self.numvfs(&doing, pf)? == count)
        })?;
        match is_so {
            true => Ok(()),
            // Fewer than asked for is a warning in the kernel's log, and no error.
            false => {
                let present = self.numvfs(&doing, pf)?;
                let evidence = format!("sriov_numvfs reads {present}, or not all VFs are there");
                Err(fault::ignored(doing, evidence))
            }
        }
    }

    fn numvfs(&self, doing: &str, pf: Bdf) -> Result<u32, StepFault> {
        let text = self.root.read_text(function_path(pf).join("sriov_numvfs"));
        let text = text.map_err(|e| fault::unread(Call::Count, doing, &e))?;
        text.parse()
            .map_err(|_bad| fault::found(doing, format!("sriov_numvfs holds {text:?}")))
    }

    /// Whether there are `count` links to VFs, no more, and each VF is on the bus.
    fn links(&self, doing: &str, pf: Bdf, count: u32) -> Result<bool, StepFault> {
        for index in 0..count {
            let Some(vf) = self.virtfn(doing, pf, index)? else {
                return Ok(false);
            };
            if !self.root.exists(function_path(vf).join("vendor")) {
                return Ok(false);
            }
        }
        Ok(self.virtfn(doing, pf, count)?.is_none())
    }

    /// The address of a VF.
    fn virtfn(&self, doing: &str, pf: Bdf, index: u32) -> Result<Option<Bdf>, StepFault> {
        let place = function_path(pf).join(format!("virtfn{index}"));
        let name = self.root.read_link_name(place);
        let name = name.map_err(|e| fault::unread(Call::Count, doing, &e))?;
        Ok(name.and_then(|name| name.parse().ok()))
    }

    /// Takes a VF from a driver of the host.
    pub(super) fn unbind(&self, vf: Bdf, driver: &str) -> Result<(), StepFault> {
        let doing = format!("unbind {vf} from {driver}");
        match self.driver(&doing, vf)?.as_deref() {
            None => return Ok(()),
            Some(found) if found == driver => {}
            Some(other) => {
                return Err(fault::found(doing, format!("it is bound to {other}")));
            }
        }
        let place = format!("sys/bus/pci/drivers/{driver}/unbind");
        while_busy(self.patience, || {
            self.root
                .write_text(&place, &vf.to_string())
                .map_err(|e| fault::unread(Call::Bind, &doing, &e))
        })?;
        match self.driver(&doing, vf)? {
            None => Ok(()),
            Some(still) => Err(fault::ignored(doing, format!("it is bound to {still}"))),
        }
    }

    /// Gives a VF to a driver of the host; its override is afterwards what it was.
    pub(super) fn bind(&self, vf: Bdf, driver: &str) -> Result<(), StepFault> {
        let doing = format!("bind {vf} to {driver}");
        match self.driver(&doing, vf)?.as_deref() {
            None => {}
            Some(found) if found == driver => return Ok(()),
            Some(other) => {
                return Err(fault::found(doing, format!("it is bound to {other}")));
            }
        }
        let unread = |e: IommuError| fault::unread(Call::Bind, &doing, &e);
        let before = read_driver_override(&self.root, vf).map_err(unread)?;
        let place = function_path(vf).join("driver_override");
        self.root
            .write_text(&place, &format!("{driver}\n"))
            .map_err(unread)?;
        let probed = while_busy(self.patience, || {
            self.root
                .write_text("sys/bus/pci/drivers_probe", &vf.to_string())
                .map_err(|e| fault::unread(Call::Bind, &doing, &e))
        });
        // An empty line clears it.
        self.root
            .write_text(&place, &format!("{}\n", before.unwrap_or_default()))
            .map_err(unread)?;
        probed?;
        match self.driver(&doing, vf)? {
            Some(found) if found == driver => Ok(()),
            other => Err(fault::ignored(doing, format!("it is bound to {other:?}"))),
        }
    }

    fn driver(&self, doing: &str, vf: Bdf) -> Result<Option<String>, StepFault> {
        read_driver(&self.root, vf).map_err(|e| fault::unread(Call::Bind, doing, &e))
    }

    /// Resets a VF, and looks whether it is silent: no bus master, no message, no transaction pending.
    pub(super) fn reset(
        &self,
        pf: Bdf,
        index: u32,
        expected: Option<Bdf>,
    ) -> Result<Bdf, StepFault> {
        let doing = format!("reset VF {index} of {pf}");
        let vf = self
            .virtfn(&doing, pf, index)?
            .ok_or_else(|| fault::found(&doing, "there is no such VF"))?;
        if let Some(other) = expected.filter(|bdf| *bdf != vf) {
            let evidence = format!("it is {vf} now, and was {other}");
            return Err(fault::found(doing, evidence));
        }
        let driver = self.driver(&doing, vf)?;
        if let Some(driver) = driver.filter(|name| !bind::is_placeholder(name)) {
            return Err(fault::found(doing, format!("it is bound to {driver}")));
        }
        while_busy(self.patience, || {
            bind::reset(&self.root, vf).map_err(|e| fault::unread(Call::Reset, &doing, &e))
        })?;
        let snapshot = ConfigSnapshot::read(&self.root, vf)
            .map_err(|e| fault::unread(Call::Reset, &doing, &e))?;
        let noise = snapshot.noise();
        match noise.is_empty() {
            true => Ok(vf),
            false => Err(fault::ignored(doing, noise.join("; "))),
        }
    }
}
