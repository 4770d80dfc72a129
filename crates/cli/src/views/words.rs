//! Enums and small messages in words, with the tone of their colour.

use std::collections::BTreeMap;

use keyfleet_core::binding::{BindingState, Rung};
use keyfleet_core::campaign;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::key::KeyState;
use keyfleet_core::placement::DriftPolicy;
use keyfleet_core::rollout::{Phase, Verdict};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;

use crate::output::{Cell, Tone};

/// What stands for a value that this command does not know: control may be newer.
const UNKNOWN: &str = "?";

/// The core's enum for a wire enum; nothing for one that is not set or not known.
fn known<W, C>(wire: i32) -> Option<C>
where
    W: TryFrom<i32>,
    C: TryFrom<W>,
{
    C::try_from(W::try_from(wire).ok()?).ok()
}

/// A binding's state from the wire.
pub(crate) fn state(wire: i32) -> Option<BindingState> {
    known::<v1::BindingState, _>(wire)
}

/// What a state's colour is.
fn state_tone(state: Option<BindingState>) -> Tone {
    match state {
        Some(BindingState::Proven) => Tone::Good,
        Some(BindingState::Failed) => Tone::Bad,
        Some(
            BindingState::Waiting
            | BindingState::Offered
            | BindingState::Received
            | BindingState::Applied
            | BindingState::Drifted
            | BindingState::Waived
            | BindingState::Unknown,
        )
        | None => Tone::Between,
    }
}

/// A state as a cell.
pub(crate) fn state_cell(wire: i32) -> Cell {
    let state = state(wire);
    Cell::toned(
        state.map_or(UNKNOWN, BindingState::as_str),
        state_tone(state),
    )
}

/// Counts by state in words, in the order of progress, with the tone of the worst: `3 PROVEN, 1 FAILED`.
pub(crate) fn counts(counts: &[v1::StateCount]) -> (String, Tone) {
    let mut counts: Vec<_> = counts.iter().filter(|count| count.count > 0).collect();
    counts.sort_by_key(|count| count.state);
    let words: Vec<_> = counts
        .iter()
        .map(|count| {
            format!(
                "{} {}",
                count.count,
                state(count.state).map_or(UNKNOWN, BindingState::as_str)
            )
        })
        .collect();
    let worst = counts
        .iter()
        .map(|count| state_tone(state(count.state)))
        .max()
        .unwrap_or(Tone::Plain);
    (words.join(", "), worst)
}

/// Counts by state as a cell.
pub(crate) fn counts_cell(wire: &[v1::StateCount]) -> Cell {
    let (text, tone) = counts(wire);
    Cell::toned(text, tone)
}

/// A failure class; empty where there is none.
pub(crate) fn failure_class(wire: i32) -> &'static str {
    match (wire, known::<v1::FailureClass, FailureClass>(wire)) {
        (0, _) => "",
        (_, class) => class.map_or(UNKNOWN, FailureClass::as_str),
    }
}

/// A rollout's phase from the wire.
pub(crate) fn phase(wire: i32) -> Option<Phase> {
    known::<v1::RolloutPhase, _>(wire)
}

/// A phase in words.
pub(crate) fn phase_word(wire: i32) -> &'static str {
    phase(wire).map_or(UNKNOWN, Phase::as_str)
}

/// What a phase's colour is.
pub(crate) fn phase_tone(wire: i32) -> Tone {
    match phase(wire) {
        Some(Phase::Completed) => Tone::Good,
        Some(Phase::Halted | Phase::RollbackHalted | Phase::RolledBack | Phase::Aborted) => {
            Tone::Bad
        }
        Some(
            Phase::Pending
            | Phase::Progressing
            | Phase::Paused
            | Phase::RollingBack
            | Phase::RollbackPaused
            | Phase::Superseded,
        )
        | None => Tone::Between,
    }
}

/// A campaign's state from the wire.
pub(crate) fn campaign_state(wire: i32) -> Option<campaign::State> {
    known::<v1::CampaignState, _>(wire)
}

/// What a campaign is up to, from the wire.
pub(crate) fn campaign_course(wire: i32) -> Option<campaign::Course> {
    known::<v1::CampaignCourse, _>(wire)
}

/// A campaign's state in words, with its colour.
pub(crate) fn campaign_state_word(wire: i32) -> (&'static str, Tone) {
    let state = campaign_state(wire);
    let tone = match state {
        Some(campaign::State::Closed) => Tone::Good,
        Some(
            campaign::State::Halted
            | campaign::State::RollingBack
            | campaign::State::RolledBack
            | campaign::State::Cancelled,
        ) => Tone::Bad,
        _ => Tone::Between,
    };
    (state.map_or(UNKNOWN, campaign::State::as_str), tone)
}

/// The same as a cell.
pub(crate) fn campaign_state_cell(wire: i32) -> Cell {
    let (word, tone) = campaign_state_word(wire);
    Cell::toned(word, tone)
}

