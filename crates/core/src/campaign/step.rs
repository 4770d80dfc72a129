//! What a campaign does next: a pure function of where it is and what was found, as the plan of a rollout is.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::BindingId;
use crate::id::{CampaignId, KeyVersion};
use crate::key::KeyState;

use super::guard::{Blocker, blockers};
use super::{Case, Course, Event, State};

/// How often in a row the provider has to refuse a key until it counts as dead: caches at the provider may still answer
/// for a key that was deleted a moment ago, and one refusal may be a mistake.
pub const REFUSALS_NEEDED: u32 = 3;

/// A campaign, so far as its next step depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Where it is.
    pub state: State,
    /// Where it stopped, while it is HALTED.
    pub stopped: Option<State>,
    /// What it is up to.
    pub course: Course,
    /// What it replaces; `None` where there was nothing.
    pub old: Option<KeyVersion>,
    /// What it brings; `None` = not there yet.
    pub new: Option<KeyVersion>,
    /// What it was to bring, or to replace, before a newer version overtook it: these die with the rest.
    pub overtaken: BTreeSet<KeyVersion>,
    /// Why it is held, or was given up; else empty.
    pub reason: String,
}

/// What was found, read in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Somebody stopped the whole fleet.
    pub is_andon: bool,
    /// Another campaign of the Key that goes first.
    pub first: Option<CampaignId>,
    /// The newest version that Vault has.
    pub newest: Option<KeyVersion>,
    /// Where a person writes the next version.
    pub place: String,
    /// The state of what it brings.
    pub new_state: Option<KeyState>,
    /// What the provider said of versions when control tried them.
    pub trials: BTreeMap<KeyVersion, Trial>,
    /// How many bindings use the Key.
    pub users: usize,
    /// How many of them have proven what they are to have.
    pub proven: usize,
    /// Why the rollouts that bring it do not go on, a sentence each.
    pub held_up: Vec<String>,
    /// What the guard is asked for each version that is to die.
    pub cases: Vec<Case>,
}

/// What the provider said when control tried a version itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It works.
    Works,
    /// It was refused, so often in a row.
    Refused(u32),
    /// It is no dead key, and no connector would work with it; why, in words.
    Unfit(String),
    /// That cannot be told from here; why, in words.
    Unknown(String),
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This happened; why, in words for the history.
    Go(Event, String),
    /// Try these versions at the provider.
    Try(BTreeSet<KeyVersion>),
    /// Nothing, because of these.
    Wait(Vec<Wait>),
}

/// Why a campaign waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Somebody stopped the whole fleet.
    Andon,
    /// Somebody, or something, stopped it.
    Held(String),
    /// Another campaign of the Key goes first.
    Before(CampaignId),
    /// A person has to write a new version there.
    Write(String),
    /// The provider is asked about this version.
    Trial(KeyVersion),
    /// So many bindings have proven what they are to have, of so many.
    Spread {
        /// How many have.
        proven: usize,
        /// Of how many.
        of: usize,
    },
    /// A rollout does not go on.
    HeldUp(String),
    /// Something stands between this version and its revocation.
    Blocked(KeyVersion, Blocker),
    /// A person has to revoke these at the provider and say so.
    RevokeByHand(BTreeSet<KeyVersion>),
    /// It still works, although it is said to be revoked.
    StillAlive(KeyVersion),
    /// It was refused so often in a row.
    Dying(KeyVersion, u32),
}

impl Campaign {
    /// The versions that are to die.
    pub fn dying(&self) -> BTreeSet<KeyVersion> {
        let which = if self.course.kills_the_new() {
            self.new
        } else {
            self.old
        };
        let mut dying = self.overtaken.clone();
        dying.extend(which);
        dying
    }

    /// The version that the fleet is to have in the end; `None` = it is not there yet.
    pub fn lives(&self) -> Option<KeyVersion> {
        if self.course.kills_the_new() {
            self.old
        } else {
            self.new
        }
    }

    /// Takes a newer version as what it is to bring. What was proven everywhere is what there is to go back to.
    pub fn overtake(&mut self, newer: KeyVersion, was_proven: bool) {
        let Some(before) = self.new.replace(newer) else {
            return;
        };
        if was_proven {
            self.overtaken.extend(self.old.replace(before));
        } else {
            self.overtaken.insert(before);
        }
    }
}

