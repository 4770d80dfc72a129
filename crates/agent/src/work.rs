//! The calls to Kibana, one per step. Each is bounded by the client's deadlines and changes nothing in the agent.

use std::sync::Arc;

use jiff::Timestamp;
use keyfleet_core::connector::{ConnectorSpec, Probe};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{
    Client, Driver, KeyValue, Observed, Preflight, ProbeResult, Surface, Version, Wanted, preflight,
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

use crate::decide::Seen;
use crate::wish::{Goal, Place, Wish, join};

mod look;
mod reach;
mod trouble;

pub(crate) use look::{Versions, seen};
use reach::Reach;
pub(crate) use trouble::{Trouble, failure, is_transient};

/// One call, or a few that belong together.
#[derive(Debug)]
pub(crate) enum Job {
    /// Everything that must hold before a write.
    Preflight {
        types: Vec<String>,
        spaces: Vec<SpaceId>,
        /// Also what the credentials allow in each space, which costs a call for each.
        privileges: bool,
    },
    /// Every connector of a space.
    List { space: SpaceId, began: Instant },
    /// A step for one binding.
    Step {
        place: Place,
        serial: u64,
        wish: Arc<Wish>,
        /// Where the connector is kept.
        surface: Surface,
        versions: Versions,
        task: Task,
    },
}

/// What is done for one binding.
#[derive(Debug)]
pub(crate) enum Task {
    Look,
    /// With the config that Kibana showed.
    Baseline(String),
    Write {
        goal: Goal,
        create: bool,
        key: SecretString,
        fingerprint: String,
        version: Version,
    },
    Prove(Goal),
    Delete,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Done {
    Preflight(Box<Preflight>),
    List {
        space: SpaceId,
        began: Instant,
        result: Result<Vec<Observed>, Trouble>,
    },
    Step {
        place: Place,
        serial: u64,
        outcome: Outcome,
    },
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Outcome {
    Looked(Result<Look, Trouble>),
    Baseline(Result<ProbeResult, Trouble>),
    Wrote {
        goal: Goal,
        fingerprint: String,
        /// What it was rendered for.
        version: Version,
        result: Result<(), Trouble>,
    },
    Probed {
        goal: Goal,
        began: Timestamp,
        result: Result<ProbeResult, Trouble>,
    },
    Deleted {
        /// How many rules and others referred to it right before; `None`: this was not told.
        references: Option<u32>,
        result: Result<(), Trouble>,
    },
}

/// What a look showed.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) seen: Seen,
    /// Its own fields, as JSON; empty where there is nothing.
    pub(crate) config: String,
}

/// Does the job.
pub(crate) async fn run(client: Client, job: Job) -> Done {
    match job {
        Job::Preflight {
            types,
            spaces,
            privileges,
        } => {
            let types: Vec<&str> = types.iter().map(String::as_str).collect();
            let wanted = Wanted {
                types: &types,
                spaces: &spaces,
                privileges,
                now: Timestamp::now(),
            };
            Done::Preflight(Box::new(preflight(&client, &wanted).await))
        }
        Job::List { space, began } => Done::List {
            result: client.list(&space).await.map_err(Trouble::from),
            space,
            began,
        },
        Job::Step {
            place,
            serial,
            wish,
            surface,
            versions,
            task,
        } => {
            let reach = Reach {
                client: &client,
                surface: &surface,
                space: &place.space,
                id: &wish.connector_id,
            };
            let outcome = step(reach, &wish, versions, task).await;
            Done::Step {
                place,
                serial,
                outcome,
            }
        }
    }
}

async fn step(reach: Reach<'_>, wish: &Wish, versions: Versions, task: Task) -> Outcome {
    match task {
        Task::Look => Outcome::Looked(look(reach, wish, versions).await),
        Task::Baseline(config) => Outcome::Baseline(baseline(reach, wish, &config).await),
        Task::Prove(goal) => {
            let began = Timestamp::now();
            Outcome::Probed {
                goal,
                began,
                result: probe(reach, wish).await,
            }
        }
        Task::Write {
            goal,
            create,
            key,
            fingerprint,
            version,
        } => {
            let result = write(reach, wish, (create, &key, version)).await;
            Outcome::Wrote {
                goal,
                fingerprint,
                version,
                result,
            }
        }
        Task::Delete => delete(reach, wish.references_agreed).await,
    }
}

async fn look(reach: Reach<'_>, wish: &Wish, versions: Versions) -> Result<Look, Trouble> {
    let found = match reach.look().await {
        // With its space a connector is gone too, which only matters where it shall go.
        Err(keyfleet_kibana::Error::NoSuchRoute { .. })
            if wish.goal.is_none() && reach.is_space_gone().await =>
        {
            None
        }
        found => found?,
    };
    Ok(match found {
        None => Look {
            seen: Seen::Absent,
            config: String::new(),
        },
        Some(observed) => Look {
            seen: seen(wish, versions, &observed)?,
            config: Value::Object(observed.config).to_string(),
        },
    })
}

async fn write(
    reach: Reach<'_>,
    wish: &Wish,
    (create, key, version): (bool, &SecretString, Version),
) -> Result<(), Trouble> {
    let (driver, spec) = driver(wish)?;
    let config = driver.for_version(&spec.config, &spec.if_supported, &version);
    let value = KeyValue {
        text: key,
        parts: &wish.key_parts,
    };
    let rendered = driver.render(&config, &spec.display_name, &value, &version);
    let body = rendered
        .map_err(|problems| Trouble::new(FailureClass::Rejected, &join(&problems), false))?;
    reach.write(create, &body).await?;
    Ok(())
}

/// Removes the connector, unless more refer to it than was agreed. That is counted right before.
async fn delete(reach: Reach<'_>, agreed: u32) -> Outcome {
    let references = match reach.references().await {
        Ok(references) => references,
        Err(error) => {
            let (references, result) = (None, Err(error.into()));
            return Outcome::Deleted { references, result };
        }
    };
    let result = match references {
        Some(n) if n > agreed => Err(Trouble::new(
            FailureClass::Conflict,
            &still_referred_to(n, agreed),
            false,
        )),
        Some(_) | None => reach.delete().await.map_err(Trouble::from),
    };
    Outcome::Deleted { references, result }
}

fn still_referred_to(n: u32, agreed: u32) -> String {
    let they = match n {
        1 => "1 rule or other refers".to_owned(),
        n => format!("{n} rules or others refer"),
    };
    format!(
        "{they} to the connector; agreed were {agreed}: `keyfleet rollout retry ID` removes it all the same"
    )
}

/// Tries the connector as it is now, with its own model: what is asked is whether it works before the change.
async fn baseline(reach: Reach<'_>, wish: &Wish, config: &str) -> Result<ProbeResult, Trouble> {
    let (driver, _) = driver(wish)?;
    try_out(reach, driver, config, &Probe::default()).await
}

async fn probe(reach: Reach<'_>, wish: &Wish) -> Result<ProbeResult, Trouble> {
    let (driver, spec) = driver(wish)?;
    try_out(reach, driver, &spec.config, &spec.probe).await
}

/// One live call, or a second one where the provider's server knows the first one's limit by an older name.
async fn try_out(
    reach: Reach<'_>,
    driver: &dyn Driver,
    config: &str,
    probe: &Probe,
) -> Result<ProbeResult, Trouble> {
    let first = reach.try_out(&driver.probe(config, probe)).await?;
    let Some(params) = driver.probe_again(config, probe, &first) else {
        return Ok(driver.read_probe(&first));
    };
    let second = reach.try_out(&params).await?;
    Ok(driver.read_probe(&second))
}

/// The definition and the driver of its type.
fn driver(wish: &Wish) -> Result<(&'static dyn Driver, &ConnectorSpec), Trouble> {
    let rejected = |text: &str| Trouble::new(FailureClass::Rejected, text, false);
    let spec = wish
        .spec
        .as_ref()
        .ok_or_else(|| rejected("there is no definition"))?;
    let kind = &spec.connector_type;
    let driver = keyfleet_kibana::driver(kind).ok_or_else(|| {
        rejected(&format!(
            "this agent has no driver for connectors of type {kind}; update the agent"
        ))
    })?;
    Ok((driver, spec))
}
