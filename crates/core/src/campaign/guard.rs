//! What stands between a key version and its revocation (design 3, invariant 2): a pure function of what one transaction
//! read. Nothing in it is a flag that somebody set: Holdings, evidence, what the provider saw, promises and agreement.

use std::fmt;

use crate::Timestamp;
use crate::binding::{Assignment, BindingId};
use crate::id::{EnrolmentId, KeyVersion};

/// How many bindings a sentence names.
const NAMED: usize = 3;

/// Everything that is known when a version is to die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The moment.
    pub now: Timestamp,
    /// The version that is to die.
    pub version: KeyVersion,
    /// Whose Holding of it is open: it may have it, wherever it is.
    pub holders: Vec<BindingId>,
    /// Every binding that uses the Key or is to use it.
    pub users: Vec<User>,
    /// How old evidence may be, in seconds; `None` while nothing is to be revoked yet: then its age says nothing.
    pub evidence_secs: Option<i64>,
    /// What the provider saw of the version; `None` where it does not tell: then quiet is no condition, and the report says
    /// that it was inferred.
    pub seen: Option<Seen>,
    /// Until then a rollback may need it: the promise that was made when the new version was everywhere.
    pub rollback_until: Option<Timestamp>,
    /// How many agreed.
    pub approvals: u32,
    /// How many have to.
    pub approvals_needed: u32,
    /// True once the version is RETIRING: then every connected agent must have confirmed a generation that came after.
    pub is_fenced: bool,
}

/// A binding that uses the Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Which.
    pub id: BindingId,
    /// Its agent is connected.
    pub is_online: bool,
    /// Nothing was heard of it since a backup was restored: which version it was sent meanwhile is not known.
    pub is_unheard: bool,
    /// The version that its desired state names.
    pub told: Option<KeyVersion>,
    /// What it runs, as its agent saw it.
    pub running: Option<Assignment>,
    /// The enrolment that its agent has now.
    pub enrolment: EnrolmentId,
    /// Its evidence of what it runs.
    pub evidence: Option<Proof>,
    /// Its agent confirmed the fence's generation or a later one, and has no write under way.
    pub confirmed_fence: bool,
}

/// A live call, as its row of evidence has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// With what.
    pub assignment: Assignment,
    /// Seen by this enrolment.
    pub enrolment: EnrolmentId,
    /// When the call began.
    pub at: Timestamp,
}

/// What the provider saw of the version that is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Uses count from here: when everything was told another version, and what was under way had ended.
    pub since: Timestamp,
    /// The last use that it tells of.
    pub last_use: Option<Timestamp>,
    /// Uses up to here are in what it tells: it lags behind.
    pub covered_until: Timestamp,
    /// How long nobody may have used it, in seconds.
    pub quiet_secs: i64,
}

/// One thing that stands between a version and its revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// These may still have it.
    Held(Vec<BindingId>),
    /// These are told to have it.
    Named(Vec<BindingId>),
    /// Nothing was heard of these since a backup was restored: Holdings may be missing.
    Unheard(Vec<BindingId>),
    /// These are connected, and nothing proves what they run now.
    Unproven(Vec<BindingId>),
    /// The last proof of these is older than it may be.
    Stale(Vec<BindingId>, i64),
    /// Somebody used it then, although everybody was told another one.
    InUse(Timestamp),
    /// Nobody knows yet whether it was quiet for long enough: it is known at this time at the earliest.
    NotQuietYet(Timestamp),
    /// A rollback may need it until then.
    RollbackPossible(Timestamp),
    /// Not enough people agreed.
    Approvals {
        /// How many did.
        have: u32,
        /// How many have to.
        needed: u32,
    },
    /// These are connected and have not confirmed that they may name it no more.
    FenceUnconfirmed(Vec<BindingId>),
}

/// Everything that stands in the way, the gravest first; nothing = it may be revoked.
pub fn blockers(case: &Case) -> Vec<Blocker> {
    let mut found = Vec::new();
    let mut push = |bindings: Vec<BindingId>, blocker: fn(Vec<BindingId>) -> Blocker| {
        if !bindings.is_empty() {
            found.push(blocker(bindings));
        }
    };
    push(case.holders.clone(), Blocker::Held);
    push(
        case.those(|user| user.told == Some(case.version)),
        Blocker::Named,
    );
    push(case.those(|user| user.is_unheard), Blocker::Unheard);
    push(
        case.online(|user| user.proven(case.version).is_none()),
        Blocker::Unproven,
    );
    if case.is_fenced {
        push(
            case.online(|user| !user.confirmed_fence),
            Blocker::FenceUnconfirmed,
        );
    }
    found.extend(case.stale());
    found.extend(case.noise());
    let promised = case.rollback_until.filter(|until| case.now < *until);
    found.extend(promised.map(Blocker::RollbackPossible));
    if case.approvals < case.approvals_needed {
        found.push(Blocker::Approvals {
            have: case.approvals,
            needed: case.approvals_needed,
        });
    }
    found
}

