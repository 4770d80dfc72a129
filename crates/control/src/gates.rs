//! Background gates: puts a gate's question to the server that its strategy names, and reads the answer.
//!
//! # Who owns what
//! - what an answer means for a run: `keyfleet_core::rollout`
//! - when a gate is asked, and where its answer is kept: `tasks::gates`
//! - which hosts may be asked: the setting `gates.allowed_hosts`, looked at when a strategy is applied and again before
//!   every question
//!
//! Nothing that a server answers is an error here. What cannot be read says nothing, in words: the run waits, and then
//! pauses, as its strategy says.

mod answer;
mod ask;

use keyfleet_core::rollout::{Gate, GateState, Verdict};
use keyfleet_core::travel::{self, AskedHost};
use keyfleet_proto::{WireTime, v1};

pub(crate) use answer::Answer;
pub(crate) use ask::Asker;
pub use ask::Error;

/// Whether a gate's host may be asked. `allowed` is the setting `gates.allowed_hosts`.
///
/// # Errors
/// The sentence that says why not, and what to change.
pub(crate) fn may_ask(gate: &Gate, allowed: &[AskedHost]) -> Result<(), String> {
    travel::may_ask(gate.url(), allowed).map_err(|err| err.to_string())
}

/// Where a gate stands, as the API says it.
pub(crate) fn wire(state: &GateState) -> v1::GateState {
    let verdict = match state.verdict {
        Verdict::Pass => v1::GateVerdict::Pass,
        Verdict::Fail => v1::GateVerdict::Fail,
        Verdict::Inconclusive => v1::GateVerdict::Inconclusive,
    };
    v1::GateState {
        name: state.name.clone(),
        verdict: verdict.into(),
        at: Some(WireTime(state.at).into()),
        text: state.text.clone(),
    }
}
