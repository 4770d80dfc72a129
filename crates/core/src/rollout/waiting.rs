//! Why something waits: the rule and the number that hold it back, in one sentence.
//! Command line, dashboard and API print the same sentence.

mod sentences;

use std::sync::Arc;
use std::time::Duration;

use crate::failure::FailureClass;
use crate::id::DeploymentId;

pub(super) use sentences::{Deployments, Human};

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What waits.
    pub about: About,
    /// Why.
    pub on: WaitingOn,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The run as a whole.
    Run,
    /// The wave of this index.
    Wave(usize),
    /// A deployment.
    Deployment(DeploymentId),
}

impl Waiting {
    /// The deployment that waits, where it is one.
    pub fn deployment(&self) -> Option<DeploymentId> {
        match self.about {
            About::Deployment(id) => Some(id),
            About::Run | About::Wave(_) => None,
        }
    }
}

/// The four deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// From offered to received.
    Ack,
    /// From received to applied.
    Apply,
    /// From applied to proven.
    Prove,
    /// A whole wave.
    Wave,
}

/// A wave as sentences name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveRef {
    /// Its name.
    pub name: Arc<str>,
    /// Its number, from 1.
    pub number: usize,
    /// How many waves the strategy has.
    pub of: usize,
}

/// The rules that hold something back. Every variant prints its numbers; durations are what was left at
/// the time of the decision. Texts are shared: a hundred thousand deployments may wait for the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// Fleet-wide stop: who, since when, why.
    Andon(Arc<str>),
    /// The run is stored, not begun.
    NotStarted,
    /// The run itself changes first; the sentence says how.
    Change(Arc<str>),
    /// An operator or a budget paused the run.
    Paused(Arc<str>),
    /// A budget or a deadline halted the run.
    Halted(Arc<str>),
    /// Its wave comes later.
    WaveNotStarted {
        /// Its wave.
        wave: WaveRef,
        /// The wave that comes before it.
        before: WaveRef,
        /// True where that one is running, false where it has not begun either.
        running: bool,
    },
    /// Its wave has not been agreed with by as many people as it asks for.
    Approval {
        /// The wave.
        wave: WaveRef,
        /// How many have agreed.
        given: u32,
        /// How many have to.
        required: u32,
        /// Who does not count, having started the rollout.
        except: Option<Arc<str>>,
    },
    /// A background gate does not pass now.
    Gate {
        /// The gate's name.
        name: Arc<str>,
        /// What it said, or that it said nothing.
        text: Arc<str>,
    },
    /// None of its maintenance windows is open for long enough.
    Window {
        /// How long until the next one opens; `None` = none within a year.
        opens: Option<Duration>,
        /// The blackout that it waits for, in words.
        blackout: Option<Arc<str>>,
    },
    /// As many as may be are in flight.
    Concurrency {
        /// The wave's name.
        wave: Arc<str>,
        /// How many may be in flight.
        limit: u32,
        /// How many are.
        in_flight: u32,
    },
    /// As many as the ramp allows so far are in flight.
    Ramp {
        /// The wave's name.
        wave: Arc<str>,
        /// How many may be in flight so far.
        limit: u32,
        /// How many may be at the end of the ramp.
        concurrency: u32,
        /// How many are.
        in_flight: u32,
        /// How many more have to be proven before more may be.
        missing: u32,
    },
    /// As many as may be were offered the change within the last minute.
    Rate {
        /// How many may be within any minute.
        max: u32,
        /// How long until the next may be.
        left: Duration,
    },
    /// As many as may be with the same value of a label are in flight.
    Spread {
        /// The wave's name.
        wave: Arc<str>,
        /// The label.
        label: Arc<str>,
        /// Its value; `None` = the deployments without it.
        value: Option<Arc<str>>,
        /// How many may be in flight.
        max: u32,
        /// How many are, or keep their place while they are away.
        in_flight: u32,
    },
    /// One failure more could break a budget of a strict wave.
    Strict {
        /// The wave's name.
        wave: Arc<str>,
        /// How many are in flight.
        in_flight: u32,
        /// How many were offered the change, went away unheard, and may come back with it.
        away: u32,
        /// How many more failures the wave bears.
        budget_left: u32,
    },
    /// The agent or Kibana is at work.
    Step {
        /// Which deadline runs.
        deadline: Deadline,
        /// How long it still runs.
        left: Duration,
    },
    /// Proven, for less long than asked for.
    Soaking {
        /// How long it still has to be proven.
        left: Duration,
        /// How long it has to be proven.
        soak: Duration,
    },
    /// Not connected: converges on return.
    Offline {
        /// How many deployments of the wave are offline.
        offline: u32,
        /// How many the wave has.
        deployments: u32,
        /// How many in a hundred may be.
        limit_percent: u8,
        /// True where that holds the wave up.
        holds: bool,
    },
    /// It no longer belongs to what the run is for.
    Left,
    /// It failed.
    Failed {
        /// How.
        class: FailureClass,
        /// True where it was broken before the change.
        broken_before: bool,
    },
    /// The wave as a whole.
    Wave {
        /// The wave.
        wave: WaveRef,
        /// What holds it up.
        hold: WaveHold,
    },
    /// The way back.
    Rollback(RollbackHold),
    /// Its agent is not trusted; the sentence says who decided so, and what lets it go on.
    CutOff(String),
}

