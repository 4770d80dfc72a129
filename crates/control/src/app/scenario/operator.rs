//! What an operator says to a [`World`], and what control answers.

use std::collections::BTreeMap;

use keyfleet_core::token::Role;
use keyfleet_proto::v1;

use super::world::World;
use crate::app::apply::{Applied, Batch, Intent};
use crate::app::{Actor, view};
use crate::error::Error;

pub(super) const YES: Intent = Intent::Apply { yes: true };
pub(super) const NO: Intent = Intent::Apply { yes: false };

pub(super) const CONNECTOR: &str = "apiVersion: keyfleet/v1
kind: Connector
metadata: {name: assistant}
spec:
  type: .gen-ai
  displayName: Assistant
  key: openai
  config: {apiProvider: OpenAI, apiUrl: https://api.openai.com/v1/chat/completions}
";

pub(super) const PLACEMENT: &str = "---
apiVersion: keyfleet/v1
kind: Placement
metadata: {name: everywhere}
spec: {connectors: [assistant]}
";

pub(super) fn actor(role: Role, scope: &str) -> Actor {
    Actor {
        principal: "pat".to_owned(),
        token: None,
        role,
        scope: scope.parse().unwrap(),
    }
}

pub(super) fn pat() -> Actor {
    actor(Role::Operator, "")
}

pub(super) fn batch(text: &str, set: &str, prune: bool) -> Batch {
    let file = v1::ManifestFile {
        name: "f.yaml".to_owned(),
        text: text.to_owned(),
    };
    Batch {
        files: vec![file],
        set: set.to_owned(),
        prune,
        reason: String::new(),
    }
}

pub(super) async fn apply(
    world: &World,
    text: &str,
    set: &str,
    intent: Intent,
) -> Result<Applied, Error> {
    let prune = !set.is_empty();
    let batch = batch(text, set, prune);
    world.app.apply(&pat(), batch, intent).await
}

pub(super) fn deletion(kind: &str, name: &str, intent: Intent) -> v1::DeleteObjectRequest {
    v1::DeleteObjectRequest {
        kind: kind.to_owned(),
        name: name.to_owned(),
        reason: "nobody needs it".to_owned(),
        yes: intent == YES,
        plan: intent == Intent::Plan,
    }
}

pub(super) async fn delete(world: &World, kind: &str, name: &str) -> Result<v1::PlanResult, Error> {
    let request = deletion(kind, name, YES);
    let done = world
        .app
        .delete_object(&actor(Role::Admin, ""), request)
        .await?;
    Ok(done.result.unwrap())
}

pub(super) async fn label(
    world: &World,
    set: (&str, &str),
    intent: Intent,
) -> Result<v1::PlanResult, Error> {
    label_as(world, &pat(), "b", set, intent).await
}

pub(super) async fn label_as(
    world: &World,
    actor: &Actor,
    name: &str,
    (key, value): (&str, &str),
    intent: Intent,
) -> Result<v1::PlanResult, Error> {
    let request = v1::LabelDeploymentRequest {
        name: name.to_owned(),
        set: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        unset: Vec::new(),
        reason: "it moved".to_owned(),
        yes: intent == YES,
        plan: intent == Intent::Plan,
    };
    let done = world.app.label_deployment(actor, request).await?;
    Ok(done.result.unwrap())
}

/// What a refusal says.
pub(super) fn said<T>(result: Result<T, Error>) -> String {
    result.err().map(|err| err.to_string()).unwrap_or_default()
}

/// Names of the connectors that operators see.
pub(super) async fn listed(world: &World) -> Vec<String> {
    let all = world.app.view_as(&pat(), view::connectors).await;
    all.unwrap().into_iter().map(|c| c.name).collect()
}

pub(super) async fn shown(world: &World) -> Vec<v1::Binding> {
    let all = world
        .app
        .view_as(&pat(), |sight| view::binding_views(sight, "", ""))
        .await;
    all.unwrap()
}
