//! Approvals: who agreed that a wave may begin.

use keyfleet_core::Timestamp;
use keyfleet_core::rollout::{Approval, Approved};
use keyfleet_store::Tx;

use crate::app::step::Loaded;
use crate::app::view::short;
use crate::error::Error;

/// Notes that somebody agrees with a wave; says what that did, and whether it is new.
pub(super) fn approve(
    tx: &Tx<'_>,
    loaded: &mut Loaded,
    principal: &str,
    name: &str,
    now: Timestamp,
) -> Result<(String, bool), Error> {
    let id = loaded.rollout.id;
    let asking = asking(loaded);
    let wave = match name {
        "" => asking
            .iter()
            .find(|wave| wave.is_lacking())
            .or(asking.last()),
        name => asking.iter().find(|wave| wave.name == name),
    };
    let wave = wave.ok_or_else(|| nothing_to_approve(name, &asking))?;
    if wave.approval.not_author && principal == loaded.rollout.run.author {
        let (wave, id) = (&wave.name, short(id));
        return Err(Error::Precondition(format!(
            "wave {wave} asks for the approval of others than {principal}, who started rollout {id}"
        )));
    }
    let (name, required) = (&wave.name, wave.approval.required);
    let approved = Approved {
        wave: wave.index,
        principal: principal.to_owned(),
    };
    let given = wave.given;
    if !loaded.rollout.run.approve(wave.index, principal) {
        let known = format!("{principal} had approved wave {name} already, {given} of {required}");
        return Ok((known, false));
    }
    tx.approve_rollout(id, &approved, now)?;
    if loaded.is_past_deadline(tx, now)? {
        loaded.rollout.run.wait_ended(now);
    }
    let given = given + 1;
    let news = format!("{principal} approved wave {name}, {given} of {required}");
    Ok((news, true))
}

/// A wave that asks for approvals.
struct Asking {
    index: usize,
    name: String,
    approval: Approval,
    given: usize,
}

impl Asking {
    fn is_lacking(&self) -> bool {
        u32::try_from(self.given).unwrap_or(u32::MAX) < self.approval.required
    }
}

/// The waves that ask for approvals, those first that have deployments and have not begun.
fn asking(loaded: &Loaded) -> Vec<Asking> {
    let run = &loaded.rollout.run;
    let begun = |index: usize| run.wave.is_some_and(|wave| index <= wave);
    let is_of = |index: usize| loaded.targets.iter().any(|t| t.wave == index && !t.left);
    let waves = loaded.rollout.strategy.waves.iter().enumerate();
    let counts = |approval: &Approval, approved: &Approved| {
        !(approval.not_author && approved.principal == run.author)
    };
    let mut asking: Vec<Asking> = waves
        .filter_map(|(index, wave)| {
            let approval = wave.approval?;
            let given = run.approvals.iter().filter(|a| a.wave == index);
            Some(Asking {
                index,
                name: wave.name.clone(),
                approval,
                given: given.filter(|a| counts(&approval, a)).count(),
            })
        })
        .collect();
    asking.sort_by_key(|wave| (begun(wave.index) || !is_of(wave.index), wave.index));
    asking
}

fn nothing_to_approve(name: &str, asking: &[Asking]) -> Error {
    let names: Vec<&str> = asking.iter().map(|wave| wave.name.as_str()).collect();
    Error::Precondition(match (name, names.as_slice()) {
        (_, []) => "no wave of this rollout asks for an approval".to_owned(),
        (name, names) => format!(
            "wave {name:?} asks for no approval; those that do: {}",
            names.join(", ")
        ),
    })
}
