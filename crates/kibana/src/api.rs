//! The calls that Keyfleet makes to Kibana, all of them public and unversioned routes; those to Elasticsearch are in
//! `endpoints`.

mod answers;
pub(crate) mod endpoints;
pub(crate) mod events;

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use keyfleet_core::id::SpaceId;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::answers::{ExecutionBody, HealthBody, SpaceBody, StatusBody, count, or_default};
use crate::client::{Answer, Client, Reading, Request, Service};
use crate::error::Error;
use crate::version::Version;
use crate::write::Write;

/// A connector type that no Kibana has.
const NO_TYPE: &str = "keyfleet.privilege-check";

/// What a Kibana says of itself (`GET /api/status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its release.
    pub version: Version,
    /// The id of this instance; several instances may stand on one Elasticsearch.
    pub uuid: String,
    /// `server.name`, for people.
    pub name: String,
    /// `traditional` or `serverless`; older releases do not tell and are `traditional`.
    pub flavor: String,
    /// True where the whole and all parts that connectors need are at least `degraded`.
    pub available: bool,
}

/// A space that the credentials may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its id.
    pub id: SpaceId,
    /// False where the space has switched "Actions and Connectors" off.
    pub actions_enabled: bool,
}

/// A connector type of a Kibana (`GET /api/actions/connector_types`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TypeInfo {
    /// For example `.gen-ai`.
    pub id: String,
    /// In `xpack.actions.enabledActionTypes`.
    #[serde(default)]
    pub enabled_in_config: bool,
    /// Allowed by the licence.
    #[serde(default)]
    pub enabled_in_license: bool,
    /// The least licence that allows it, for example `enterprise`.
    #[serde(default)]
    pub minimum_license_required: String,
    /// Told since 9.0; true for `.gen-ai` from 9.5, which still works.
    #[serde(default, deserialize_with = "or_default")]
    pub is_deprecated: bool,
}

/// A connector as Kibana shows it. Secrets are never shown by any Kibana.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Observed {
    /// Its id.
    pub id: String,
    /// The name that people see; not unique.
    pub name: String,
    /// For example `.gen-ai`.
    pub connector_type_id: String,
    /// Its fields, with what the server filled in; empty for a preconfigured connector.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Map<String, Value>,
    /// True after an import or a lost encryption key: the connector cannot work until it is written again.
    #[serde(default, deserialize_with = "or_default")]
    pub is_missing_secrets: bool,
    /// Kept in kibana.yml: can be neither written nor removed.
    #[serde(default, deserialize_with = "or_default")]
    pub is_preconfigured: bool,
    /// Kept by Kibana itself (since 8.10): can be neither written nor removed.
    #[serde(default, deserialize_with = "or_default")]
    pub is_system_action: bool,
    /// Rules and others that refer to it; told by lists only.
    #[serde(default, deserialize_with = "count")]
    pub referenced_by_count: Option<u32>,
}

impl Observed {
    /// True where no call can change it: it lives in kibana.yml or in Kibana itself.
    pub fn is_read_only(&self) -> bool {
        self.is_preconfigured || self.is_system_action
    }
}

/// How a run of a connector ended.
///
/// `message` is the provider's text as Kibana passes it on. It **may repeat part of a key**: scrub it with
/// `keyfleet-seal` before it leaves the agent or reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Execution {
    /// True where Kibana reports `status: ok`. The HTTP status says nothing: it is 200 either way.
    pub ok: bool,
    /// The provider's HTTP status where the message has one; a hint, for the text differs between versions.
    pub status_code: Option<u16>,
    /// Kibana's `service_message`, else its `message`; empty after success.
    pub message: String,
}