/// What a gate last said; one that has not answered holds the rollout up too.
pub(crate) fn verdict(wire: i32) -> (&'static str, Tone) {
    match known::<v1::GateVerdict, Verdict>(wire) {
        Some(verdict @ Verdict::Pass) => (verdict.as_str(), Tone::Good),
        Some(verdict @ Verdict::Fail) => (verdict.as_str(), Tone::Bad),
        Some(verdict @ Verdict::Inconclusive) => (verdict.as_str(), Tone::Between),
        None if wire == 0 => ("not asked yet", Tone::Between),
        None => (UNKNOWN, Tone::Between),
    }
}

/// Whether a deployment's agent is trusted, from the wire; an older control service does not say.
pub(crate) fn standing(wire: i32) -> Option<Standing> {
    known::<v1::Standing, Standing>(wire)
}

/// A standing in words; empty where control does not say.
pub(crate) fn standing_cell(wire: i32) -> Cell {
    match (wire, standing(wire)) {
        (0, _) => "".into(),
        (_, Some(Standing::Active)) => Cell::toned(Standing::Active.as_str(), Tone::Good),
        (_, Some(Standing::Suspended)) => Cell::toned(Standing::Suspended.as_str(), Tone::Between),
        (_, Some(standing @ (Standing::Cloned | Standing::Revoked))) => {
            Cell::toned(standing.as_str(), Tone::Bad)
        }
        (_, None) => UNKNOWN.into(),
    }
}

/// A key version's state from the wire.
pub(crate) fn key_state(wire: i32) -> Option<KeyState> {
    known::<v1::KeyState, _>(wire)
}

/// A key version's state as a cell.
pub(crate) fn key_state_cell(wire: i32) -> Cell {
    let state = key_state(wire);
    let tone = match state {
        Some(KeyState::Current) => Tone::Good,
        Some(KeyState::Compromised | KeyState::Orphan) => Tone::Bad,
        Some(
            KeyState::Pending
            | KeyState::Previous
            | KeyState::Retiring
            | KeyState::Revoked
            | KeyState::Abandoned,
        )
        | None => Tone::Plain,
    };
    Cell::toned(state.map_or(UNKNOWN, KeyState::as_str), tone)
}

/// A drift policy.
pub(crate) fn drift_policy(wire: i32) -> &'static str {
    known::<v1::DriftPolicy, DriftPolicy>(wire).map_or(UNKNOWN, DriftPolicy::as_str)
}

/// A role; empty where there is none.
pub(crate) fn role(wire: i32) -> &'static str {
    known::<v1::Role, Role>(wire).map_or("", Role::as_str)
}

/// How far a live call came; empty where nothing is known of one.
pub(crate) fn rung(wire: i32) -> &'static str {
    match v1::ProbeRung::try_from(wire) {
        Ok(v1::ProbeRung::Unspecified) => "",
        Ok(v1::ProbeRung::Loaded) => Rung::Loaded.as_str(),
        Ok(v1::ProbeRung::Reached) => Rung::Reached.as_str(),
        Ok(v1::ProbeRung::KeyAccepted) => Rung::KeyAccepted.as_str(),
        Ok(v1::ProbeRung::Answered) => Rung::Answered.as_str(),
        Err(_) => UNKNOWN,
    }
}

/// How many rules and others refer to a connector; empty where none does.
pub(crate) fn references(n: u32) -> String {
    match n {
        0 => String::new(),
        n => n.to_string(),
    }
}

/// What keeps a connector in use, in a clause: `3 rules or others refer to it`.
pub(crate) fn referred_to(n: u32) -> String {
    match n {
        1 => "1 rule or other refers to it".to_owned(),
        n => format!("{n} rules or others refer to it"),
    }
}

/// Yes or no, where yes is good.
pub(crate) fn yes_cell(yes: bool) -> Cell {
    if yes {
        Cell::toned("yes", Tone::Good)
    } else {
        Cell::toned("no", Tone::Bad)
    }
}

/// A revision with a key version: `r3 k7`.
pub(crate) fn assignment(wire: Option<&v1::Assignment>) -> String {
    wire.map(|wire| keyfleet_core::binding::Assignment::from(*wire).to_string())
        .unwrap_or_default()
}

/// Labels as a selector would name them: `env=prod,region=eu`.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_ordered_and_as_bad_as_their_worst() {
        let count = |state: v1::BindingState, count| v1::StateCount {
            state: state.into(),
            count,
        };
        let check = |wire: &[v1::StateCount], text: &str, tone| {
            assert_eq!(counts(wire), (text.to_owned(), tone));
        };
        use v1::BindingState::{Failed, Proven, Waiting};
        check(&[], "", Tone::Plain);
        check(&[count(Proven, 3)], "3 PROVEN", Tone::Good);
        check(
            &[count(Proven, 3), count(Waiting, 2)],
            "2 WAITING, 3 PROVEN",
            Tone::Between,
        );
        check(
            &[count(Failed, 1), count(Proven, 3), count(Waiting, 0)],
            "3 PROVEN, 1 FAILED",
            Tone::Bad,
        );
        check(
            &[v1::StateCount {
                state: 99,
                count: 1,
            }],
            "1 ?",
            Tone::Between,
        );
    }
}
