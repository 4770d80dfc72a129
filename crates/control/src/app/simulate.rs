//! `rollout simulate`: reads what is asked, and copies the database for it.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::LABEL_CHARS_MAX;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::placement::Placement;
use keyfleet_core::token::Role;
use keyfleet_proto::{Invalid, labels, v1};
use keyfleet_store::{Scratch, Tx};

use super::apply::{Batch, Intent, Job};
use super::{Actor, App};
use crate::clock;
use crate::error::Error;
use crate::manifest::{Manifest, Object};
use crate::simulate::Conditions;
use crate::simulate::preview::{Audience, DEPLOYMENTS_MAX, Preview, make_up};

/// The most bindings that a made-up fleet may have: twice what the largest real one is built for. Anybody who may look may
/// ask for a preview, and all of it is in memory.
const BINDINGS_MAX: usize = 200_000;

/// A preview that was asked for: everything outside of the database in memory is read.
pub(crate) struct Asked {
    job: Job,
    copy: Scratch,
    /// Deployments that are away, by the true state of their sessions.
    away: BTreeSet<DeploymentId>,
    conditions: Conditions,
    deployments: u32,
    labels: BTreeMap<String, Vec<String>>,
    seed: u64,
    now: Timestamp,
}

/// Whether somebody may ask for a preview: before anything is read, so that who is refused hears that at once.
///
/// # Errors
/// Where the role or the scope of the caller does not reach so far.
pub(crate) fn may_preview(actor: &Actor) -> Result<(), Error> {
    actor.must_be(Role::Viewer)?;
    // The worst case and its sentences are of the whole fleet.
    actor.must_be_for_all()
}

impl App {
    /// Reads manifests and keys as a plan does, and copies the database. Nothing is stored, and no agent hears of it.
    ///
    /// # Errors
    /// Where the caller may not do what the manifests ask for, or something of the request cannot be used.
    pub(crate) async fn preview(
        &self,
        actor: &Actor,
        call: v1::SimulateRolloutRequest,
    ) -> Result<Asked, Error> {
        let conditions = call.faults.parse::<Conditions>();
        let conditions = conditions.map_err(|err| Invalid::new("faults", err.to_string()))?;
        if call.deployments > DEPLOYMENTS_MAX {
            let problem = format!(
                "is {}, and at most {DEPLOYMENTS_MAX} can be tried",
                call.deployments
            );
            return Err(Invalid::new("deployments", problem).into());
        }
        let labels = labels_in_turn(call.labels)?;
        let batch = Batch {
            files: call.files,
            set: call.set,
            ..Batch::default()
        };
        let job = self.job(actor, batch, Intent::Plan).await?;
        let online = self.sessions.online();
        let copied = self.store.read(move |tx| {
            let away = tx.deployments()?.into_iter().map(|row| row.id);
            let away = away.filter(|id| !online.contains(id)).collect();
            Ok::<_, Error>((Scratch::copy_of(tx)?, away))
        });
        let (copy, away) = copied.await?;
        Ok(Asked {
            job,
            copy,
            away,
            conditions,
            deployments: call.deployments,
            labels,
            seed: call.seed.max(1),
            now: clock::now(),
        })
    }
}

impl Asked {
    /// Applies the manifests to the copy, and tries what follows. Takes seconds for a large fleet: for a thread of its own.
    /// `None` where nobody wants the answer any more.
    ///
    /// # Errors
    /// As `apply`; or where the database in memory fails.
    pub(crate) fn run(
        self,
        audience: &mut impl Audience,
    ) -> Result<Option<v1::SimulationResult>, Error> {
        let Self {
            copy, now, seed, ..
        } = self;
        let is_made_up = self.deployments > 0;
        if is_made_up {
            copy.run(|tx| make_up(tx, self.deployments, &self.labels, seed, now))?;
            copy.run(|tx| few_bindings(tx, &self.job.manifests))?;
        }
        if !audience.waits() {
            return Ok(None);
        }
        let plan = self.job.run_on(&copy)?;
        let away = self.away.into_iter().filter(|_| !is_made_up);
        let preview = Preview {
            scratch: copy,
            away: away.collect(),
            start: now,
            seed,
            conditions: self.conditions,
        };
        let Some(mut result) = preview.run(audience)? else {
            return Ok(None);
        };
        if is_made_up {
            let note = "the made-up deployments have nothing yet: everything is installed for the first time";
            result.notes.push(note.to_owned());
        }
        result.warnings.clone_from(&plan.warnings);
        result.plan = Some(plan);
        Ok(Some(result))
    }
}

