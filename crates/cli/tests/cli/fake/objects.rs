//! The objects of the fake, as its lists show them.

use std::collections::BTreeMap;

use keyfleet_proto::v1;

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
            ..connector(2, &self.bindings)
        }
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
    }
}

pub(super) fn key() -> v1::Key {
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
    }
}