/// The next step of a campaign.
pub fn step(campaign: &Campaign, found: &Found) -> Step {
    if found.is_andon && !campaign.state.is_terminal() {
        return wait(Wait::Andon);
    }
    match campaign.state {
        State::Planned => planned(campaign, found),
        State::Minting => minting(campaign, found),
        State::Validating => validating(campaign, found),
        State::Rolling => rolling(found),
        State::Converged => go(Event::DrainBegan, "the old version is watched from now on"),
        State::Draining => draining(campaign, found),
        State::RevokeReady => revoke_ready(campaign, found),
        State::Revoking => revoking(campaign, found),
        State::VerifyingDead => verifying(campaign, found),
        State::Halted => wait(Wait::Held(campaign.reason.clone())),
        State::RollingBack => rolling_back(campaign, found),
        State::Closed | State::RolledBack | State::Cancelled => Step::Wait(Vec::new()),
    }
}

fn planned(campaign: &Campaign, found: &Found) -> Step {
    if let Some(first) = found.first {
        return wait(Wait::Before(first));
    }
    match (campaign.course, campaign.new) {
        (Course::RevokeFirst, _) => go(
            Event::LeakRevokeBegan,
            "the current version is given up before there is another one",
        ),
        (_, Some(version)) => go(
            Event::VersionFound,
            &format!("{version} is in Vault already"),
        ),
        (_, None) => go(Event::MintBegan, "a new version is needed"),
    }
}

fn minting(campaign: &Campaign, found: &Found) -> Step {
    let before = campaign.old.max(campaign.new);
    match found.newest.filter(|newest| Some(*newest) > before) {
        Some(version) => go(Event::Minted, &format!("{version} is in Vault")),
        None => wait(Wait::Write(found.place.clone())),
    }
}

fn validating(campaign: &Campaign, found: &Found) -> Step {
    let Some(version) = campaign.new else {
        return go(Event::Failed, "there is no version to bring");
    };
    match found.trials.get(&version) {
        None => Step::Try(BTreeSet::from([version])),
        Some(Trial::Works) => go(Event::Validated, &format!("{version} works from here")),
        Some(Trial::Unknown(why)) => go(
            Event::Validated,
            &format!("{version} cannot be tried from here ({why}): the first wave tries it"),
        ),
        // It may be the provider's mood, or a setting there: a person looks at it.
        Some(Trial::Unfit(why)) => go(Event::Failed, &format!("{version} does not do: {why}")),
        Some(Trial::Refused(_)) => go(
            Event::GivenUp,
            &format!("the provider refuses {version}: nobody gets it"),
        ),
    }
}

fn rolling(found: &Found) -> Step {
    match found.new_state {
        Some(KeyState::Current) => go(Event::Converged, "everybody in reach has proven it"),
        Some(KeyState::Abandoned) => go(Event::RolloutWentBack, "its rollout went back"),
        Some(_) if found.users == 0 => go(Event::Converged, "no connector uses the Key"),
        Some(_) => spreading(found),
        None => go(Event::Failed, "Vault has lost what it was to bring"),
    }
}

fn rolling_back(campaign: &Campaign, found: &Found) -> Step {
    let is_named = |blocker: &Blocker| matches!(blocker, Blocker::Named(_));
    let mut waits = spreading(found);
    if !of_all(found, is_named).is_empty() {
        if let Step::Wait(waits) = &mut waits {
            waits.extend(of_all(found, is_named));
        }
        return waits;
    }
    let to = campaign.lives().map(|version| version.to_string());
    let to = to.unwrap_or_else(|| "nothing".to_owned());
    go(
        Event::BackEverywhere,
        &format!("everybody is told {to} again"),
    )
}

fn spreading(found: &Found) -> Step {
    let mut waits = vec![Wait::Spread {
        proven: found.proven,
        of: found.users,
    }];
    waits.extend(found.held_up.iter().cloned().map(Wait::HeldUp));
    Step::Wait(waits)
}

/// The age of proofs and the agreement of people count only once all the rest is as it must be.
fn draining(campaign: &Campaign, found: &Found) -> Step {
    let counts = |blocker: &Blocker| !is_for_the_end(blocker);
    let waits = of_all(found, counts);
    if !waits.is_empty() {
        return Step::Wait(waits);
    }
    if campaign.course.kills_the_new() {
        // Whoever wrote it to Vault made it, and it is theirs to revoke.
        return go(
            Event::NothingToRevoke,
            "nobody has it any more; whoever made it may revoke it",
        );
    }
    go(Event::Drained, "nobody has it, and nothing may need it")
}

fn revoke_ready(campaign: &Campaign, found: &Found) -> Step {
    if !of_all(found, |blocker| !is_for_the_end(blocker)).is_empty() {
        return go(Event::DrainLost, "something needs it after all");
    }
    let waits = of_all(found, |_| true);
    if waits.is_empty() {
        let dying = list(&campaign.dying());
        return go(
            Event::RevokeBegan,
            &format!("nothing may name {dying} from now on"),
        );
    }
    Step::Wait(waits)
}

