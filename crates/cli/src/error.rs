//! What the command can fail with: one text, one hint, one exit code each.

use std::error::Error as StdError;
use std::io;

use crate::exit::Exit;
use crate::{audit, client, contexts, files};

/// Every failure of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file of contexts.
    #[error(transparent)]
    Contexts(#[from] contexts::Error),
    /// A file the operator named.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A call to control.
    #[error(transparent)]
    Call(#[from] client::Error),
    /// The audit log is not as it was written.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// A manifest is not valid; control's text names file, line and field.
    #[error("{0}")]
    Manifest(String),
    /// The change takes something away, and nobody agreed to that.
    #[error("{0}, and nobody agreed to it: nothing was changed")]
    NotAgreed(String),
    /// A person was asked and said no.
    #[error("not agreed: nothing was changed")]
    Declined,
    /// One label, two new values.
    #[error("a label is named twice")]
    LabelTwice,
    /// Labels are made up for a made-up fleet.
    #[error("--label is for a made-up fleet: the real one has its own labels")]
    LabelsOfRealFleet,
    /// A simulation passed its deadline.
    #[error("the simulation has not ended after {0}")]
    SimulatedTooLong(String),
    /// No rollout's id begins so.
    #[error("no rollout has an id that begins with {0:?}")]
    NoSuchRollout(String),
    /// Several rollouts' ids begin so.
    #[error("{} rollouts have an id that begins with {prefix:?}: {}", ids.len(), ids.join(", "))]
    ManyRollouts {
        /// What the operator wrote.
        prefix: String,
        /// The full ids.
        ids: Vec<String>,
    },
    /// The id was left out, and it is not plain which rollout is meant.
    #[error("{}, so the id cannot be left out", active(*n_active))]
    WhichRollout {
        /// How many are active.
        n_active: usize,
    },
    /// A wait passed its deadline.
    #[error("the rollout has not ended after {0}")]
    WaitedTooLong(String),
    /// Following a log has no other end than the one the operator named.
    #[error("the log was followed for {0}, as asked")]
    FollowedToEnd(String),
    /// Ctrl-C while watching.
    #[error("interrupted")]
    Interrupted,
    /// Control answered without something its contract promises.
    #[error("the control service left out `{0}` in its answer")]
    Incomplete(&'static str),
    /// The context stays as it is while the CA is being replaced.
    #[error(
        "the context cannot learn the next CA, and trusts nobody there once the rotation has ended"
    )]
    Untaught(#[source] Box<Error>),
    /// stdout cannot be written to.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A message cannot be shown in the wanted format.
    #[error("cannot show the answer as {format}: {problem}")]
    Format {
        /// json or yaml.
        format: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// The async runtime does not start.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Contexts(err) => err.hint(),
            Self::Files(err) => err.hint(),
            Self::Call(err) => err.hint(),
            Self::Audit(err) => err.hint(),
            Self::NoSuchRollout(_) | Self::ManyRollouts { .. } | Self::WhichRollout { .. } => {
                Some("`keyfleet rollout list` shows the ids".to_owned())
            }
            Self::NotAgreed(_) => Some("look at it first; `--yes` agrees to it".to_owned()),
            Self::Untaught(_) => Some(
                "give it ca.pem of the control service: `keyfleet context set NAME --ca FILE`"
                    .to_owned(),
            ),
            Self::WaitedTooLong(_) | Self::Interrupted => {
                Some("the rollout goes on: `keyfleet rollout watch` shows it again".to_owned())
            }
            Self::LabelsOfRealFleet => Some("`--fleet N` makes one up".to_owned()),
            Self::SimulatedTooLong(_) => {
                Some("a smaller fleet is quicker: `--fleet N` makes one up".to_owned())
            }
            Self::Incomplete(_) => {
                Some("the command and the control service may be of different versions".to_owned())
            }
            Self::Manifest(_)
            | Self::Declined
            | Self::LabelTwice
            | Self::FollowedToEnd(_)
            | Self::Output(_)
            | Self::Format { .. }
            | Self::Runtime(_) => None,
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Call(err) => err.exit(),
            Self::Manifest(_) => Exit::Invalid,
            Self::WhichRollout { .. }
            | Self::ManyRollouts { .. }
            | Self::LabelTwice
            | Self::LabelsOfRealFleet => Exit::Usage,
            Self::WaitedTooLong(_) | Self::FollowedToEnd(_) | Self::SimulatedTooLong(_) => {
                Exit::TimedOut
            }
            Self::Interrupted => Exit::Interrupted,
            Self::Contexts(_)
            | Self::Files(_)
            | Self::Audit(_)
            | Self::NotAgreed(_)
            | Self::Declined
            | Self::NoSuchRollout(_)
            | Self::Incomplete(_)
            | Self::Untaught(_)
            | Self::Output(_)
            | Self::Format { .. }
            | Self::Runtime(_) => Exit::Error,
        }
    }
}

fn active(n_active: usize) -> String {
    match n_active {
        0 => "no rollout is active".to_owned(),
        n => format!("{n} rollouts are active"),
    }
}

/// An error with all its causes in one line.
pub(crate) fn chain(err: &dyn StdError) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Foreign errors often repeat their cause; each text is said once.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
