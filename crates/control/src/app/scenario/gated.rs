//! Strategies with gates, as somebody writes them who wants control to ask where it should not.

use super::operator::{YES, apply};
use super::world::World;
use crate::app::apply::Intent;

#[tokio::test]
async fn a_gate_asks_only_whom_the_settings_allow() {
    let world = World::with(&["a"], |config| {
        config.gates.allowed_hosts = vec!["*.metrics.example".parse().unwrap()];
    })
    .await;
    let strategy = |url: &str| {
        format!(
            "apiVersion: keyfleet/v1
kind: Strategy
metadata: {{name: gated}}
spec:
  waves: [{{name: all, concurrency: 1}}]
  gates:
    - name: go
      http: {{url: \"{url}\"}}
"
        )
    };
    let refused = "may not be asked: add it to the setting gates.allowed_hosts";
    for (url, says) in [
        ("https://169.254.169.254/latest", refused),
        ("https://2130706433/", refused),
        ("http://[::ffff:127.0.0.1]/", refused),
        ("https://a.metrics.example.evil.example/", refused),
        ("https://evil.example\\\\@a.metrics.example/", refused),
        ("http://a.metrics.example/go", "would be asked unencrypted"),
    ] {
        for intent in [Intent::Plan, YES] {
            let said = apply(&world, &strategy(url), "", intent).await;
            let said = said.map(drop).unwrap_err().to_string();
            let begins = "f.yaml:8: spec.gates[0].http.url: ";
            assert!(
                said.starts_with(begins) && said.contains(says),
                "{url}: {said}"
            );
        }
    }
    let is_stored =
        world.write(|tx| Ok(tx.strategies()?.iter().any(|s| s.name.as_str() == "gated")));
    assert!(!is_stored.await);
    let good = strategy("https://a.metrics.example/go");
    assert!(apply(&world, &good, "", YES).await.is_ok());
}
