//! Adoption: which connector of its Kibana a binding takes over before it is told for the first time.
//!
//! What the agent of a deployment saw decides about the bindings of that deployment and of no other.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::adoption::{Adopt, AdoptBy, Resolution, Seen, resolve};
use keyfleet_core::binding::{BindingId, BindingState};
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::id::{ConnectorName, DeploymentId, PlacementName};
use keyfleet_kibana::{Observed, Version, driver};
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Event, EventScope, Inventory, SeenConnector, Tx};
use uuid::Uuid;

use super::KEYFLEET;
use crate::error::Error;

/// Differences that are shown of one connector, and characters of each.
const DIFFERENCES_MAX: usize = 20;
const DIFFERENCE_CHARS_MAX: usize = 300;

/// What follows for a binding that has nothing on its Kibana yet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It takes over the connector of this id.
    Take(String),
    /// It gets a connector of its own.
    Own,
    /// It waits, and this is why.
    Waits(String),
}

/// Gives every binding that is about to be told for the first time the connector that it takes over, where its placement
/// says so and everything about it is known.
pub(super) fn settle(tx: &Tx<'_>, bindings: &[Binding], now: Timestamp) -> Result<bool, Error> {
    let mut any = false;
    for (binding, outcome) in outcomes(tx, bindings)? {
        let adopted_id = match outcome {
            Outcome::Take(id) => Some(id),
            Outcome::Own => None,
            Outcome::Waits(_) => continue,
        };
        if binding.adopted_id == adopted_id {
            continue;
        }
        any = true;
        let binding = Binding {
            adopted_id,
            ..binding.clone()
        };
        tx.put_binding(&binding)?;
        if binding.adopted_id.is_some() {
            note(tx, &binding, now)?;
        }
    }
    Ok(any)
}

/// The bindings that wait because of what their placement wants taken over, and why.
pub(super) fn waiting(
    tx: &Tx<'_>,
    bindings: &[Binding],
) -> Result<BTreeMap<BindingId, String>, Error> {
    let outcomes = outcomes(tx, bindings)?.into_iter();
    let waits = outcomes.filter_map(|(binding, outcome)| match outcome {
        Outcome::Waits(why) => Some((binding.id.clone(), why)),
        Outcome::Take(_) | Outcome::Own => None,
    });
    Ok(waits.collect())
}

/// What a plan shows of a binding that is told for the first time; `None` where it takes nothing over.
pub(super) fn shown(tx: &Tx<'_>, binding: &Binding) -> Result<Option<v1::Adoption>, Error> {
    let adopted = binding.adopted_id.clone();
    let Some(adopted) = adopted.filter(|_| has_nothing(binding)) else {
        return Ok(None);
    };
    Ok(Some(v1::Adoption {
        id: adopted,
        differences: differences(tx, binding)?,
        problem: String::new(),
    }))
}

/// The bindings of these placements and deployments that wait, as a plan shows them.
pub(super) fn problems(
    tx: &Tx<'_>,
    placements: &BTreeSet<&str>,
    in_scope: &BTreeSet<DeploymentId>,
) -> Result<Vec<(BindingId, v1::Adoption)>, Error> {
    if placements.is_empty() {
        return Ok(Vec::new());
    }
    let bindings = tx.bindings()?;
    let of_these: Vec<Binding> = bindings
        .into_iter()
        .filter(|binding| placements.contains(binding.placement.as_str()))
        .filter(|binding| in_scope.contains(&binding.id.deployment))
        .collect();
    let waiting = waiting(tx, &of_these)?.into_iter();
    let problem = |(id, problem)| {
        let adoption = v1::Adoption {
            problem,
            ..v1::Adoption::default()
        };
        (id, adoption)
    };
    Ok(waiting.map(problem).collect())
}

/// True where what its agent sees decides something about a binding of this deployment.
pub(super) fn concerns(tx: &Tx<'_>, deployment: DeploymentId) -> Result<bool, Error> {
    let bindings = tx.bindings_of(deployment)?;
    let outcomes = outcomes(tx, &bindings)?;
    let is_free = |outcome: &Outcome| !matches!(outcome, Outcome::Waits(_));
    Ok(outcomes.iter().any(|(_, outcome)| is_free(outcome)))
}