impl Case {
    /// The bindings that are so.
    fn those(&self, is_so: impl Fn(&User) -> bool) -> Vec<BindingId> {
        let those = self.users.iter().filter(|user| is_so(user));
        those.map(|user| user.id.clone()).collect()
    }

    /// The bindings of connected agents that are so. Who is away makes no calls: an open Holding is what tells of it.
    fn online(&self, is_so: impl Fn(&User) -> bool) -> Vec<BindingId> {
        self.those(|user| user.is_online && is_so(user))
    }

    fn stale(&self) -> Option<Blocker> {
        let secs = self.evidence_secs?;
        let is_old = |user: &User| {
            let proof = user.proven(self.version);
            proof.is_some_and(|proof| self.now.as_second() - proof.at.as_second() > secs)
        };
        let stale = self.online(is_old);
        (!stale.is_empty()).then_some(Blocker::Stale(stale, secs))
    }

    /// That nothing is heard of a use is only worth something once it would have been heard.
    fn noise(&self) -> Option<Blocker> {
        let seen = self.seen?;
        let used = seen.last_use.filter(|at| *at >= seen.since);
        let known_at = used.unwrap_or(seen.since).as_second();
        let known_at = known_at.saturating_add(seen.quiet_secs);
        if seen.covered_until.as_second() >= known_at {
            return None;
        }
        let known_at = Timestamp::from_second(known_at).unwrap_or(Timestamp::MAX);
        Some(used.map_or(Blocker::NotQuietYet(known_at), Blocker::InUse))
    }
}

impl User {
    /// Its evidence, where it counts: of what it runs, by the agent that runs it, and not with the one that is to die.
    fn proven(&self, dying: KeyVersion) -> Option<&Proof> {
        self.evidence.as_ref().filter(|proof| {
            Some(proof.assignment) == self.running
                && proof.assignment.key_version != dying
                && proof.enrolment == self.enrolment
        })
    }
}

impl Blocker {
    /// Whom it concerns.
    pub fn bindings(&self) -> &[BindingId] {
        match self {
            Self::Held(bindings)
            | Self::Named(bindings)
            | Self::Unheard(bindings)
            | Self::Unproven(bindings)
            | Self::Stale(bindings, _)
            | Self::FenceUnconfirmed(bindings) => bindings,
            Self::InUse(_)
            | Self::NotQuietYet(_)
            | Self::RollbackPossible(_)
            | Self::Approvals { .. } => &[],
        }
    }

    /// The sentence for people. `name` says what they call a binding; `None` for one that they may not see.
    pub fn sentence(&self, name: impl Fn(&BindingId) -> Option<String>) -> String {
        let who = Who::new(self.bindings(), name);
        match self {
            Self::Held(_) => format!("{who} may still have it"),
            Self::Named(_) => format!("{who} shall have it, as its desired state says"),
            Self::Unheard(_) => {
                format!("nothing was heard of {who} since a backup was restored")
            }
            Self::Unproven(_) => format!("no live call proves what {who} runs now"),
            Self::Stale(_, secs) => {
                format!("the last proof of {who} is older than {} min", secs / 60)
            }
            Self::FenceUnconfirmed(_) => {
                format!("the agent of {who} has not confirmed that it is retiring")
            }
            Self::InUse(at) => {
                format!("somebody used it at {at}, when every connector was told another one")
            }
            Self::NotQuietYet(at) => format!("the provider can say at {at} that nobody used it"),
            Self::RollbackPossible(until) => format!("a rollback may need it until {until}"),
            Self::Approvals { have, needed } => {
                format!("{have} of {needed} people have agreed that it is revoked")
            }
        }
    }
}

/// Some bindings in words: a few by name, the rest as a number.
struct Who {
    named: Vec<String>,
    others: usize,
}

impl Who {
    fn new(bindings: &[BindingId], name: impl Fn(&BindingId) -> Option<String>) -> Self {
        let named: Vec<String> = bindings.iter().filter_map(name).take(NAMED).collect();
        let others = bindings.len() - named.len();
        Self { named, others }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.named.join(", ");
        match (self.named.is_empty(), self.others) {
            (false, 0) => f.write_str(&named),
            (false, others) => write!(f, "{named} and {others} more"),
            (true, 1) => f.write_str("1 binding"),
            (true, others) => write!(f, "{others} bindings"),
        }
    }
}

#[cfg(test)]
mod tests;