impl Client {
    /// What this Kibana is and whether it is ready. A Kibana that is not ready answers too, with 503.
    ///
    /// # Errors
    /// [`Error::Redacted`] where the credentials are not known to this cluster; else any error of a call.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(self.status_and_date().await?.0)
    }

    /// The same with the time that Kibana says it is.
    pub(crate) async fn status_and_date(&self) -> Result<(Status, Option<Timestamp>), Error> {
        let answer = self.get_json(None, &["api", "status"]).await?;
        let (call, status, date) = (answer.call.clone(), answer.status, answer.date);
        let body = match answer.parse::<StatusBody>() {
            Ok(body) if status == 200 || (status == 503 && body.version.is_some()) => body,
            _ => answer.json()?,
        };
        Ok((body.read(call, status)?, date))
    }

    /// The spaces that the credentials may see. A space whose id no manifest can name is left out.
    ///
    /// # Errors
    /// Any error of a call.
    pub async fn spaces(&self) -> Result<Vec<Space>, Error> {
        // A space may hold a picture.
        let path = ["api", "spaces", "space"];
        let answer = self.read(None, &path, Reading::List).await?;
        let spaces: Vec<SpaceBody> = answer.json()?;
        Ok(spaces.into_iter().filter_map(SpaceBody::read).collect())
    }

    /// Every connector type that is registered in this Kibana.
    ///
    /// # Errors
    /// Any error of a call.
    pub async fn connector_types(&self) -> Result<Vec<TypeInfo>, Error> {
        let answer = self
            .get_json(None, &["api", "actions", "connector_types"])
            .await?;
        self.explain(answer.json()).await
    }

    /// One connector, or `None` where this space has none with that id.
    ///
    /// # Errors
    /// Any error of a call.
    pub async fn get(&self, space: &SpaceId, id: &str) -> Result<Option<Observed>, Error> {
        let answer = self
            .get_json(Some(space), &["api", "actions", "connector", id])
            .await?;
        match self.explain(answer.json()).await {
            Err(Error::Gone { .. }) => Ok(None),
            observed => observed.map(Some),
        }
    }

    /// Every connector of a space, with those of kibana.yml and those that Kibana adds by itself.
    ///
    /// The list changes on its own, so that absence here proves nothing: ask [`Client::get`]. It alone tells how many
    /// rules and others refer to a connector.
    ///
    /// # Errors
    /// [`Error::ListTooLarge`] beyond 8 MiB; else any error of a call.
    pub async fn list(&self, space: &SpaceId) -> Result<Vec<Observed>, Error> {
        let path = ["api", "actions", "connectors"];
        let answer = self.read(Some(space), &path, Reading::List).await?;
        self.explain(answer.json()).await
    }

    /// Creates a connector under an id of ours; a lowercase UUID is valid on every Kibana. The provider is not called.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the id exists, perhaps in another space; else any error of a call.
    pub async fn create(
        &self,
        space: &SpaceId,
        id: &str,
        write: &Write,
    ) -> Result<Observed, Error> {
        let answer = self
            .write(Method::POST, space, &[id], Some(write.create_body()))
            .await?;
        self.explain(answer.json()).await
    }

    /// Replaces a connector: name, config and secrets, all of them. The provider is not called.
    ///
    /// # Errors
    /// [`Error::Gone`] where it does not exist (any more); [`Error::Conflict`] where somebody wrote at the same
    /// moment; else any error of a call.
    pub async fn update(
        &self,
        space: &SpaceId,
        id: &str,
        write: &Write,
    ) -> Result<Observed, Error> {
        let answer = self
            .write(Method::PUT, space, &[id], Some(write.update_body()))
            .await?;
        self.explain(answer.json()).await
    }

    /// Removes a connector, also where rules still use it. `false`: there was none.
    ///
    /// # Errors
    /// Any error of a call.
    pub async fn delete(&self, space: &SpaceId, id: &str) -> Result<bool, Error> {
        let answer = self.write(Method::DELETE, space, &[id], None).await?;
        if answer.is_success() {
            return Ok(true);
        }
        match self.explain::<()>(Err(answer.refusal())).await {
            Err(Error::Gone { .. }) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    /// Runs a connector with the parameters of [`crate::Driver::probe`]. Costs a call to the provider; waits at most
    /// the client's probe timeout.
    ///
    /// # Errors
    /// Where Kibana did not run it. A run that failed is an [`Execution`] with `ok: false`.
    pub async fn execute(
        &self,
        space: &SpaceId,
        id: &str,
        params: &Value,
    ) -> Result<Execution, Error> {
        let body = Bytes::from(serde_json::json!({ "params": params }).to_string());
        let answer = self
            .write(Method::POST, space, &[id, "_execute"], Some(body))
            .await?;
        let execution: ExecutionBody = self.explain(answer.json()).await?;
        Ok(execution.read())
    }

    /// Whether the credentials may write connectors in a space; nothing is written. Kibana looks at the privilege
    /// before it looks for the type, so that the create of a type that does not exist tells (`create.ts`).
    ///
    /// # Errors
    /// Where Kibana answers neither yes nor no.
    pub(crate) async fn may_write(&self, space: &SpaceId) -> Result<bool, Error> {
        let body = serde_json::json!({
            "name": "Keyfleet asks for its privileges",
            "connector_type_id": NO_TYPE,
            "config": {},
            "secrets": {},
        });
        let body = Bytes::from(body.to_string());
        let answer = self.write(Method::POST, space, &[], Some(body)).await?;
        if answer.is_success() {
            let problem =
                format!("a connector of the type {NO_TYPE} was taken, which does not exist");
            let call = answer.call;
            return Err(Error::Unexpected { call, problem });
        }
        let names_type = String::from_utf8_lossy(&answer.body).contains(NO_TYPE);
        let error = answer.refusal();
        if matches!(error, Error::Forbidden { .. }) {
            Ok(false)
        } else if matches!(error, Error::Rejected { .. }) && names_type {
            Ok(true)
        } else {
            Err(error)
        }
    }

    /// Whether Kibana has its encryption key; `None` where it does not tell (the route wants a privilege on rules).
    ///
    /// # Errors
    /// Where Kibana itself fails.
    pub(crate) async fn has_encryption_key(&self) -> Result<Option<bool>, Error> {
        let answer = self.get_json(None, &["api", "alerting", "_health"]).await?;
        if matches!(answer.status, 400..=404) {
            return Ok(None);
        }
        let health: HealthBody = answer.json()?;
        Ok(health.has_permanent_encryption_key)
    }

    async fn get_json(&self, space: Option<&SpaceId>, path: &[&str]) -> Result<Answer, Error> {
        self.read(space, path, Reading::Whole).await
    }

    async fn read(
        &self,
        space: Option<&SpaceId>,
        path: &[&str],
        reading: Reading,
    ) -> Result<Answer, Error> {
        self.send(Request {
            service: Service::Kibana,
            method: Method::GET,
            space,
            path,
            body: None,
            timeout: self.timeout,
            reading,
        })
        .await
    }

    async fn write(
        &self,
        method: Method,
        space: &SpaceId,
        rest: &[&str],
        body: Option<Bytes>,
    ) -> Result<Answer, Error> {
        let path = [&["api", "actions", "connector"], rest].concat();
        let timeout = if rest.len() > 1 {
            self.probe_timeout
        } else {
            self.timeout
        };
        self.send(Request {
            service: Service::Kibana,
            method,
            space: Some(space),
            path: &path,
            body,
            timeout,
            reading: Reading::Whole,
        })
        .await
    }

    /// Kibana hides the reason of a 500. On these routes it is mostly a missing or changed encryption key, so ask.
    async fn explain<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        let Err(Error::ServerError { call, status: 500 }) = outcome else {
            return outcome;
        };
        let runs_connector = call.line.ends_with("/_execute");
        Err(match self.has_encryption_key().await {
            Ok(Some(false)) => Error::NoEncryptionKey { call },
            Ok(Some(true)) if runs_connector => Error::Undecryptable { call },
            Ok(None) => Error::Undecryptable { call },
            Ok(Some(true)) | Err(_) => Error::ServerError { call, status: 500 },
        })
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("ok", &self.ok)
            .field("status_code", &self.status_code)
            .finish_non_exhaustive()
    }
}
