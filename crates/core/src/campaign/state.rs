//! Where a campaign is, and the one table that changes it.

use std::fmt;

/// Where a campaign is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Stored; may wait for people, for its window or for another campaign of its Key.
    Planned,
    /// A key is being made at the provider and written to Vault.
    Minting,
    /// Control tries the new version before anybody gets it.
    Validating,
    /// A rollout brings it to every connector that uses the Key.
    Rolling,
    /// Every connector in reach has proven it.
    Converged,
    /// What is to die is watched until nobody uses it and no rollback may need it.
    Draining,
    /// Everything is proven anew; may wait for people.
    RevokeReady,
    /// Nothing may name the version any more; it is deleted at the provider, for as long as it takes.
    Revoking,
    /// The provider has to refuse it, several times in a row.
    VerifyingDead,
    /// The old key is dead and the new one proven everywhere.
    Closed,
    /// Held, by an operator or because something went wrong; it goes on where it stopped.
    Halted,
    /// A rollout brings the old version back everywhere.
    RollingBack,
    /// The old version runs everywhere, and what was minted is dead.
    RolledBack,
    /// Nobody got the new version, and what was minted is dead.
    Cancelled,
}

/// What a campaign is up to: which version is to die, and what it is called when that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Course {
    /// The new version takes the place of the old one, which dies.
    Forward,
    /// The old version dies first, whoever still needs it; then a new one is made (leak mode).
    RevokeFirst,
    /// The new version was given up after somebody got it, and dies.
    Back,
    /// The new version was given up before anybody got it, and dies.
    Cancel,
}

/// What an operator may do to a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Begin nothing more for now.
    Pause,
    /// Go on where it stopped.
    Resume,
    /// Give the new version up: back to the old one. Not once the old one is being revoked.
    Rollback,
    /// Agree with what comes next, where approval is asked for.
    Approve,
    /// Say that a key was revoked by hand, where Keyfleet cannot do it.
    Confirm,
}

/// What happened to a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// It may begin, and makes the key itself.
    MintBegan,
    /// It may begin, and the version is in Vault already.
    VersionFound,
    /// It may begin, and the old version dies first.
    LeakRevokeBegan,
    /// The new version is in Vault, read back.
    Minted,
    /// The new version works from here, or cannot be tried from here.
    Validated,
    /// Every connector in reach has proven it.
    Converged,
    /// The old version is the previous one now: the watch begins.
    DrainBegan,
    /// Nothing uses it any more, nothing may need it again.
    Drained,
    /// A newer version is in Vault than the one that it was to bring.
    Overtaken,
    /// Somebody uses it after all, or a proof is void.
    DrainLost,
    /// The guard held in the transaction that set the version RETIRING.
    RevokeBegan,
    /// The provider says that it is deleted.
    Revoked,
    /// It was refused often enough in a row, or an operator confirmed it.
    Dead,
    /// Something went wrong that only a person can judge.
    Failed,
    /// The new version is refused, or nobody agreed in time, before anybody got it.
    GivenUp,
    /// The rollout has gone back by itself.
    RolloutWentBack,
    /// Every connector runs the old version again.
    BackEverywhere,
    /// What is to die was never made, or is not ours to revoke: it was written to Vault by hand and given up.
    NothingToRevoke,
    /// An operator spoke.
    Verb(Verb),
}

