//! The calls to Kibana, one per step. Each is bounded by the client's deadlines and changes nothing in the agent.

use jiff::Timestamp;
use keyfleet_core::binding::Failure;
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{
    Client, Driver, Error, Observed, Preflight, ProbeResult, Version, preflight,
};
use keyfleet_seal::scrub;
use secrecy::SecretString;
use std::time::Duration;

use crate::decide::Seen;
use crate::wish::{Goal, Place, Wish, join};

/// Longest text about a failure, in characters: enough for a person, and a report stays small.
const TEXT_CHARS_MAX: usize = 600;

/// One call, or a few that belong together.
#[derive(Debug)]
pub(crate) enum Job {
    /// Everything that must hold before a write.
    Preflight {
        types: Vec<String>,
        spaces: Vec<SpaceId>,
    },
    /// A step for one binding.
    Step {
        place: Place,
        serial: u64,
        wish: Box<Wish>,
        /// The Kibana that the definition is rendered for, as far as it is known.
        version: Option<Version>,
        task: Task,
    },
}

/// What is done for one binding.
#[derive(Debug)]
pub(crate) enum Task {
    Look,
    Baseline,
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
    Step {
        place: Place,
        serial: u64,
        outcome: Outcome,
    },
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Outcome {
    Looked(Result<Seen, Trouble>),
    Baseline(Result<ProbeResult, Trouble>),
    Wrote {
        goal: Goal,
        fingerprint: String,
        result: Result<(), Trouble>,
    },
    Probed {
        goal: Goal,
        began: Timestamp,
        result: Result<ProbeResult, Trouble>,
    },
    Deleted(Result<(), Trouble>),
}

/// A step that failed, and what to make of it.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) failure: Failure,
    /// The same may succeed soon.
    pub(crate) retryable: bool,
    /// Kibana asked to be left alone for so long.
    pub(crate) retry_after: Option<Duration>,
    /// Nothing was written for certain.
    pub(crate) refused: bool,
}

