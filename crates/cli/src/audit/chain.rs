//! The chain of hashes: each entry follows the one before it, and is what was hashed.

use keyfleet_core::Timestamp;
use keyfleet_core::audit::{Entry, Hash};
use sha2::{Digest as _, Sha256};

use super::{Anchor, Error, Link, NO_HASH};

/// A log that is checked link by link.
#[derive(Debug)]
pub(crate) struct Chain {
    anchors: Vec<Anchor>,
    first: Option<(u64, Timestamp)>,
    head: Option<(Anchor, Timestamp)>,
}

impl Chain {
    /// An empty log that must hold these entries.
    pub(crate) fn new(anchors: Vec<Anchor>) -> Self {
        Self {
            anchors,
            first: None,
            head: None,
        }
    }

    /// Checks the next link.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn push(&mut self, link: &Link) -> Result<(), Error> {
        let number = link.entry.number;
        match &self.head {
            Some((head, _)) => follows(link, head)?,
            None => self.begins(link)?,
        }
        if hash(&link.entry, &link.previous) != link.hash {
            return Err(Error::Hash { number });
        }
        let contradicts = |anchor: &Anchor| anchor.number == number && anchor.hash != link.hash;
        if self.anchors.iter().any(contradicts) {
            return Err(Error::Anchor { number });
        }
        let head = Anchor {
            number,
            hash: link.hash,
        };
        self.first.get_or_insert((number, link.entry.at));
        self.head = Some((head, link.entry.at));
        Ok(())
    }

    /// A log may begin later than at 1 where the hash before its beginning was noted.
    fn begins(&self, link: &Link) -> Result<(), Error> {
        let number = link.entry.number;
        let before = match number {
            0 => {
                return Err(Error::Gap {
                    expected: 1,
                    found: 0,
                });
            }
            1 => Some(NO_HASH),
            _ => self
                .anchors
                .iter()
                .find(|anchor| anchor.number == number - 1)
                .map(|anchor| anchor.hash),
        };
        match before {
            Some(hash) if hash == link.previous => Ok(()),
            Some(_) => Err(Error::Previous { number }),
            None => Err(Error::Beginning { first: number }),
        }
    }

    /// What was checked, once the log has ended.
    ///
    /// # Errors
    /// Where the log ends before an entry whose hash was noted.
    pub(crate) fn finish(self) -> Result<Checked, Error> {
        let last = self.head.as_ref().map_or(0, |(head, _)| head.number);
        let cut = self.anchors.iter().find(|anchor| anchor.number > last);
        if let Some(anchor) = cut {
            return Err(Error::Cut {
                last,
                number: anchor.number,
            });
        }
        Ok(Checked {
            first: self.first,
            head: self.head,
        })
    }
}

/// A log in which everything is right.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Number and time of its first entry.
    pub(crate) first: Option<(u64, Timestamp)>,
    /// Its last entry and the time of it.
    pub(crate) head: Option<(Anchor, Timestamp)>,
}

impl Checked {
    /// How many entries there are.
    pub(crate) fn n_entries(&self) -> u64 {
        match (self.first, &self.head) {
            (Some((first, _)), Some((head, _))) => head.number - first + 1,
            _ => 0,
        }
    }
}

fn follows(link: &Link, head: &Anchor) -> Result<(), Error> {
    let number = link.entry.number;
    let expected = head.number.saturating_add(1);
    if number != expected {
        return Err(Error::Gap {
            expected,
            found: number,
        });
    }
    if link.previous != head.hash {
        return Err(Error::Previous { number });
    }
    Ok(())
}