/// Bindings that have nothing on their Kibana, are to get something, and concern adoption; with what follows.
fn outcomes<'a>(
    tx: &Tx<'_>,
    bindings: &'a [Binding],
) -> Result<Vec<(&'a Binding, Outcome)>, Error> {
    let rules = rules(tx)?;
    let rule_of = |binding: &Binding| {
        let rules = rules.get(&binding.placement)?;
        rules
            .iter()
            .find(|rule| rule.connector == binding.id.connector)
    };
    let mut open: BTreeMap<DeploymentId, Vec<(&Binding, Option<&Adopt>)>> = BTreeMap::new();
    for binding in bindings.iter().filter(|binding| has_nothing(binding)) {
        let rule = rule_of(binding);
        if binding.goal.is_some() && (rule.is_some() || binding.adopted_id.is_some()) {
            let of_deployment = open.entry(binding.id.deployment).or_default();
            of_deployment.push((binding, rule));
        }
    }
    let mut all = Vec::new();
    let mut given = None;
    for (deployment, open) in open {
        let mut ground = Ground::load(tx, deployment, &mut given)?;
        for (binding, rule) in open {
            let outcome = match rule {
                Some(rule) => ground.outcome(tx, binding, rule)?,
                None => Outcome::Own,
            };
            all.push((binding, outcome));
        }
    }
    Ok(all)
}

fn rules(tx: &Tx<'_>) -> Result<BTreeMap<PlacementName, Vec<Adopt>>, Error> {
    let placements = tx.placements()?.into_iter();
    let with_rules = placements.filter(|placement| !placement.adopt.is_empty());
    Ok(with_rules.map(|p| (p.name, p.adopt)).collect())
}

/// True where nothing of the binding can be on its Kibana: it was never told, or it was confirmed gone.
fn has_nothing(binding: &Binding) -> bool {
    let is_gone = binding
        .desired
        .is_some_and(|told| told.assignment.is_none())
        && binding.progress.state == BindingState::Proven
        && binding.running.is_none();
    binding.is_untold() || is_gone
}

/// What is on one Kibana, and whose it is.
struct Ground {
    inventory: Inventory,
    /// Connectors of Keyfleet's that may be on this Kibana by their ids there: those of this deployment, and of the ids
    /// that look like ours those of all others, trusted or not.
    owners: BTreeMap<String, ConnectorName>,
}

/// Whose each id is that Keyfleet gave, on any Kibana; loaded once, where anybody asks.
type Given = Option<BTreeMap<String, ConnectorName>>;

impl Ground {
    fn load(tx: &Tx<'_>, deployment: DeploymentId, given: &mut Given) -> Result<Self, Error> {
        let inventory = tx.inventory(deployment)?;
        let mut owners = BTreeMap::new();
        let mut like_ours = inventory.connectors.iter().map(|seen| &seen.id);
        if given.is_none() && like_ours.clone().any(|id| is_like_ours(id)) {
            let all = tx.bindings()?;
            let own = all.iter().filter(|binding| binding.adopted_id.is_none());
            *given = Some(own.map(owner).collect());
        }
        if let Some(given) = given {
            let known = like_ours.by_ref();
            let known = known.filter_map(|id| given.get_key_value(id));
            owners.extend(known.map(|(id, owner)| (id.clone(), owner.clone())));
        }
        owners.extend(tx.bindings_of(deployment)?.iter().map(owner));
        Ok(Self { inventory, owners })
    }

    /// What the rule means for this binding; what it takes over is nobody else's from here on.
    fn outcome(&mut self, tx: &Tx<'_>, binding: &Binding, rule: &Adopt) -> Result<Outcome, Error> {
        if let Some(kept) = self.kept(binding, rule) {
            return Ok(Outcome::Take(kept));
        }
        // Its own name for itself is no claim of another's.
        self.owners.remove(&binding.connector_id());
        if binding.running.is_some() {
            return Ok(runs_already(rule));
        }
        let Some(spec) = goal_spec(tx, binding)? else {
            return Ok(Outcome::Own);
        };
        let wanted = &spec.connector_type;
        let resolution = self.resolution(binding, rule, wanted);
        if let Some(problem) = resolution.problem(rule, wanted) {
            return Ok(Outcome::Waits(problem));
        }
        let Resolution::Take(id) = resolution else {
            return Ok(Outcome::Own);
        };
        self.owners.insert(id.clone(), binding.id.connector.clone());
        Ok(Outcome::Take(id))
    }

    fn resolution(&self, binding: &Binding, rule: &Adopt, wanted: &str) -> Resolution {
        let own_id = binding.id.connector_id().as_hyphenated().to_string();
        let space = binding.id.space.as_str();
        let here = |seen: &&SeenConnector| seen.space == space && seen.id != own_id;
        let here = self.inventory.connectors.iter().filter(here);
        let seen: Vec<Seen<'_>> = here
            .map(|seen| Seen {
                id: &seen.id,
                name: &seen.name,
                connector_type: &seen.connector_type,
                is_read_only: seen.is_read_only,
                owner: self.owners.get(&seen.id),
            })
            .collect();
        let resolution = resolve(rule, &seen, self.inventory.is_complete, wanted);
        // What became ours is not seen any more, and an id that the rule names is still known.
        match (&resolution, &rule.by) {
            (Resolution::Make, AdoptBy::Id(id)) => match self.owners.get(id) {
                Some(connector) => Resolution::Ours {
                    id: id.clone(),
                    connector: connector.clone(),
                },
                None => resolution,
            },
            _ => resolution,
        }
    }