/// Labels with the values that made-up deployments take in turn, written `eu|us`.
fn labels_in_turn(
    wire: BTreeMap<String, String>,
) -> Result<BTreeMap<String, Vec<String>>, Invalid> {
    // One character too many is as wrong as a million, and shorter to say.
    let short = |text: &str| text.chars().take(LABEL_CHARS_MAX + 1).collect::<String>();
    let first = |text: &str| short(text.split('|').next().unwrap_or_default());
    let firsts = wire.iter().map(|(key, text)| (short(key), first(text)));
    labels("labels", firsts.collect())?;
    let mut all = BTreeMap::new();
    for (key, text) in wire {
        let mut values = Vec::new();
        for value in text.split('|') {
            labels("labels", [(short(&key), short(value))].into())?;
            values.push(value.to_owned());
        }
        all.insert(key, values);
    }
    Ok(all)
}

/// Refuses what would not fit into memory, before it is made.
fn few_bindings(tx: &Tx<'_>, manifests: &[Manifest]) -> Result<(), Error> {
    let known = tx.placements()?.into_iter();
    let mut placements: BTreeMap<_, Placement> = known.map(|p| (p.name.clone(), p)).collect();
    for manifest in manifests {
        if let Object::Placement(placement) = &manifest.object {
            placements.insert(placement.name.clone(), placement.clone());
        }
    }
    let mut bindings = 0_usize;
    for row in tx.deployments()? {
        let own = placements
            .values()
            .filter(|p| p.selector.matches(&row.labels));
        let own: usize = own
            .map(|p| p.connectors.len() * p.spaces.len().max(1))
            .sum();
        bindings = bindings.saturating_add(own);
    }
    if bindings <= BINDINGS_MAX {
        return Ok(());
    }
    let problem = format!(
        "would have {bindings} connectors, and at most {BINDINGS_MAX} are tried: ask for fewer deployments, or place fewer"
    );
    Err(Invalid::new("deployments", problem).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::scenario::world::World;
    use crate::simulate::preview::Patient;

    fn asked(labels: &[(&str, &str)]) -> v1::SimulateRolloutRequest {
        let labels = labels
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        v1::SimulateRolloutRequest {
            deployments: 20_000,
            labels: labels.collect(),
            ..v1::SimulateRolloutRequest::default()
        }
    }

    #[tokio::test]
    async fn what_would_fill_the_memory_is_refused() {
        let world = World::new(&["a"]).await;
        let viewer = crate::app::scenario::world::ops();
        let long = "x".repeat(3_000_000);
        let many: Vec<String> = (0..1_000).map(|n| format!("l{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "v")).collect();
        for labels in [
            &[("region", long.as_str())][..],
            &[("region", "eu||us")],
            &many,
        ] {
            let said = world.app.preview(&viewer, asked(labels)).await.err();
            let said = said.unwrap().to_string();
            assert!(
                said.starts_with("field `labels`") && said.len() < 500,
                "{said:.200}"
            );
        }
        let spaces: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
        let text = format!(
            "apiVersion: keyfleet/v1\nkind: Placement\nmetadata: {{name: everywhere}}\nspec: {{connectors: [assistant], spaces: [{}]}}\n",
            spaces.join(", ")
        );
        let mut call = asked(&[("region", "eu|us")]);
        let name = "f.yaml".to_owned();
        call.files = vec![v1::ManifestFile { name, text }];
        let asked = world.app.preview(&viewer, call).await.unwrap();
        let said = asked.run(&mut Patient).unwrap_err().to_string();
        assert!(
            said.contains("2000000 connectors, and at most 200000"),
            "{said}"
        );
    }
}
