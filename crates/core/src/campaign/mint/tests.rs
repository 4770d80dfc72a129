//! Every order of crashes, lost answers, late effects and foreign writes, breadth first.

use std::collections::BTreeSet;

use super::*;

const NAME: &str = "keyfleet-openai-2-01";
const BEFORE: KeyVersion = KeyVersion(1);

/// Control, the provider and Vault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    now: i64,
    known: Known,
    /// The live accounts of the intent's name.
    accounts: Vec<AccountId>,
    stored: Stored,
    /// Was asked, has no answer, and may be done later.
    late_create: bool,
    late_store: Option<AccountId>,
    created: u32,
    crashes_left: u32,
    foreign_left: u32,
    ended: Option<Outcome>,
}

fn account(number: u32) -> AccountId {
    AccountId(format!("svc_acct_{number}"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            known: Known {
                intent: None,
                hand: Hand::Lost(at(0)),
                look: None,
            },
            accounts: Vec::new(),
            stored: Stored {
                version: BEFORE,
                account: None,
            },
            late_create: false,
            late_store: None,
            created: 0,
            crashes_left: 3,
            foreign_left: 2,
            ended: None,
        }
    }

    fn step(&self) -> Step {
        next(&self.known, at(self.now))
    }

    /// The world changed so, and what control saw last is old where it did something.
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    fn lose(&mut self) {
        self.known.hand = Hand::Lost(at(self.now));
        self.known.look = None;
    }

    fn create(&mut self) -> AccountId {
        self.created += 1;
        let new = account(self.created);
        self.accounts.push(new.clone());
        new
    }

    /// Check-and-set: false where somebody else was first.
    fn store(&mut self, account: &AccountId) -> bool {
        let is_first = self.stored.version == BEFORE;
        if is_first {
            self.stored = Stored {
                version: KeyVersion(BEFORE.0 + 1),
                account: Some(account.clone()),
            };
        }
        is_first
    }

    /// Everything that the step may come to.
    fn done(&self, step: Step) -> Vec<Self> {
        match step {
            Step::Intend => vec![self.with(|w| {
                w.known.intent = Some(Intent {
                    name: NAME.to_owned(),
                    before: BEFORE,
                });
                w.known.hand = Hand::Fresh;
            })],
            Step::Create => self.creates(),
            Step::Store(account) => self.stores(&account),
            Step::Look => vec![self.with(|w| {
                w.known.look = Some(Look {
                    at: at(w.now),
                    accounts: w.accounts.clone(),
                    stored: w.stored.clone(),
                });
            })],
            Step::Delete(gone) => {
                let delete = |w: &mut Self| {
                    w.accounts.retain(|a| *a != gone);
                    w.known.look = None;
                };
                vec![self.with(delete), self.with(|w| w.known.look = None)]
            }
            // Requests do not live as long as that.
            Step::Wait(until) => vec![self.with(|w| {
                w.now = until.as_second();
                w.late_create = false;
                w.late_store = None;
            })],
            Step::End(outcome) => vec![self.with(|w| w.ended = Some(outcome))],
        }
    }

    fn creates(&self) -> Vec<Self> {
        vec![
            self.with(|w| {
                let new = w.create();
                w.known.hand = Hand::Value(new);
            }),
            self.with(|w| w.known.hand = Hand::Refused),
            // No answer: done, not done, or done later.
            self.with(|w| {
                w.create();
                w.lose();
            }),
            self.with(Self::lose),
            self.with(|w| {
                w.late_create = true;
                w.lose();
            }),
        ]
    }

    fn stores(&self, account: &AccountId) -> Vec<Self> {
        vec![
            self.with(|w| match w.store(account) {
                true => w.known.hand = Hand::Written(account.clone(), w.stored.version),
                false => w.lose(),
            }),
            // Vault was sealed: the value is still in hand.
            self.clone(),
            self.with(|w| {
                w.store(account);
                w.lose();
            }),
            self.with(Self::lose),
            self.with(|w| {
                w.late_store = Some(account.clone());
                w.lose();
            }),
        ]
    }

    /// What may happen at any moment.
    fn troubles(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if self.late_create {
            next.push(self.with(|w| {
                w.create();
                w.late_create = false;
            }));
        }
        if let Some(account) = &self.late_store {
            next.push(self.with(|w| {
                w.store(account);
                w.late_store = None;
            }));
        }
        if self.crashes_left > 0 {
            // Before the step, and after it without its answer: the request goes on alone.
            let crash = |w: &mut Self| {
                w.crashes_left -= 1;
                w.lose();
            };
            next.push(self.with(crash));
            next.extend(self.done(self.step()).iter().map(|w| w.with(crash)));
        }
        if self.foreign_left > 0 {
            next.push(self.with(|w| {
                w.foreign_left -= 1;
                w.stored.version.0 += 1;
                w.stored.account = None;
            }));
        }
        next
    }

    /// What must hold at every moment.
    fn check(&self) {
        assert!(self.accounts.len() <= 1, "two keys at once: {self:#?}");
        assert!(self.created <= 1, "one intent is one try: {self:#?}");
        let Some(outcome) = &self.ended else { return };
        let pending = self.late_create || self.late_store.is_some();
        match outcome {
            Outcome::Minted(version, account) => {
                assert_eq!(
                    self.accounts,
                    std::slice::from_ref(account),
                    "adopted a dead key"
                );
                assert!(!pending, "{self:#?}");
                // Or somebody wrote after it, which is the next version.
                let is_newest = self.stored.account.as_ref() == Some(account);
                assert!(is_newest || self.stored.version > *version, "{self:#?}");
            }
            Outcome::Nothing => {
                assert!(
                    self.accounts.is_empty() && !pending,
                    "left behind: {self:#?}"
                );
                assert_eq!(self.stored.account, None, "a dead key in Vault: {self:#?}");
            }
            Outcome::Overtaken(version) => {
                assert!(
                    self.accounts.is_empty() && !pending,
                    "left behind: {self:#?}"
                );
                assert_eq!(self.stored.account, None, "it is our own: {self:#?}");
                assert!(*version > BEFORE);
            }
        }
    }

    /// The steps to the end once nothing goes wrong any more.
    fn calm(&self) -> u32 {
        let (mut world, mut steps) = (self.clone(), 0);
        while world.ended.is_none() {
            world = world.done(world.step()).remove(0);
            steps += 1;
            assert!(steps < 12, "it does not end from {self:#?}");
        }
        steps
    }
}

