//! Which files V and D were given, by this process's own: what an inspection holds theirs against.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
};

use jailed::{
    handoff::{FIRST_FD, Handoff},
    manifest::{self, DescriptorKind, Role},
};

use crate::inspect::{FileId, GivenFile, memory_file};

/// Of the descriptors that `role` has once it is locked down, those that stand in the list `fds` that it began with.
///
/// # Errors
/// The errno of reading `/proc/self/fd`.
pub(super) fn given(
    role: Role,
    handoff: &Handoff,
    fds: &[BorrowedFd<'_>],
) -> io::Result<Vec<GivenFile>> {
    let in_list = manifest::descriptors(role, handoff).filter_map(|descriptor| {
        let at = usize::try_from(descriptor.number.checked_sub(FIRST_FD)?).ok()?;
        Some((descriptor, fds.get(at)?))
    });
    let in_list = in_list.map(|(descriptor, fd)| {
        let own = fd.as_raw_fd().unsigned_abs();
        let (file, name) = own_file(own)?;
        Ok(GivenFile {
            number: Some(descriptor.number),
            file,
            name,
            keepers: Some(own),
            is_kept: match descriptor.kind {
                // They are reset and given back; the pipes outlive every life of the guest.
                DescriptorKind::Device(_)
                | DescriptorKind::ConsoleOut
                | DescriptorKind::ConsoleIn => true,
                DescriptorKind::Vm
                | DescriptorKind::KvmVfio
                | DescriptorKind::Vcpu(_)
                | DescriptorKind::Error(_)
                | DescriptorKind::Request(_)
                | DescriptorKind::Vector(_)
                | DescriptorKind::Latch(_) => false,
            },
            may_be_closed: false,
        })
    });
    in_list.collect()
}

/// Files of this process that S has by the same numbers, because it had them before the two were split.
///
/// # Errors
/// The errno of reading `/proc/self/fd`.
pub(super) fn inherited(numbers: &[u32], may_be_closed: &[u32]) -> io::Result<Vec<GivenFile>> {
    let inherited = |number: &u32| {
        let (file, name) = own_file(*number)?;
        Ok(GivenFile {
            number: Some(*number),
            file,
            name,
            keepers: None,
            is_kept: false,
            may_be_closed: may_be_closed.contains(number),
        })
    };
    numbers.iter().map(inherited).collect()
}

/// Files of this process that it hands over: who gets them has them by numbers of its own.
///
/// # Errors
/// The errno of reading `/proc/self/fd`.
pub(super) fn handed_over(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<GivenFile>> {
    let handed_over = |fd: &BorrowedFd<'_>| {
        let (file, name) = own_file(fd.as_raw_fd().unsigned_abs())?;
        Ok(GivenFile {
            number: None,
            file,
            name,
            keepers: None,
            is_kept: false,
            may_be_closed: true,
        })
    };
    fds.iter().map(handed_over).collect()
}

/// Memory files that a process maps, by the names that the kernel shows.
///
/// # Errors
/// The errno of reading `/proc/self/fd`.
pub(super) fn memory(files: &[(&str, BorrowedFd<'_>)]) -> io::Result<Vec<(String, FileId)>> {
    let named = |(name, fd): &(&str, BorrowedFd<'_>)| {
        let own = fd.as_raw_fd().unsigned_abs();
        Ok((memory_file(name), FileId::of_own(own)?))
    };
    files.iter().map(named).collect()
}

/// The file; the kernel's name in its place for what it has one inode for all of.
fn own_file(number: u32) -> io::Result<(Option<FileId>, Option<String>)> {
    let target = fs::read_link(format!("/proc/self/fd/{number}"))?;
    let target = target.to_string_lossy();
    if target.starts_with("anon_inode:") {
        return Ok((None, Some(target.into_owned())));
    }
    Ok((Some(FileId::of_own(number)?), None))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::{
        event::{EventfdFlags, eventfd},
        fs::{MemfdFlags, memfd_create},
        pipe::pipe,
    };

    use super::*;

    #[test]
    fn files_of_one_name_are_told_apart_and_eventfds_are_not() {
        let made = || memfd_create("narrows-ring", MemfdFlags::CLOEXEC).unwrap();
        let (one, other) = (made(), made());
        let of = |fd: &std::os::fd::OwnedFd| memory(&[("narrows-ring", fd.as_fd())]).unwrap();
        assert_eq!(of(&one), of(&one.try_clone().unwrap()));
        assert_ne!(of(&one), of(&other));
        assert_eq!(of(&one)[0].0, "/memfd:narrows-ring (deleted)");
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (reader, _writer) = pipe().unwrap();
        let handed = handed_over(&[event.as_fd(), reader.as_fd()]).unwrap();
        assert!(handed[0].file.is_none() && handed[1].file.is_some());
        let name = Some("anon_inode:[eventfd]".to_owned());
        assert_eq!([&handed[0].name, &handed[1].name], [&name, &None]);
    }

    #[test]
    fn d_keeps_what_it_was_given_and_v_makes_its_own() {
        let mut handoff = Handoff::empty();
        (handoff.vcpu_count, handoff.has_console) = (1, 1);
        let (reader, writer) = pipe().unwrap();
        let fds = [
            writer.as_fd(),
            writer.as_fd(),
            writer.as_fd(),
            writer.as_fd(),
            writer.as_fd(),
            reader.as_fd(),
        ];
        let given_to = |role| given(role, &handoff, &fds).unwrap();
        let console = given_to(Role::Device);
        let own = [&writer, &reader].map(|fd| Some(fd.as_raw_fd().unsigned_abs()));
        let theirs: Vec<_> = console.iter().map(|file| file.keepers).collect();
        assert_eq!(theirs, own);
        assert!(
            console
                .iter()
                .all(|file| file.is_kept && file.file.is_some())
        );
        assert_eq!(given(Role::Vcpu, &handoff, &fds[..3]).unwrap(), []);
    }
}
