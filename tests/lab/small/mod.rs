//! The main job on the lab kernel, which has both kernel interfaces: the same tests on each.

mod console;
mod devices;
mod doctor;
mod lives;
mod shapes;
mod storage;
mod traffic;

pub(crate) use self::{storage::assert_nvme, traffic::check_traffic};
use crate::guest::Transcript;

const TYPE1: &str = "interface = \"type1\"";
const IOMMUFD: &str = "interface = \"iommufd\"";

/// Fails unless the guest saw these functions and no other.
fn assert_only_vfs(transcript: &Transcript, ids: &[&str]) {
    assert_eq!(transcript.count("pci"), ids.len(), "{}", transcript.text());
    for id in ids {
        transcript.facts("pci", &format!("id={id}"));
    }
}
