//! What Landlock is asked to deny: everything that the running kernel can deny, also what was added after this was built.
//!
//! S asks by its own calls, V and D by theirs; both ask here for what, so that the three are under the same. A table of
//! versions would know the rights of the headers it was written from and leave a newer kernel's open. The rights are
//! numbered without holes, and the kernel refuses those that it does not know: so it is asked.

/// What a ruleset handles; a kernel that knows fewer words takes those that are zero.
///
/// *Source:* `include/uapi/linux/landlock.h, struct landlock_ruleset_attr (v6.12)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Rights on files.
    pub files: u64,
    /// Rights on TCP ports.
    pub net: u64,
    /// What reaches outside: abstract sockets, signals.
    pub scopes: u64,
}

const _: () = assert!(size_of::<Ruleset>() == 24);

impl Ruleset {
    /// All that a kernel denies, of which `is_taken` tells whether it makes such a ruleset.
    ///
    /// # Errors
    /// Those of `is_taken`: what is not "no such right".
    pub fn widest<E>(mut is_taken: impl FnMut(&Self) -> Result<bool, E>) -> Result<Self, E> {
        let mut widest = Self::default();
        widest.files = longest(|files| is_taken(&Self { files, ..widest }))?;
        widest.net = longest(|net| is_taken(&Self { net, ..widest }))?;
        widest.scopes = longest(|scopes| is_taken(&Self { scopes, ..widest }))?;
        Ok(widest)
    }
}

/// The longest row of bits from 0 on that is taken.
fn longest<E>(mut is_taken: impl FnMut(u64) -> Result<bool, E>) -> Result<u64, E> {
    let mut known = 0_u64;
    loop {
        let more = known << 1 | 1;
        if more == known || !is_taken(more)? {
            return Ok(known);
        }
        known = more;
    }
}

#[cfg(test)]
mod tests {
    use super::Ruleset;

    /// Of a kernel with so many rights.
    fn widest(files: u32, net: u32, scopes: u32) -> Ruleset {
        let bits = |count: u32| (1_u64 << count) - 1;
        let is_taken = |asked: &Ruleset| {
            let is_known = |asked: u64, count| asked & !bits(count) == 0;
            Ok::<_, ()>(
                is_known(asked.files, files)
                    && is_known(asked.net, net)
                    && is_known(asked.scopes, scopes),
            )
        };
        Ruleset::widest(is_taken).unwrap()
    }

    /// Versions 1 to 6, and kernels that know more than any header of today.
    #[test]
    fn every_kernel_is_asked_for_all_that_it_knows() {
        for (counts, files, net, scopes) in [
            ((13, 0, 0), 0x1FFF, 0, 0),
            ((14, 0, 0), 0x3FFF, 0, 0),
            ((15, 0, 0), 0x7FFF, 0, 0),
            ((15, 2, 0), 0x7FFF, 3, 0),
            ((16, 2, 0), 0xFFFF, 3, 0),
            ((16, 2, 2), 0xFFFF, 3, 3),
            ((17, 4, 5), 0x1_FFFF, 0xF, 0x1F),
            ((40, 33, 20), (1 << 40) - 1, (1 << 33) - 1, (1 << 20) - 1),
        ] {
            let found = widest(counts.0, counts.1, counts.2);
            let meant = Ruleset { files, net, scopes };
            assert_eq!(found, meant, "{counts:?}");
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_asking() {
        assert_eq!(Ruleset::widest(|_| Err(12)), Err(12));
    }
}
