//! The kernel's command line, as far as it is this program's.

use std::net::Ipv4Addr;

use crate::mark;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Seconds without a mark.
    Pause(u64),
    /// The work of this index, so many units.
    Work(u32, u64),
}

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The address, and the length of its network's prefix.
    pub net: Option<(Ipv4Addr, u8)>,
    pub steps: Vec<Step>,
}

impl Words {
    /// Takes a command line apart; what is not ours is the kernel's.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = Self::default();
        for word in line.split_ascii_whitespace() {
            if let Some(net) = word.strip_prefix("bench.net=") {
                words.net = Some(parse_net(net).ok_or_else(|| format!("{net} is no address"))?);
            } else if let Some(steps) = word.strip_prefix("bench.do=") {
                for step in steps.split(',').filter(|step| !step.is_empty()) {
                    let step = parse_step(step).ok_or_else(|| format!("{step} is no work"))?;
                    words.steps.push(step);
                }
            }
        }
        Ok(words)
    }
}

fn parse_net(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((address.parse().ok()?, prefix))
}

fn parse_step(text: &str) -> Option<Step> {
    let (name, count) = text.split_once(':')?;
    let count = count.parse().ok()?;
    if name == "pause" {
        return Some(Step::Pause(count));
    }
    let index = mark::WORKS.iter().position(|work| *work == name)?;
    Some(Step::Work(u32::try_from(index).ok()?, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_done_in_the_order_of_the_line() {
        let words = Words::parse(
            "console=ttyS0 bench.net=10.9.0.2/24 bench.do=pause:3,config-read:1024,idle:2 panic=-1",
        );
        let expected = Words {
            net: Some((Ipv4Addr::new(10, 9, 0, 2), 24)),
            steps: vec![Step::Pause(3), Step::Work(0, 1024), Step::Work(6, 2)],
        };
        assert_eq!(words, Ok(expected));
    }

    #[test]
    fn every_work_has_its_name() {
        for (index, name) in (0..).zip(mark::WORKS) {
            assert_eq!(parse_step(&format!("{name}:7")), Some(Step::Work(index, 7)));
        }
    }

    #[test]
    fn what_is_no_work_is_refused() {
        for line in ["bench.do=dance:1", "bench.do=idle", "bench.do=idle:x"] {
            assert!(Words::parse(line).is_err(), "{line}");
        }
        for line in [
            "bench.net=10.9.0.2",
            "bench.net=10.9.0.2/33",
            "bench.net=/8",
        ] {
            assert!(Words::parse(line).is_err(), "{line}");
        }
    }
}