fn hash(entry: &Entry, previous: &Hash) -> Hash {
    Sha256::digest(entry.hashed_bytes(previous)).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use keyfleet_core::audit::{HASH_BYTES, Outcome};

    /// A right log of so many entries.
    pub(crate) fn log(n_entries: u64) -> Vec<Link> {
        let mut previous = NO_HASH;
        let mut links = Vec::new();
        for number in 1..=n_entries {
            let nanos = i32::try_from(number).unwrap() * 1_001;
            let entry = Entry {
                number,
                at: Timestamp::new(1_795_000_000, nanos).unwrap(),
                principal: "ada".to_owned(),
                token: "0192f3a4".to_owned(),
                action: "deployment.suspend".to_owned(),
                target: "deployment kibana-ä".to_owned(),
                outcome: [Outcome::Refused, Outcome::Done][usize::try_from(number % 2).unwrap()],
                reason: "lost\n\"laptop\" \u{7f}".to_owned(),
                detail: String::new(),
            };
            let own = hash(&entry, &previous);
            links.push(Link {
                entry,
                previous,
                hash: own,
            });
            previous = own;
        }
        links
    }

    fn anchor(link: &Link) -> Anchor {
        Anchor {
            number: link.entry.number,
            hash: link.hash,
        }
    }

    fn check(links: &[Link], anchors: Vec<Anchor>) -> Result<Checked, Error> {
        let mut chain = Chain::new(anchors);
        links.iter().try_for_each(|link| chain.push(link))?;
        chain.finish()
    }

    #[test]
    fn a_right_log_is_right_and_its_head_is_an_anchor() {
        let log = log(5);
        let checked = check(&log, vec![anchor(&log[2])]).unwrap();
        assert_eq!(checked.n_entries(), 5);
        let head = checked.head.unwrap().0;
        assert_eq!(head, anchor(&log[4]));
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_eq!(check(&[], vec![]).unwrap().n_entries(), 0);
        // A part of it is as good as the hash before it.
        assert!(check(&log[2..], vec![anchor(&log[1])]).is_ok());
        for bad in [
            "",
            "1",
            "1:ab",
            "0:",
            ":",
            "x:y",
            &format!("0:{}", "0".repeat(64)),
        ] {
            assert!(bad.parse::<Anchor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_way_to_break_a_log_is_named_with_the_first_bad_entry() {
        let fails = |change: &dyn Fn(&mut Vec<Link>), anchors: Vec<Anchor>, expect: Error| {
            let mut links = log(5);
            change(&mut links);
            assert_eq!(check(&links, anchors).unwrap_err(), expect);
        };
        let changed = |links: &mut Vec<Link>| links[2].entry.reason = "theft".to_owned();
        fails(&changed, vec![], Error::Hash { number: 3 });
        fails(
            &|links| links[2].entry.at = Timestamp::new(1_795_000_000, 3_004).unwrap(),
            vec![],
            Error::Hash { number: 3 },
        );
        fails(
            &|links| {
                changed(links);
                links[2].hash = hash(&links[2].entry, &links[2].previous);
            },
            vec![],
            Error::Previous { number: 4 },
        );
        fails(
            &|links| drop(links.remove(2)),
            vec![],
            Error::Gap {
                expected: 3,
                found: 4,
            },
        );
        fails(
            &|links| links.insert(2, links[1].clone()),
            vec![],
            Error::Gap {
                expected: 3,
                found: 2,
            },
        );
        fails(
            &|links| links.swap(2, 3),
            vec![],
            Error::Gap {
                expected: 3,
                found: 4,
            },
        );
        fails(
            &|links| drop(links.remove(0)),
            vec![],
            Error::Beginning { first: 2 },
        );
        fails(
            &|links| links.truncate(3),
            vec![anchor(&log(5)[4])],
            Error::Cut { last: 3, number: 5 },
        );
        // Somebody wrote the whole log anew from entry 3 on.
        let mut noted = anchor(&log(5)[3]);
        noted.hash = [7; HASH_BYTES];
        fails(&|_| {}, vec![noted], Error::Anchor { number: 4 });
        noted.number = 1;
        fails(
            &|links| drop(links.remove(0)),
            vec![noted],
            Error::Previous { number: 2 },
        );
    }
}