/// Once more after the version is RETIRING: what was under way at that moment must have ended. In leak mode nobody is
/// waited for.
fn revoking(campaign: &Campaign, found: &Found) -> Step {
    let waits = match campaign.course {
        Course::RevokeFirst => Vec::new(),
        Course::Forward | Course::Back | Course::Cancel => {
            of_all(found, |blocker| !is_for_the_end(blocker))
        }
    };
    if !waits.is_empty() {
        return Step::Wait(waits);
    }
    wait(Wait::RevokeByHand(campaign.dying()))
}

fn verifying(campaign: &Campaign, found: &Found) -> Step {
    let dying = campaign.dying();
    let (mut unknown, mut ask) = (Vec::new(), BTreeSet::new());
    for version in &dying {
        match found.trials.get(version) {
            Some(Trial::Refused(times)) if *times >= REFUSALS_NEEDED => {}
            None | Some(Trial::Works | Trial::Unfit(_) | Trial::Refused(_)) => {
                ask.insert(*version);
            }
            Some(Trial::Unknown(why)) => unknown.push(format!("{version}: {why}")),
        }
    }
    if !ask.is_empty() {
        return Step::Try(ask);
    }
    let text = if unknown.is_empty() {
        format!(
            "the provider refused {} {REFUSALS_NEEDED} times in a row",
            list(&dying)
        )
    } else {
        format!(
            "the death is not verified, as an operator confirmed it and it cannot be tried from here ({})",
            unknown.join("; ")
        )
    };
    go(Event::Dead, &text)
}

/// What a campaign that has to try versions waits for.
pub fn trial_waits(campaign: &Campaign, found: &Found) -> Vec<Wait> {
    let wait = |version: KeyVersion| match found.trials.get(&version) {
        Some(Trial::Works | Trial::Unfit(_)) if campaign.state == State::VerifyingDead => {
            Wait::StillAlive(version)
        }
        Some(Trial::Refused(times)) => Wait::Dying(version, *times),
        _ => Wait::Trial(version),
    };
    match step(campaign, found) {
        Step::Try(versions) => versions.into_iter().map(wait).collect(),
        Step::Wait(waits) => waits,
        Step::Go(..) => Vec::new(),
    }
}

/// Only the last step asks for it.
const fn is_for_the_end(blocker: &Blocker) -> bool {
    matches!(blocker, Blocker::Stale(..) | Blocker::Approvals { .. })
}

fn of_all(found: &Found, counts: impl Fn(&Blocker) -> bool) -> Vec<Wait> {
    let mut waits = Vec::new();
    for case in &found.cases {
        let blockers = blockers(case).into_iter().filter(&counts);
        for blocker in blockers {
            // What holds for the fleet and not for a version is said once.
            let is_said = |wait: &Wait| matches!(wait, Wait::Blocked(_, said) if *said == blocker);
            if !waits.iter().any(is_said) {
                waits.push(Wait::Blocked(case.version, blocker));
            }
        }
    }
    waits
}

fn go(event: Event, why: &str) -> Step {
    Step::Go(event, why.to_owned())
}

fn wait(wait: Wait) -> Step {
    Step::Wait(vec![wait])
}

/// Versions in words.
pub fn list(versions: &BTreeSet<KeyVersion>) -> String {
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    versions.join(" and ")
}

impl Wait {
    /// The sentence for people. `name` says what they call a binding.
    pub fn sentence(&self, name: impl Fn(&BindingId) -> Option<String>) -> String {
        match self {
            Self::Andon => "the fleet is stopped by andon".to_owned(),
            Self::Held(reason) if reason.is_empty() => "it was paused".to_owned(),
            Self::Held(reason) => format!("it is held: {reason}"),
            Self::Before(first) => format!("campaign {first} of the same Key goes first"),
            Self::Write(place) => format!("write the new version to Vault at {place}"),
            Self::Trial(version) => format!("the provider is asked about {version}"),
            Self::Spread { proven, of } => {
                format!("{proven} of {of} bindings have proven what they are to have")
            }
            Self::HeldUp(why) => why.clone(),
            Self::Blocked(version, blocker) => format!("{version}: {}", blocker.sentence(name)),
            Self::RevokeByHand(versions) => format!(
                "revoke {} at the provider, then say `keyfleet campaign confirm`",
                list(versions)
            ),
            Self::StillAlive(version) => {
                format!("the provider still accepts {version}, although it is said to be revoked")
            }
            Self::Dying(version, times) => format!(
                "the provider refused {version} {times} of {REFUSALS_NEEDED} times in a row"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