/// A verb or event that a state does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a campaign that is {state} does not take {event}")]
pub struct IllegalTransition {
    /// Where the campaign is.
    pub state: State,
    /// What was asked.
    pub event: Event,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 14] = [
        Self::Planned,
        Self::Minting,
        Self::Validating,
        Self::Rolling,
        Self::Converged,
        Self::Draining,
        Self::RevokeReady,
        Self::Revoking,
        Self::VerifyingDead,
        Self::Closed,
        Self::Halted,
        Self::RollingBack,
        Self::RolledBack,
        Self::Cancelled,
    ];

    /// The name in tables, rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "PLANNED",
            Self::Minting => "MINTING",
            Self::Validating => "VALIDATING",
            Self::Rolling => "ROLLING",
            Self::Converged => "CONVERGED",
            Self::Draining => "DRAINING",
            Self::RevokeReady => "REVOKE_READY",
            Self::Revoking => "REVOKING",
            Self::VerifyingDead => "VERIFYING_DEAD",
            Self::Closed => "CLOSED",
            Self::Halted => "HALTED",
            Self::RollingBack => "ROLLING_BACK",
            Self::RolledBack => "ROLLED_BACK",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True where nothing will ever happen to the campaign again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Closed | Self::RolledBack | Self::Cancelled)
    }

    /// True from where there is no way back: the version that is to die may be dead already.
    pub const fn is_past_return(self) -> bool {
        matches!(
            self,
            Self::Revoking
                | Self::VerifyingDead
                | Self::Closed
                | Self::RolledBack
                | Self::Cancelled
        )
    }

    /// The state and course after an event: one total table. `stopped` is where a campaign that is HALTED stopped.
    ///
    /// # Errors
    /// [`IllegalTransition`] for every other pair.
    pub fn next(
        self,
        course: Course,
        stopped: Option<Self>,
        event: Event,
    ) -> Result<(Self, Course), IllegalTransition> {
        if let Event::Verb(verb) = event {
            return self.after_verb(course, stopped, verb);
        }
        let state = match (self, event) {
            (Self::Planned, Event::MintBegan) => Self::Minting,
            (Self::Planned, Event::VersionFound) => Self::Validating,
            (Self::Planned, Event::LeakRevokeBegan) if course == Course::RevokeFirst => {
                Self::Revoking
            }
            (Self::Minting, Event::Minted) => Self::Validating,
            (Self::Validating, Event::Validated) => Self::Rolling,
            (Self::Rolling, Event::Converged) => after_converging(course),
            // There is nothing to go back to, and no key to give up: only a person can help.
            (Self::Rolling, Event::RolloutWentBack)
            | (Self::Minting | Self::Validating, Event::GivenUp)
                if course == Course::RevokeFirst =>
            {
                Self::Halted
            }
            (Self::Rolling, Event::RolloutWentBack) => Self::RollingBack,
            (Self::Converged, Event::DrainBegan) => Self::Draining,
            (Self::Draining, Event::Drained) => Self::RevokeReady,
            (Self::RevokeReady, Event::DrainLost) => Self::Draining,
            (Self::RevokeReady, Event::RevokeBegan) => Self::Revoking,
            (Self::Revoking, Event::Revoked) => Self::VerifyingDead,
            (Self::VerifyingDead, Event::Dead) => after_death(course),
            (Self::RollingBack, Event::BackEverywhere) => Self::Draining,
            (Self::Draining, Event::NothingToRevoke)
                if matches!(course, Course::Back | Course::Cancel) =>
            {
                after_death(course)
            }
            (Self::Planned, Event::GivenUp) => Self::Cancelled,
            (state, Event::Overtaken) if state.may_be_overtaken(course, stopped) => {
                if state == Self::Planned {
                    state
                } else {
                    Self::Validating
                }
            }
            (Self::Minting | Self::Validating, Event::GivenUp) => Self::Draining,
            (state, Event::Failed) if state.may_halt() => Self::Halted,
            (state, event) => return Err(IllegalTransition { state, event }),
        };
        let course = if event == Event::GivenUp && state != Self::Halted {
            Course::Cancel
        } else if state == Self::RollingBack {
            Course::Back
        } else {
            course
        };
        Ok((state, course))
    }

    /// True where a campaign may stop and go on later. Once a version is being revoked, stopping would help nobody: it
    /// is dead or not, and which of both has to be found out.
    const fn may_halt(self) -> bool {
        !matches!(self, Self::Revoking | Self::VerifyingDead) && !self.is_terminal()
    }

    /// True where a newer version may take the place of the one that is being brought: nothing is being revoked, and it
    /// was not given up.
    fn may_be_overtaken(self, course: Course, stopped: Option<Self>) -> bool {
        // While it is planned nothing was begun that would have to be left.
        let at = match (self, stopped) {
            (Self::Halted, Some(at)) if at != Self::Planned => at,
            (state, _) => state,
        };
        let is_on_its_way = matches!(
            at,
            Self::Planned
                | Self::Validating
                | Self::Rolling
                | Self::Converged
                | Self::Draining
                | Self::RevokeReady
        );
        is_on_its_way && !course.kills_the_new()
    }

    fn after_verb(
        self,
        course: Course,
        stopped: Option<Self>,
        verb: Verb,
    ) -> Result<(Self, Course), IllegalTransition> {
        let event = Event::Verb(verb);
        let refused = Err(IllegalTransition { state: self, event });
        if self.is_terminal() {
            return refused;
        }
        match verb {
            Verb::Pause if self.may_halt() => Ok((Self::Halted, course)),
            Verb::Resume if self == Self::Halted => stopped.map_or(refused, |to| Ok((to, course))),
            Verb::Rollback => self.way_back(course, stopped).map_or(refused, Ok),
            // Saying it once more, or before or after its time, changes nothing.
            Verb::Resume | Verb::Approve => Ok((self, course)),
            Verb::Confirm if matches!(self, Self::Revoking | Self::VerifyingDead) => {
                Ok((Self::VerifyingDead, course))
            }
            Verb::Pause | Verb::Confirm => refused,
        }
    }

    /// Where giving the new version up leads from here; `None` where that is too late.
    fn way_back(self, course: Course, stopped: Option<Self>) -> Option<(Self, Course)> {
        if matches!(course, Course::Back | Course::Cancel) {
            return Some((self, course));
        }
        match self {
            Self::Halted => stopped
                .filter(|at| *at != Self::Halted)
                .and_then(|at| at.way_back(course, None)),
            Self::Planned => Some((Self::Cancelled, Course::Cancel)),
            // The version before is dead or on its way to be: there is nothing to go back to.
            _ if course == Course::RevokeFirst => None,
            Self::Minting | Self::Validating => Some((Self::Draining, Course::Cancel)),
            Self::Rolling | Self::Converged | Self::Draining | Self::RevokeReady => {
                Some((Self::RollingBack, Course::Back))
            }
            Self::RollingBack
            | Self::Revoking
            | Self::VerifyingDead
            | Self::Closed
            | Self::RolledBack
            | Self::Cancelled => None,
        }
    }
}