#[test]
fn whatever_goes_wrong_no_key_is_lost_doubled_or_left_behind() {
    let mut open = vec![World::new()];
    let mut seen: BTreeSet<World> = open.iter().cloned().collect();
    let mut ends: BTreeSet<String> = BTreeSet::new();
    while let Some(world) = open.pop() {
        world.check();
        world.calm();
        if let Some(outcome) = &world.ended {
            let name = format!("{outcome:?}");
            ends.insert(name.chars().take_while(|c| c.is_alphabetic()).collect());
            continue;
        }
        for next in [world.done(world.step()), world.troubles()].concat() {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    assert_eq!(ends, ["Minted", "Nothing", "Overtaken"]);
    assert!(seen.len() > 800, "only {} states", seen.len());
}

#[test]
fn with_every_answer_it_takes_four_steps_and_no_look() {
    let mut world = World::new();
    let mut steps = Vec::new();
    while world.ended.is_none() {
        let step = world.step();
        steps.push(step.clone());
        world = world.done(step).remove(0);
    }
    let minted = Outcome::Minted(KeyVersion(2), account(1));
    assert_eq!(
        steps,
        [
            Step::Intend,
            Step::Create,
            Step::Store(account(1)),
            Step::End(minted)
        ]
    );
}

#[test]
fn a_value_that_reached_vault_is_adopted_without_waiting() {
    let mut world = World::new();
    for _ in 0..3 {
        world = world.done(world.step()).remove(0);
    }
    world.lose();
    world = world.done(world.step()).remove(0);
    let minted = Outcome::Minted(KeyVersion(2), account(1));
    assert_eq!(world.step(), Step::End(minted));
}
