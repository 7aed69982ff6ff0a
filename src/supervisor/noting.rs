//! The processes of a guest's life, written into its run's journal as they are started.
//!
//! On exit of [`Noting::note`]: the process is in the journal on the disk. The next one is started only then, so that a keeper
//! which is killed in between leaves none that is not known.

use iommu::sysfs::SysRoot;

use super::fault::Fault;
use crate::state::{Journal, ProcessId};

/// The journal of a run, while V and D are started.
#[derive(Debug)]
pub(super) struct Noting<'a> {
    journal: Option<&'a mut Journal>,
    root: &'a SysRoot,
    noted: Vec<ProcessId>,
}

impl<'a> Noting<'a> {
    /// Where a run without a journal notes nothing. What is there of an earlier life is replaced by the first process.
    pub(super) const fn new(journal: Option<&'a mut Journal>, root: &'a SysRoot) -> Self {
        Self {
            journal,
            root,
            noted: Vec::new(),
        }
    }

    /// Writes down one more process of this life, at once: whoever is killed next, it is known to who puts things right.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub(super) fn note(&mut self, pid: u32) -> Result<(), Fault> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        // One that has ended already is noticed elsewhere.
        let found = ProcessId::of(self.root, pid);
        found
            .map(|found| self.noted.extend(found))
            .and_then(|()| {
                let noted = self.noted.clone();
                journal.update(|changes| changes.processes = noted)
            })
            .map_err(Fault::io("writing a process into the journal"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use iommu::fake::FakeHost;

    use super::*;
    use crate::state::{Changes, Left, State};

    /// What the journal on the disk has of processes.
    fn processes(state: &State, root: &SysRoot) -> Vec<u32> {
        let left = state.left_behind(root).unwrap();
        let [Left::Dead(remains)] = left.as_slice() else {
            panic!("{left:?}");
        };
        let found = remains.changes().processes.iter();
        found.map(|process| process.pid).collect()
    }

    #[test]
    fn each_process_is_in_the_journal_before_the_next_is_started() {
        let folder = std::env::temp_dir().join(format!("narrows-noting-{}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        let stat = "(narrows-device) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20";
        let root = [8, 9, 10]
            .iter()
            .fold(FakeHost::new(folder.join("root")), |host, pid| {
                host.file(&format!("proc/{pid}/stat"), &format!("{pid} {stat}\n"))
            })
            .write()
            .unwrap();
        let state = State::new(folder.join("state"));
        let owner = ProcessId { pid: 7, start: 77 };
        let changes = Changes::new("web", owner, "boot-1", Vec::new(), None);
        let mut journal = Journal::begin(&state, changes).unwrap();
        for life in [[8, 9], [10, 9]] {
            let mut noting = Noting::new(Some(&mut journal), &root);
            noting.note(life[0]).unwrap();
            assert_eq!(processes(&state, &root), life[..1]);
            noting.note(life[1]).unwrap();
            assert_eq!(processes(&state, &root), life);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