/// What a running wave waits for before the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveHold {
    /// Some deployments have not settled.
    Running {
        /// How many of its deployments are proven.
        proven: u32,
        /// How many it has.
        deployments: u32,
        /// How many of this and earlier waves are in flight.
        in_flight: u32,
        /// How long its deadline still runs; `None` where it is not judged.
        left: Option<Duration>,
    },
    /// All that are left to be offered the change wait for their windows.
    Windows {
        /// How many wait.
        waiting: u32,
        /// How long until the first window opens; `None` = none within a year.
        opens: Option<Duration>,
    },
    /// It is mandatory, and somebody of it is not proven.
    Mandatory {
        /// How many of its deployments are proven.
        proven: u32,
        /// How many it has.
        deployments: u32,
        /// How many of its deployments are offline.
        offline: u32,
        /// How many failed that were broken before.
        broken_before: u32,
    },
    /// All have settled; some have been proven for less long than asked for.
    Soaking {
        /// How long the last of them still has to be proven.
        left: Duration,
    },
    /// Too many are offline.
    Offline {
        /// How many of its deployments are offline.
        offline: u32,
        /// How many it has.
        deployments: u32,
        /// How many in a hundred may be.
        limit_percent: u8,
    },
    /// None is proven, so the wave says nothing about the next.
    Unproven {
        /// How many of its deployments are offline.
        offline: u32,
        /// How many failed that were broken before.
        broken_before: u32,
        /// How many it has.
        deployments: u32,
    },
}

/// What holds up the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackHold {
    /// As many deployments as may be are on their way.
    Concurrency {
        /// How many may be.
        limit: u32,
        /// How many are.
        in_progress: u32,
    },
    /// As many as may be were told to go back within the last minute.
    Rate {
        /// How many may be within any minute.
        max: u32,
        /// How long until the next may be.
        left: Duration,
    },
    /// The agent or Kibana is at work.
    Step {
        /// How long the deadline still runs.
        left: Duration,
    },
    /// Not connected: goes back on return.
    Offline,
    /// It could not be brought back.
    Failed(FailureClass),
    /// What it had before cannot be had again.
    Impossible,
    /// The run as a whole.
    Run {
        /// How many deployments are back.
        back: u32,
        /// How many the change touched.
        touched: u32,
        /// How many are on their way.
        in_progress: u32,
    },
}

impl Deadline {
    /// The name in manifests and sentences.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Apply => "apply",
            Self::Prove => "prove",
            Self::Wave => "wave",
        }
    }

    /// What is missing while the deadline runs.
    const fn missing(self) -> &'static str {
        match self {
            Self::Ack => "the agent has not confirmed yet",
            Self::Apply => "Kibana does not hold it yet",
            Self::Prove => "no live call has succeeded yet",
            Self::Wave => "the wave is not done yet",
        }
    }
}