const fn after_converging(course: Course) -> State {
    match course {
        Course::RevokeFirst => State::Closed,
        Course::Forward | Course::Back | Course::Cancel => State::Converged,
    }
}

const fn after_death(course: Course) -> State {
    match course {
        Course::Forward => State::Closed,
        Course::RevokeFirst => State::Minting,
        Course::Back => State::RolledBack,
        Course::Cancel => State::Cancelled,
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Course {
    /// Every course.
    pub const ALL: [Self; 4] = [Self::Forward, Self::RevokeFirst, Self::Back, Self::Cancel];

    /// The name in tables, rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::RevokeFirst => "REVOKE_FIRST",
            Self::Back => "BACK",
            Self::Cancel => "CANCEL",
        }
    }

    /// The course of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|course| course.as_str() == text)
    }

    /// True where the version that is to die is the one that was to be brought.
    pub const fn kills_the_new(self) -> bool {
        matches!(self, Self::Back | Self::Cancel)
    }
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [
        Self::Pause,
        Self::Resume,
        Self::Rollback,
        Self::Approve,
        Self::Confirm,
    ];

    /// The word that operators type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Rollback => "rollback",
            Self::Approve => "approve",
            Self::Confirm => "confirm",
        }
    }

    /// The verb of this word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }
}

impl Event {
    /// What an error calls it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::MintBegan => "the begin of minting",
            Self::VersionFound => "a version that is in Vault already",
            Self::LeakRevokeBegan => "a revocation that comes first",
            Self::Minted => "a minted version",
            Self::Validated => "the end of validation",
            Self::Converged => "a rollout that is proven everywhere",
            Self::DrainBegan => "the begin of draining",
            Self::Drained => "the end of draining",
            Self::Overtaken => "a newer version",
            Self::DrainLost => "a use of what was drained",
            Self::RevokeBegan => "the begin of the revocation",
            Self::Revoked => "a revocation",
            Self::Dead => "a verified death",
            Self::Failed => "a failure",
            Self::GivenUp => "that the new version is given up",
            Self::RolloutWentBack => "a rollout that went back",
            Self::BackEverywhere => "the end of a rollback",
            Self::NothingToRevoke => "that there is nothing to revoke",
            Self::Verb(verb) => verb.as_str(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
