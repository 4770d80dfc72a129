//! What must hold of every plan, counted anew from the targets: the judge shares no code with the planner that it judges.
//!
//! Tests and the simulator ask it of every plan. It says what no plan may do; that a plan does enough is shown by
//! running a calm world to its end.

mod back;
mod budgets;
mod count;
mod forward;
mod reasons;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::phase::{Event, Phase};
use super::plan::{Plan, PlanInput};
use crate::id::DeploymentId;
use count::Count;

/// The rules that this plan breaks, one sentence each; empty where it breaks none.
pub fn violations(input: &PlanInput<'_>, plan: &Plan) -> Vec<String> {
    let mut found = Found::default();
    let Some(count) = Count::new(input) else {
        return found.0;
    };
    if input.run.phase.is_terminal() {
        found.unless(*plan == Plan::default(), || {
            format!("a run that is {} does something", input.run.phase)
        });
        return found.0;
    }
    acts_only_where_it_may(&mut found, input, plan);
    events_are_legal(&mut found, input, plan);
    everybody_once(&mut found, input, plan);
    if input.andon.is_none() {
        forward::check(&mut found, &count, plan);
        back::check(&mut found, &count, plan);
    }
    reasons::check(&mut found, &count, plan);
    found.0
}

/// Sentences about broken rules.
#[derive(Debug, Default)]
struct Found(Vec<String>);

impl Found {
    fn unless(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.0.push(sentence());
        }
    }
}

/// Andon, the phase, and time-outs that come first.
fn acts_only_where_it_may(found: &mut Found, input: &PlanInput<'_>, plan: &Plan) {
    let phase = input.run.phase;
    let acts = !plan.offer.is_empty() || !plan.roll_back.is_empty() || !plan.events.is_empty();
    found.unless(
        input.andon.is_none() || (!acts && plan.timed_out.is_empty()),
        || "something is decided under andon".to_owned(),
    );
    found.unless(plan.offer.is_empty() || phase == Phase::Progressing, || {
        format!("a run that is {phase} offers")
    });
    found.unless(
        plan.roll_back.is_empty() || phase == Phase::RollingBack,
        || format!("a run that is {phase} rolls back"),
    );
    found.unless(plan.timed_out.is_empty() || !acts, || {
        "something is decided before time-outs are noted".to_owned()
    });
    let finishes = plan
        .events
        .iter()
        .any(|(event, _)| *event == Event::Finished);
    found.unless(
        plan.events.is_empty() || finishes || plan.offer.is_empty(),
        || "something is offered beside an event".to_owned(),
    );
}

/// Each event is legal after those before it, has a sentence, and is the planner's to say.
fn events_are_legal(found: &mut Found, input: &PlanInput<'_>, plan: &Plan) {
    let mut phase = input.run.phase;
    for (event, sentence) in &plan.events {
        found.unless(!sentence.trim().is_empty(), || {
            format!("{event:?} has no sentence")
        });
        found.unless(!matches!(event, Event::Verb(_) | Event::Superseded), || {
            format!("the planner says {event:?}")
        });
        match phase.next(*event) {
            Ok(next) => phase = next,
            Err(illegal) => found.unless(false, || illegal.to_string()),
        }
    }
}

/// Lists name deployments of the run, each once.
fn everybody_once(found: &mut Found, input: &PlanInput<'_>, plan: &Plan) {
    let known: BTreeSet<DeploymentId> = input.targets.iter().map(|t| t.deployment).collect();
    let late: Vec<DeploymentId> = plan.timed_out.iter().map(|(id, _)| *id).collect();
    for (list, ids) in [
        ("offer", &plan.offer),
        ("roll back", &plan.roll_back),
        ("time out", &late),
    ] {
        let once: BTreeSet<DeploymentId> = ids.iter().copied().collect();
        found.unless(once.len() == ids.len() && once.is_subset(&known), || {
            format!("the plan would {list} somebody twice, or a stranger")
        });
    }
}
