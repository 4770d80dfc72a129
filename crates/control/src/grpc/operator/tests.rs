//! Who may do what: a row for every call of the API, tried as every role with and without a scope.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use keyfleet_core::audit::Outcome;
use keyfleet_core::token::Role;
use keyfleet_proto::v1::operator_service_server::OperatorServiceServer;
use keyfleet_store::{AuditEntry, TokenUse};
use prost::Message as _;
use secrecy::ExposeSecret as _;
use tonic::Code;
use tonic::codegen::Service as _;

use super::{OperatorApi, streams};
use crate::app::Actor;
use crate::app::audit::{Since, record_own};
use crate::app::scenario::world::{World, ops};
use crate::app::tokens::{self, NewToken};
use crate::clock;

const SERVICE: &str = "OperatorService";

/// The scope of the tokens that have one.
const SCOPE: &str = "tier=canary";

/// Each call, and who may make it: a viewer, an operator, an admin; in capitals those with a scope.
const TABLE: [(&str, &str); 37] = [
    ("Plan", "voaVOA"),
    ("Apply", "oaOA"),
    ("GetStatus", "voaVOA"),
    ("ListDeployments", "voaVOA"),
    ("GetDeployment", "voaVOA"),
    ("PreflightDeployment", "voaVOA"),
    ("ListConnectors", "voaVOA"),
    ("GetConnector", "voaVOA"),
    ("ListPlacements", "voaVOA"),
    ("ListStrategies", "voaVOA"),
    ("ListKeys", "voaVOA"),
    ("GetKey", "voaVOA"),
    ("ListBindings", "voaVOA"),
    ("ListRollouts", "voaVOA"),
    ("GetRollout", "voaVOA"),
    ("WatchRollout", "voaVOA"),
    ("ChangeRollout", "oaOA"),
    ("ExplainRollout", "voaVOA"),
    ("SimulateRollout", "voa"),
    ("StartCampaign", "a"),
    ("ListCampaigns", "voa"),
    ("GetCampaign", "voa"),
    ("WatchCampaign", "voa"),
    ("ChangeCampaign", "a"),
    ("CreateToken", "aA"),
    ("ListTokens", "aA"),
    ("RevokeToken", "aA"),
    ("DeleteObject", "oaOA"),
    ("ChangeDeployment", "aA"),
    ("ReplaceDeployment", "aA"),
    ("RemoveDeployment", "aA"),
    ("LabelDeployment", "oaOA"),
    ("GetCa", "voaVOA"),
    ("RotateCa", "a"),
    ("FinishCaRotation", "a"),
    ("ReadAudit", "oa"),
    ("SetAndon", "oa"),
];

/// The names of the calls, from the contract itself.
fn calls() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(keyfleet_proto::DESCRIPTORS).unwrap();
    let services = files.file.into_iter().flat_map(|file| file.service);
    let ours = services.filter(|service| service.name() == SERVICE);
    ours.flat_map(|service| service.method)
        .map(|method| method.name().to_owned())
        .collect()
}

/// The API on a small world, called as the transport would.
struct Api {
    world: World,
    server: OperatorServiceServer<OperatorApi>,
}

impl Api {
    async fn new() -> Self {
        let world = World::new(&["canary", "web"]).await;
        let server = OperatorServiceServer::new(OperatorApi {
            app: world.app.clone(),
        });
        Self { world, server }
    }

    /// A new operator token's value.
    async fn token(&self, role: Role, scope: &str) -> String {
        let usage = TokenUse::Operator {
            role,
            scope: scope.parse().unwrap(),
        };
        let new = NewToken {
            usage,
            principal: format!("{} of {scope:?}", role.as_str()),
            ttl: None,
        };
        let (token, value) = tokens::make(new, "test", "pin", clock::now()).unwrap();
        let hash = tokens::hash(value.expose_secret());
        self.world
            .write(move |tx| Ok(tx.insert_token(&token, &hash)?))
            .await;
        value.expose_secret().to_owned()
    }

    /// What comes of a call whose every field is empty.
    async fn call(&self, method: &str, token: &str) -> Code {
        let empty = axum::body::Body::from(Bytes::from_static(&[0; 5]));
        let request = Request::post(format!("/keyfleet.v1.{SERVICE}/{method}"))
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {token}"))
            .body(tonic::body::Body::new(empty))
            .unwrap();
        let answer = self.server.clone().call(request).await.unwrap();
        let status = answer.headers().get("grpc-status");
        status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
    }

    async fn audit(&self) -> Vec<AuditEntry> {
        self.world.write(|tx| Ok(tx.audit(1, 10_000)?)).await
    }
}

