//! The keys of the simulated OpenAI and how often each was used.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::log::now_ms;
use crate::reply::{Reply, tail};

/// One key. It has no `Debug`.
struct Key {
    value: String,
    active: bool,
    n_uses: u64,
    last_used_ms: Option<u64>,
}

/// Every key it ever had, in the order they came; a revoked one stays in the list.
pub(super) struct Keys(Vec<Key>);

/// `{"add": "sk-…"}` or `{"revoke": "sk-…"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    add: Option<String>,
    revoke: Option<String>,
}

impl Keys {
    pub(super) fn new(values: &[String]) -> Self {
        let mut keys = Self(Vec::new());
        values.iter().for_each(|value| keys.add(value));
        keys
    }

    /// Counts a use; false when the key is unknown or revoked.
    pub(super) fn use_one(&mut self, value: &str) -> bool {
        let Some(key) = self
            .0
            .iter_mut()
            .find(|key| key.value == value && key.active)
        else {
            return false;
        };
        key.n_uses += 1;
        key.last_used_ms = Some(now_ms());
        true
    }

    /// Adds or revokes; an answer only when it cannot.
    pub(super) fn change(&mut self, change: Change) -> Option<Reply> {
        match (change.add, change.revoke) {
            (Some(value), None) if !value.trim().is_empty() => {
                self.add(&value);
                None
            }
            (None, Some(value)) => match self.0.iter_mut().find(|key| key.value == value) {
                Some(key) => {
                    key.active = false;
                    None
                }
                None => Some(Reply::sim_error(404, "no such key")),
            },
            _ => Some(Reply::sim_error(
                400,
                "give either `add` or `revoke` with a key",
            )),
        }
    }

    /// Never the keys themselves.
    pub(super) fn list(&self) -> Value {
        let row = |key: &Key| {
            json!({
                "tail": tail(&key.value),
                "active": key.active,
                "uses": key.n_uses,
                "last_used_ms": key.last_used_ms,
            })
        };
        self.0.iter().map(row).collect()
    }

    fn add(&mut self, value: &str) {
        match self.0.iter_mut().find(|key| key.value == value) {
            Some(key) => key.active = true,
            None => {
                self.0.push(Key {
                    value: value.to_owned(),
                    active: true,
                    n_uses: 0,
                    last_used_ms: None,
                });
            }
        }
    }
}