impl Trouble {
    pub(crate) fn new(class: FailureClass, text: &str, retryable: bool) -> Self {
        Self {
            failure: failure(class, text),
            retryable,
            retry_after: None,
            refused: true,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self {
            failure: failure(error.class(), &error.to_string()),
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
            refused: is_refusal(&error),
        }
    }
}

/// A failure whose text is scrubbed and short. Every text that leaves this module goes through here.
pub(crate) fn failure(class: FailureClass, text: &str) -> Failure {
    Failure {
        class,
        text: scrub(text).chars().take(TEXT_CHARS_MAX).collect(),
    }
}

/// Does the job.
pub(crate) async fn run(client: Client, job: Job) -> Done {
    match job {
        Job::Preflight { types, spaces } => {
            let types: Vec<&str> = types.iter().map(String::as_str).collect();
            Done::Preflight(Box::new(preflight(&client, &types, &spaces).await))
        }
        Job::Step {
            place,
            serial,
            wish,
            version,
            task,
        } => {
            let outcome = step(&client, &place, (&wish, version), task).await;
            Done::Step {
                place,
                serial,
                outcome,
            }
        }
    }
}

async fn step(
    client: &Client,
    place: &Place,
    (wish, version): (&Wish, Option<Version>),
    task: Task,
) -> Outcome {
    let id = wish.connector_id.as_hyphenated().to_string();
    match task {
        Task::Look => Outcome::Looked(look(client, place, (wish, version), &id).await),
        Task::Baseline => Outcome::Baseline(baseline(client, place, wish, &id).await),
        Task::Prove(goal) => {
            let began = Timestamp::now();
            Outcome::Probed {
                goal,
                began,
                result: probe(client, place, wish, &id).await,
            }
        }
        Task::Write {
            goal,
            create,
            key,
            fingerprint,
            version,
        } => {
            let result = write(client, place, wish, &id, (create, key, version)).await;
            Outcome::Wrote {
                goal,
                fingerprint,
                result,
            }
        }
        Task::Delete => {
            let deleted = client.delete(&place.space, &id).await;
            Outcome::Deleted(deleted.map(drop).map_err(Trouble::from))
        }
    }
}

async fn look(
    client: &Client,
    place: &Place,
    (wish, version): (&Wish, Option<Version>),
    id: &str,
) -> Result<Seen, Trouble> {
    Ok(match client.get(&place.space, id).await? {
        None => Seen::Absent,
        Some(observed) => seen((wish, version), &observed)?,
    })
}

fn seen((wish, version): (&Wish, Option<Version>), observed: &Observed) -> Result<Seen, Trouble> {
    if observed.is_preconfigured || observed.is_system_action {
        return Ok(Seen::Foreign(
            "the connector is kept in kibana.yml or by Kibana itself".to_owned(),
        ));
    }
    let Some(spec) = &wish.spec else {
        return Ok(Seen::Ours {
            differences: Vec::new(),
        });
    };
    if observed.connector_type_id != spec.connector_type {
        let text = format!(
            "a connector of type {} has this id already",
            observed.connector_type_id
        );
        return Ok(Seen::Foreign(text));
    }
    let (driver, _) = driver(wish)?;
    let config = version.map_or_else(
        || spec.config.clone(),
        |version| driver.for_version(&spec.config, &spec.if_supported, &version),
    );
    let differences = driver.differences(&config, &spec.display_name, observed);
    Ok(Seen::Ours {
        differences: differences
            .iter()
            .map(|difference| scrub(&difference.to_string()).into_owned())
            .collect(),
    })
}

async fn write(
    client: &Client,
    place: &Place,
    wish: &Wish,
    id: &str,
    (create, key, version): (bool, SecretString, Version),
) -> Result<(), Trouble> {
    let (driver, spec) = driver(wish)?;
    let config = driver.for_version(&spec.config, &spec.if_supported, &version);
    let rendered = driver.render(&config, &spec.display_name, &key, &version);
    let body = rendered
        .map_err(|problems| Trouble::new(FailureClass::Rejected, &join(&problems), false))?;
    if create {
        client.create(&place.space, id, &body).await?;
    } else {
        client.update(&place.space, id, &body).await?;
    }
    Ok(())
}

/// Tries the connector as it is now, with its own model: what is asked is whether it works before the change.
async fn baseline(
    client: &Client,
    place: &Place,
    wish: &Wish,
    id: &str,
) -> Result<ProbeResult, Trouble> {
    let (driver, _) = driver(wish)?;
    let Some(observed) = client.get(&place.space, id).await? else {
        let text = "the connector went away before it could be tried";
        return Err(Trouble::new(FailureClass::Conflict, text, true));
    };
    let config = serde_json::Value::Object(observed.config).to_string();
    try_out(client, place, id, (driver, &config)).await
}

async fn probe(
    client: &Client,
    place: &Place,
    wish: &Wish,
    id: &str,
) -> Result<ProbeResult, Trouble> {
    let (driver, spec) = driver(wish)?;
    try_out(client, place, id, (driver, &spec.config)).await
}

/// One live call, or a second one where the provider's server knows the first one's limit by an older name.
async fn try_out(
    client: &Client,
    place: &Place,
    id: &str,
    (driver, config): (&dyn Driver, &str),
) -> Result<ProbeResult, Trouble> {
    let first = client
        .execute(&place.space, id, &driver.probe(config))
        .await?;
    let Some(params) = driver.probe_again(config, &first) else {
        return Ok(driver.read_probe(&first));
    };
    let second = client.execute(&place.space, id, &params).await?;
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

/// True where Kibana did not carry the call out. After any other error of a write nobody knows.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Settings { .. }
        | Error::Unreachable { .. }
        | Error::Proxy { .. }
        | Error::Tls { .. }
        | Error::Redirected { .. }
        | Error::TooManyRequests { .. }
        | Error::Unauthorized { .. }
        | Error::Redacted { .. }
        | Error::Forbidden { .. }
        | Error::Licence { .. }
        | Error::TypeNotEnabled { .. }
        | Error::HostNotAllowed { .. }
        | Error::Rejected { .. }
        | Error::NotOurs { .. }
        | Error::Conflict { .. }
        | Error::Gone { .. }
        | Error::NoSuchRoute { .. } => true,
        Error::Timeout { .. }
        | Error::Truncated { .. }
        | Error::TooLarge { .. }
        | Error::NotJson { .. }
        | Error::Unexpected { .. }
        | Error::NotReady { .. }
        | Error::ServerError { .. }
        | Error::NoEncryptionKey { .. }
        | Error::Undecryptable { .. } => false,
    }
}

/// True where trying again may help without anybody doing anything, judged by the provider's refusal alone.
pub(crate) fn is_transient(class: FailureClass) -> bool {
    match class {
        FailureClass::RateLimit
        | FailureClass::Network
        | FailureClass::Provider
        | FailureClass::KibanaDown
        | FailureClass::Timeout => true,
        FailureClass::Auth
        | FailureClass::Egress
        | FailureClass::Quota
        | FailureClass::Model
        | FailureClass::Licence
        | FailureClass::KibanaAuth
        | FailureClass::Rejected
        | FailureClass::Conflict
        | FailureClass::Encryption
        | FailureClass::Unreachable
        | FailureClass::Agent => false,
    }
}
