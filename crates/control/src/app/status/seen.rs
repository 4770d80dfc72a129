//! What an agent says it runs, whoever told it to: it may hold that key version, and what nobody here knows is shown.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{BindingId, BindingState};
use keyfleet_core::id::{KeyName, KeyVersion, Revision};
use keyfleet_store::{Binding, Event, EventScope, Tx};

use super::Report;
use crate::app::KEYFLEET;
use crate::error::Error;

/// Versions that nobody here knows, of one binding.
const UNKNOWN_MAX: usize = 8;

/// So many events back a sentence counts as said.
const SAID: u32 = 50;

/// Takes what runs, where that is news. A database that was restored learns here what the fleet has done since.
pub(super) fn take(
    tx: &Tx<'_>,
    binding: &mut Binding,
    report: &Report,
    now: Timestamp,
) -> Result<(), Error> {
    let is_news = binding.running != report.running;
    binding.running = report.running;
    let Some(running) = report.running else {
        return Ok(());
    };
    let connector = &binding.id.connector;
    if is_news {
        let known = tx.connector(connector, running.revision)?;
        let key = match &known {
            Some(known) => Some(known.revision.spec.key.clone()),
            None => {
                unknown_revision(tx, &binding.id, running.revision, now)?;
                newest_key(tx, binding)?
            }
        };
        if let Some(key) = key
            && may_hold(tx, &binding.id, &key, running.key_version)?
        {
            tx.open_holding(&binding.id, &key, running.key_version, now)?;
        }
    }
    // Nobody here told it anything, as after a restore: what it proved is what it can return to.
    let is_proven = report.is_sound() && report.state == BindingState::Proven;
    let adopts = binding.desired.is_none() && is_proven && binding.last_proven != Some(running);
    if adopts && tx.connector(connector, running.revision)?.is_some() {
        binding.last_proven = Some(running);
        binding.proven_at = Some(report.proven_at.unwrap_or(now).min(now));
    }
    Ok(())
}

/// True where the version is known, or the binding says of only few that it runs them without our knowing: after a
/// restore there are one or two, and an agent that makes them up shall not fill the disk.
fn may_hold(
    tx: &Tx<'_>,
    id: &BindingId,
    key: &KeyName,
    version: KeyVersion,
) -> Result<bool, Error> {
    let known = tx.key_versions(key)?;
    let is_known = |version: KeyVersion| known.iter().any(|row| row.version == version);
    if is_known(version) {
        return Ok(true);
    }
    let held = tx.holdings(key)?;
    let n_unknown = held
        .iter()
        .filter(|held| held.binding == *id && !is_known(held.version))
        .count();
    Ok(n_unknown < UNKNOWN_MAX)
}

/// The Key of an unknown revision is taken to be that of the newest one that is known.
fn newest_key(tx: &Tx<'_>, binding: &Binding) -> Result<Option<KeyName>, Error> {
    let all = tx.connectors()?.into_iter();
    let mut ours = all.filter(|c| c.revision.connector == binding.id.connector);
    // They come with the newest first.
    Ok(ours.next().map(|newest| newest.revision.spec.key))
}

fn unknown_revision(
    tx: &Tx<'_>,
    id: &BindingId,
    revision: Revision,
    now: Timestamp,
) -> Result<(), Error> {
    let (space, connector) = (&id.space, &id.connector);
    let text = format!(
        "connector {connector} in space {space} runs revision {revision}, which this database does not know; it gets a known one with the next rollout"
    );
    say_once(tx, id, text, now)
}

/// An agent runs a connector that nobody here placed there: it stays until somebody applies it again.
pub(super) fn unknown_binding(tx: &Tx<'_>, id: &BindingId, now: Timestamp) -> Result<(), Error> {
    let (space, connector) = (&id.space, &id.connector);
    let text = format!(
        "connector {connector} runs in space {space}, and this database does not know that it was placed there; it is left alone until its manifests are applied again"
    );
    say_once(tx, id, text, now)
}

fn say_once(tx: &Tx<'_>, id: &BindingId, text: String, now: Timestamp) -> Result<(), Error> {
    let scope = EventScope::Deployment(id.deployment);
    let said = tx.events(scope, SAID)?;
    if said.iter().any(|event| event.text == text) {
        return Ok(());
    }
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text,
    };
    Ok(tx.add_event(scope, &event)?)
}
