//! The objects of the fake, as its lists show them.

use std::collections::BTreeMap;

use keyfleet_proto::v1;
use tonic::Status;

use super::{State, before};

pub(super) fn count(bindings: &[v1::Binding]) -> Vec<v1::StateCount> {
    let mut counts = BTreeMap::new();
    for binding in bindings {
        *counts.entry(binding.state).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(state, count)| v1::StateCount { state, count })
        .collect()
}

impl State {
    pub(super) fn shown_connector(&self) -> v1::Connector {
        v1::Connector {
            set: self.set.clone(),
            deleted_at: if self.deleting { before(65) } else { None },
            probe: self.has_news.then(|| v1::Probe {
                max_tokens: 16,
                model: "gpt-5.2-mini".into(),
                body_json: String::new(),
            }),
            probe_interval_secs: if self.has_news { 5_400 } else { 0 },
            replaces: if self.has_news { "older" } else { "" }.into(),
            ..connector(2, &self.bindings)
        }
    }
}

impl State {
    pub(super) fn placements(&self) -> Vec<v1::Placement> {
        let everywhere = v1::Placement {
            name: "everywhere".into(),
            selector: "env in (prod,test)".into(),
            connectors: vec!["assistant".into()],
            spaces: vec!["default".into(), "soc".into()],
            strategy: "careful".into(),
            drift_policy: v1::DriftPolicy::Correct.into(),
            deployments: 2,
            set: self.set.clone(),
            ..v1::Placement::default()
        };
        if !self.has_news {
            return vec![everywhere];
        }
        let by = v1::adopt::By::Name("OpenAI prod".into());
        vec![v1::Placement {
            spaces: vec!["default".into(), "soc-*".into()],
            except_spaces: vec!["soc-test".into()],
            adopt: vec![v1::Adopt {
                connector: "assistant".into(),
                by: Some(by),
            }],
            ..everywhere
        }]
    }

    pub(super) fn keys(&self) -> Vec<v1::Key> {
        let mut keys = vec![key()];
        keys.extend(self.has_news.then(key_of_parts));
        keys
    }

    pub(super) fn key(&self, name: &str) -> Result<v1::GetKeyResponse, Status> {
        let found = self.keys().into_iter().find(|key| key.name == name);
        let missing = || Status::not_found(format!("there is no key {name:?}"));
        let key = found.ok_or_else(missing)?;
        let version = |version, state: v1::KeyState, holdings_open| v1::KeyVersion {
            version,
            state: state.into(),
            fingerprint: "4f1c9a77e0d2b85a".repeat(4),
            shown: if key.parts.is_empty() {
                format!("sk-proj-…a{version}Zq")
            } else {
                "accessKey+secret".into()
            },
            first_seen: before(86_400 * 3),
            holdings_open,
            bindings_proven: 2,
            revoke_waits: Vec::new(),
            may_be_revoked: false,
        };
        let versions = vec![
            version(7, v1::KeyState::Current, 2),
            v1::KeyVersion {
                may_be_revoked: true,
                ..version(6, v1::KeyState::Previous, 0)
            },
            v1::KeyVersion {
                revoke_waits: vec!["berlin/default/assistant may still have it".into()],
                ..version(5, v1::KeyState::Abandoned, 1)
            },
        ];
        Ok(v1::GetKeyResponse {
            key: Some(key),
            versions,
        })
    }
}

pub(super) fn connector(revision: u64, bindings: &[v1::Binding]) -> v1::Connector {
    v1::Connector {
        name: "assistant".into(),
        r#type: ".gen-ai".into(),
        display_name: "Assistant (gpt-5.2)".into(),
        key: "openai-prod".into(),
        revision,
        config_json: r#"{"apiProvider":"OpenAI","defaultModel":"gpt-5.2"}"#.into(),
        created_at: before(7_230),
        bindings: count(bindings),
        withdrawn_by: String::new(),
        set: String::new(),
        deleted_at: None,
        if_supported: Vec::new(),
        ..v1::Connector::default()
    }
}

fn key() -> v1::Key {
    v1::Key {
        name: "openai-prod".into(),
        mount: "kv".into(),
        path: "ai/openai".into(),
        field: "api_key".into(),
        allowed_hosts: vec!["api.openai.com".into()],
        current_version: 7,
        vault_status: "ok".into(),
        checked_at: before(65),
        set: String::new(),
        ..v1::Key::default()
    }
}

fn key_of_parts() -> v1::Key {
    let parts = [("accessKey", "aws_access_key"), ("secret", "aws_secret")];
    v1::Key {
        name: "bedrock-prod".into(),
        path: "ai/aws".into(),
        field: String::new(),
        parts: parts.map(|(p, f)| (p.to_owned(), f.to_owned())).into(),
        allowed_hosts: vec!["bedrock-runtime.eu-central-1.amazonaws.com".into()],
        ..key()
    }
}
