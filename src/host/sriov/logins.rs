//! Through which address the operator is logged in: what sshd told the shell, which all that the shell starts inherits,
//! but for what `sudo` takes away; so ancestors are asked too.

use std::net::IpAddr;

use iommu::{error::IommuError, sysfs::SysRoot};

use super::uses::{cannot, is_gone};
use crate::sriov::Unread;

/// A login by network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) remote: IpAddr,
    pub(super) local: IpAddr,
    pub(super) source: String,
}

/// More ancestors than any shell has.
const DEPTH: usize = 64;
/// An environment can be longer; what sshd adds stands at its beginning.
const ENVIRON_LIMIT: u64 = 1 << 20;

/// The logins of this process and its ancestors, up to sshd or process 1.
///
/// # Errors
/// An ancestor could not be asked, or one is sshd and nobody below knows the connection.
pub(super) fn read(root: &SysRoot) -> Result<Vec<Login>, Unread> {
    let mut logins: Vec<Login> = Vec::new();
    let mut next = Some("self".to_owned());
    for _ in 0..DEPTH {
        let Some(process) = next else {
            break;
        };
        let stat = match root.read_text_if_any(format!("proc/{process}/stat")) {
            Ok(Some(stat)) => stat,
            // A machine without processes, or an ancestor that has just ended.
            Ok(None) => break,
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(cannot(&error, "who started this process")),
        };
        let Some((name, parent)) = name_and_parent(&stat) else {
            return Err(Unread {
                place: format!("proc/{process}/stat"),
                reason: format!("{stat:?} is no state of a process"),
                bdf: None,
            });
        };
        if name.starts_with("sshd") {
            if logins.is_empty() {
                return Err(Unread {
                    place: format!("proc/{process}/stat"),
                    reason: "sshd started this session, but SSH_CONNECTION is not told".to_owned(),
                    bdf: None,
                });
            }
            break;
        }
        let place = format!("proc/{process}/environ");
        match root.read_bytes(&place, ENVIRON_LIMIT) {
            Ok(bytes) => {
                let login = connection(&bytes, &place);
                logins.extend(login.filter(|one| logins.iter().all(|l| l.local != one.local)));
            }
            // Somebody else's. If it is one of sshd's, that comes out above.
            Err(IommuError::Sysfs { errno, .. })
                if [libc::EACCES, libc::EPERM].contains(&errno.raw()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(cannot(&error, "the login")),
        }
        next = (parent > 1).then(|| parent.to_string());
    }
    Ok(logins)
}

/// `812 (a name) S 1 …`: the name may have spaces and brackets.
fn name_and_parent(stat: &str) -> Option<(&str, u32)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once(" (")?;
    let parent = after.split(' ').nth(1)?.parse().ok()?;
    Some((name, parent))
}

/// `SSH_CONNECTION=10.9.0.2 40000 10.9.0.1 22` of an environment.
fn connection(environ: &[u8], source: &str) -> Option<Login> {
    let line = environ
        .split(|byte| *byte == 0)
        .find_map(|line| line.strip_prefix(b"SSH_CONNECTION="))?;
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let [remote, _, local, _] = words.as_slice() else {
        return None;
    };
    let address = |text: &str| {
        let text = text.split('%').next().unwrap_or(text);
        Some(text.parse::<IpAddr>().ok()?.to_canonical())
    };
    Some(Login {
        remote: address(remote)?,
        local: address(local)?,
        source: format!("SSH_CONNECTION in /{source}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_is_found_among_other_words() {
        let environ = b"TERM=x\0SSH_CONNECTION=::ffff:10.9.0.2 4000 ::ffff:10.9.0.1 22\0A=b\0";
        let login = connection(environ, "proc/9/environ").unwrap();
        assert_eq!(login.local.to_string(), "10.9.0.1");
        assert_eq!(login.remote.to_string(), "10.9.0.2");
        let scoped = b"SSH_CONNECTION=fe80::2%eth0 4000 fe80::1%eth0 22\0";
        assert_eq!(
            connection(scoped, "p").unwrap().local.to_string(),
            "fe80::1"
        );
        assert_eq!(
            connection(b"XSSH_CONNECTION=1.1.1.1 1 1.1.1.1 1\0", "p"),
            None
        );
    }

    #[test]
    fn parent_is_behind_any_name() {
        for (stat, name, parent) in [
            ("812 (bash) S 700 812 812", "bash", 700),
            ("9 (a) b) (c) R 4 1", "a) b) (c", 4),
        ] {
            assert_eq!(name_and_parent(stat), Some((name, parent)));
        }
        assert_eq!(name_and_parent("812 bash S 700"), None);
    }
}