    /// What it was given stays, as long as the rule means that: what is seen later of the same name changes nothing.
    fn kept(&self, binding: &Binding, rule: &Adopt) -> Option<String> {
        let id = binding.adopted_id.clone().filter(|_| binding.is_untold())?;
        let is_meant = match &rule.by {
            AdoptBy::Id(wanted) => *wanted == id,
            AdoptBy::Name(name) => {
                let mut seen = self.inventory.connectors.iter();
                let is_it = |seen: &SeenConnector| {
                    seen.id == id && seen.space == binding.id.space.as_str() && seen.name == *name
                };
                !self.inventory.is_complete || seen.any(is_it)
            }
        };
        is_meant.then_some(id)
    }
}

fn owner(binding: &Binding) -> (String, ConnectorName) {
    (binding.connector_id(), binding.id.connector.clone())
}

/// True of ids of the form that Keyfleet gives.
pub(super) fn is_like_ours(id: &str) -> bool {
    Uuid::try_parse(id).is_ok_and(|id| id.get_version() == Some(uuid::Version::Sha1))
}

/// Its agent was told by a history that this database does not know: then it may be under any id there.
fn runs_already(rule: &Adopt) -> Outcome {
    match &rule.by {
        AdoptBy::Id(id) => Outcome::Take(id.clone()),
        AdoptBy::Name(_) => Outcome::Waits(format!(
            "connector {} runs there already, and this database does not know under which id: name it by its id in spec.adopt, or take it out of there if Keyfleet made it",
            rule.connector
        )),
    }
}

fn goal_spec(tx: &Tx<'_>, binding: &Binding) -> Result<Option<ConnectorSpec>, Error> {
    let Some(goal) = binding.goal else {
        return Ok(None);
    };
    let stored = tx.connector(&binding.id.connector, goal.revision)?;
    Ok(stored.map(|stored| stored.revision.spec))
}

fn note(tx: &Tx<'_>, binding: &Binding, now: Timestamp) -> Result<(), Error> {
    let (connector, space) = (&binding.id.connector, &binding.id.space);
    let differences = differences(tx, binding)?;
    let differences = match differences.as_slice() {
        [] => "it agrees with the definition".to_owned(),
        some => some.join("; "),
    };
    let text = format!(
        "connector {connector} in space {space} takes over {}, which was there before: {differences}",
        binding.connector_id()
    );
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text,
    };
    Ok(tx.add_event(EventScope::Deployment(binding.id.deployment), &event)?)
}

/// What the first write changes, a line each.
fn differences(tx: &Tx<'_>, binding: &Binding) -> Result<Vec<String>, Error> {
    let unknown = || vec!["what it holds now is not known here".to_owned()];
    let inventory = tx.inventory(binding.id.deployment)?;
    let (id, space) = (binding.connector_id(), binding.id.space.as_str());
    let mut seen = inventory.connectors.into_iter();
    let seen = seen.find(|seen| seen.id == id && seen.space == space);
    let (Some(seen), Some(spec)) = (seen, goal_spec(tx, binding)?) else {
        return Ok(unknown());
    };
    let Some(driver) = driver(&spec.connector_type) else {
        return Ok(unknown());
    };
    let Ok(config) = serde_json::from_str(&seen.config) else {
        return Ok(unknown());
    };
    let observed = Observed {
        id: seen.id,
        name: seen.name,
        connector_type_id: seen.connector_type,
        config,
        is_missing_secrets: seen.is_missing_secrets,
        is_preconfigured: seen.is_read_only,
        is_system_action: false,
        referenced_by_count: Some(seen.references),
    };
    let facts = tx.deployment(binding.id.deployment)?.and_then(|d| d.facts);
    let version = facts.and_then(|facts| facts.version.parse::<Version>().ok());
    let wanted = match version {
        Some(version) => driver.for_version(&spec.config, &spec.if_supported, &version),
        None => spec.config,
    };
    let found = driver.differences(&wanted, &spec.display_name, &observed);
    let short = |text: String| text.chars().take(DIFFERENCE_CHARS_MAX).collect();
    let mut lines: Vec<String> = found.iter().map(|found| short(found.to_string())).collect();
    if lines.len() > DIFFERENCES_MAX {
        let n_more = lines.len() - DIFFERENCES_MAX;
        lines.truncate(DIFFERENCES_MAX);
        lines.push(format!("and {n_more} more"));
    }
    Ok(lines)
}
