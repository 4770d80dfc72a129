//! What the fake says of rollouts, and what a verb makes of one.

use keyfleet_proto::v1;
use tonic::Status;

use super::{State, before};

impl State {
    /// The rollout after this verb.
    pub(super) fn change_rollout(
        &self,
        request: &v1::ChangeRolloutRequest,
    ) -> Result<v1::Rollout, Status> {
        let mut rollout = self.rollout(&request.id)?;
        if rollout.ended_at.is_some() {
            let text = "a rollout that is COMPLETED takes no verb";
            return Err(Status::failed_precondition(text));
        }
        let phase = match request.verb() {
            v1::RolloutVerb::Pause => v1::RolloutPhase::Paused,
            v1::RolloutVerb::Abort => v1::RolloutPhase::Aborted,
            v1::RolloutVerb::Rollback => v1::RolloutPhase::RollingBack,
            v1::RolloutVerb::Resume | v1::RolloutVerb::Retry => v1::RolloutPhase::Progressing,
            v1::RolloutVerb::Approve => return approved(rollout, &request.wave),
            v1::RolloutVerb::FastForward => return Ok(rollout),
            v1::RolloutVerb::Unspecified => {
                return Err(Status::invalid_argument("field `verb` is missing"));
            }
        };
        rollout.phase = phase.into();
        rollout.reason.clone_from(&request.reason);
        Ok(rollout)
    }

    /// Why a rollout waits.
    pub(super) fn explain(
        &self,
        request: &v1::ExplainRolloutRequest,
    ) -> Result<v1::ExplainRolloutResponse, Status> {
        let rollout = self.rollout(&request.id)?;
        let asked = &request.deployment;
        let is_asked = |waiting: &&v1::Waiting| {
            !waiting.deployment.is_empty() && (asked.is_empty() || waiting.deployment == *asked)
        };
        let deployments: Vec<_> = rollout.waiting.iter().filter(is_asked).cloned().collect();
        if deployments.is_empty() && !asked.is_empty() {
            let text = format!("deployment {asked} has no part in this rollout");
            return Err(Status::failed_precondition(text));
        }
        let whole = rollout.waiting.iter().find(|w| w.deployment.is_empty());
        Ok(v1::ExplainRolloutResponse {
            sentence: whole.map(|w| w.sentence.clone()).unwrap_or_default(),
            more: if asked.is_empty() && self.has_news {
                12
            } else {
                0
            },
            deployments,
            rollout: Some(v1::Rollout {
                waiting: vec![],
                ..rollout
            }),
        })
    }
}

/// One more principal agrees with the wave of this name, or with the first that asks for it.
fn approved(mut rollout: v1::Rollout, wave: &str) -> Result<v1::Rollout, Status> {
    let asks = |w: &&mut v1::Wave| w.approvals_required > 0 && (wave.is_empty() || w.name == wave);
    match rollout.waves.iter_mut().find(asks) {
        Some(wave) => wave.approved_by.push("ada".into()),
        None => {
            let text = format!("wave {wave:?} asks for no approval; those that do: rest");
            return Err(Status::failed_precondition(text));
        }
    }
    Ok(rollout)
}

/// A rollout in which everything is to be said: waves that ask for approvals, gates, an estimate.
pub(crate) fn telling(rollout: v1::Rollout) -> v1::Rollout {
    let mut rollout = rollout;
    let [canary, rest] = &mut rollout.waves[..] else {
        panic!("two waves");
    };
    canary.mandatory = true;
    canary.begun = true;
    canary.deployments = 3;
    canary.states = vec![
        crate::harness::state_count(v1::BindingState::Proven, 1),
        crate::harness::state_count(v1::BindingState::Applied, 1),
        crate::harness::state_count(v1::BindingState::Waiting, 1),
    ];
    canary.left = 1;
    canary.waiting = "1 of 3 deployments proven, 1 in flight (wave deadline in 40m)".into();
    rest.approvals_required = 2;
    rest.approved_by = vec!["bob".into()];
    rest.waiting =
        "wave \"rest\" (2 of 2) begins after wave 1 \"canary\", with 1 approval more".into();
    let gate = |name: &str, verdict: v1::GateVerdict, text: &str| v1::GateState {
        name: name.into(),
        verdict: verdict.into(),
        at: Some(verdict)
            .filter(|verdict| *verdict != v1::GateVerdict::Unspecified)
            .and(before(65)),
        text: text.into(),
    };
    rollout.gates = vec![
        gate("errors", v1::GateVerdict::Fail, "0.04 is > 0.02"),
        gate("alerts", v1::GateVerdict::Pass, "200 OK"),
        gate("change-board", v1::GateVerdict::Unspecified, ""),
    ];
    rollout.estimate = Some(v1::Estimate {
        left_secs: Some(2_010),
        basis:
            "about 33 min: 40 of 52 deployments left, 4 at a time, 2m 10s each, and 10 min of soak"
                .into(),
    });
    rollout.waiting = vec![
        waiting(
            "",
            "wave \"canary\" (1 of 2): 1 of 3 deployments proven, 1 in flight (wave deadline in 40m)",
        ),
        waiting(
            "kibana-a",
            "no live call has succeeded yet (prove deadline in 4m 10s)",
        ),
        waiting(
            "kibana-b",
            "its wave \"rest\" (2 of 2) has not started: wave 1 \"canary\" is running",
        ),
    ];
    rollout
}

fn waiting(deployment: &str, sentence: &str) -> v1::Waiting {
    v1::Waiting {
        deployment: deployment.into(),
        sentence: sentence.into(),
    }
}