/// The numbers of the entries that come at once.
async fn numbers(api: &Api, from: u64, last: u32) -> Vec<u64> {
    let since = Since::new(from, last).unwrap();
    let stream = streams::audit(api.world.app.clone(), ops(), since, false);
    let entries: Vec<_> = stream.collect().await;
    entries
        .into_iter()
        .map(|entry| entry.unwrap().number)
        .collect()
}

#[tokio::test]
async fn the_audit_log_is_read_from_any_place_and_in_any_length() {
    let api = Api::new().await;
    assert_eq!(numbers(&api, 0, 0).await, Vec::<u64>::new());
    const ENTRIES: u64 = 600;
    api.world
        .write(|tx| {
            let one = |_| record_own(tx, "test.do", String::new(), String::new(), clock::now());
            (0..ENTRIES).try_for_each(one)
        })
        .await;
    let all = (1..=ENTRIES).collect::<Vec<_>>();
    assert_eq!(numbers(&api, 0, 0).await, all);
    assert_eq!(numbers(&api, 1, 0).await, all);
    assert_eq!(numbers(&api, 599, 0).await, [599, 600]);
    assert_eq!(numbers(&api, 0, 2).await, [599, 600]);
    assert_eq!(numbers(&api, 0, u32::MAX).await, all);
    assert_eq!(numbers(&api, 601, 0).await, Vec::<u64>::new());
    assert_eq!(numbers(&api, u64::MAX, 0).await, Vec::<u64>::new());
    assert!(Since::new(1, 1).is_err(), "one or the other");
}

#[tokio::test]
async fn who_follows_the_audit_log_is_told_what_comes_until_the_token_or_the_service_ends() {
    let api = Api::new().await;
    let app = &api.world.app;
    let value = api.token(Role::Admin, "").await;
    let reader = app.authenticate(&value).await.unwrap();
    let follow = |actor| streams::audit(app.clone(), actor, Since::Number(1), true);
    let (mut theirs, mut ours) = (follow(reader.clone()), follow(ops()));
    let admin = Actor {
        role: Role::Admin,
        ..ops()
    };
    app.revoke_token(&admin, reader.token.unwrap(), "lost")
        .await
        .unwrap();
    let told = ours.next().await.unwrap().unwrap();
    assert_eq!(
        (told.action.as_str(), told.reason.as_str()),
        ("token.revoke", "lost")
    );
    // The reader may or may not have been told of it; then nothing more.
    let ended = loop {
        match theirs.next().await.unwrap() {
            Ok(entry) => assert_eq!(entry.action, "token.revoke"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(theirs.next().await.is_none());
    app.shutdown.cancel();
    assert!(ours.next().await.is_none());
}

#[test]
fn every_call_has_a_row() {
    let mut listed: Vec<&str> = TABLE.iter().map(|(call, _)| *call).collect();
    let mut known = calls();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[tokio::test]
async fn each_role_may_what_the_table_says_and_who_is_refused_is_written_down() {
    let api = Api::new().await;
    let roles = [
        ('v', Role::Viewer),
        ('o', Role::Operator),
        ('a', Role::Admin),
    ];
    let mut refused = 0;
    for (letter, role) in roles {
        for scope in ["", SCOPE] {
            let letter = match scope {
                "" => letter,
                _ => letter.to_ascii_uppercase(),
            };
            let token = api.token(role, scope).await;
            for (method, may) in TABLE {
                let code = api.call(method, &token).await;
                assert_ne!(code, Code::Unauthenticated, "{method} as {letter}");
                assert_eq!(
                    code != Code::PermissionDenied,
                    may.contains(letter),
                    "{method} as {letter}: {code:?}"
                );
                refused += usize::from(code == Code::PermissionDenied);
            }
        }
    }
    let entries = api.audit().await;
    let is_refused = |row: &&AuditEntry| row.entry.outcome == Outcome::Refused;
    assert_eq!(entries.iter().filter(is_refused).count(), refused);
    for row in entries.iter().filter(is_refused) {
        let entry = &row.entry;
        assert!(
            !entry.principal.is_empty() && !entry.token.is_empty(),
            "{entry:?}"
        );
        assert!(
            entry.action.contains('.') && !entry.detail.is_empty(),
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_opens_and_the_log_does_not_grow() {
    let api = Api::new().await;
    for method in calls() {
        for token in ["", "kfo_forged"] {
            assert_eq!(api.call(&method, token).await, Code::Unauthenticated);
        }
    }
    let entries = api.audit().await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    api.world.app.write_counted_refusals().await;
    let counted = api.audit().await.pop().unwrap().entry;
    let expected = calls().len() * 2 - 1;
    assert!(
        counted.detail.contains(&expected.to_string()),
        "{counted:?}"
    );
    assert_eq!(counted.principal, "unknown");
}
