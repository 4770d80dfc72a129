//! What the agent costs a Kibana: so many requests, so many at a time, and none while it asks to be left alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyfleet_proto::v1::{self, BindingState, FailureClass};
use serde_json::{Value, json};

use crate::harness::{Harness, PLACE};

/// Spaces of the large Kibana.
const SPACES: usize = 200;
/// How long it takes for an answer.
const DELAY: Duration = Duration::from_millis(20);
/// Calls to one Kibana at a time.
const JOBS_MAX: usize = 8;

async fn large() -> Harness {
    Harness::start_with(|options| {
        options.spaces = std::iter::once("default".to_owned())
            .chain((1..SPACES).map(|n| format!("team-{n}")))
            .collect();
        options.delay = DELAY;
    })
    .await
}

fn bindings(harness: &Harness) -> Vec<v1::DesiredBinding> {
    let binding = |space: String| harness.binding(&format!("{space}/assistant"), 1, 1);
    let spaces = (1..SPACES).map(|n| format!("team-{n}"));
    std::iter::once("default".to_owned())
        .chain(spaces)
        .map(binding)
        .collect()
}

async fn until_all_proven(harness: &Harness) {
    // Each part has its own deadline, for a busy machine is slow.
    for part in 1..=4 {
        harness
            .control
            .until(&format!("{part} quarters are proven"), |state| {
                let proven = |status: &&v1::BindingStatus| status.state() == BindingState::Proven;
                4 * state.statuses.values().filter(proven).count() >= part * SPACES
            })
            .await;
    }
}

/// Requests by method and class.
fn counted(requests: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let kind = match request["path"].as_str().unwrap() {
            path if path.ends_with("/api/actions/connector") => "privileges".to_owned(),
            _ => format!(
                "{} {}",
                request["method"].as_str().unwrap(),
                request["class"].as_str().unwrap()
            ),
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// The most requests that were under way at a time: each takes at least the delay.
fn highest_at_a_time(requests: &[Value]) -> usize {
    let began: Vec<u64> = requests
        .iter()
        .map(|request| request["at_ms"].as_u64().unwrap())
        .collect();
    // A millisecond less, for the log counts whole ones.
    let delay = u64::try_from(DELAY.as_millis()).unwrap() - 1;
    let at_a_time = |at: &u64| {
        let under_way = |began: &&u64| **began <= *at && **began + delay > *at;
        began.iter().filter(under_way).count()
    };
    began.iter().map(at_a_time).max().unwrap_or(0)
}

#[tokio::test]
async fn two_hundred_spaces_are_served_a_few_calls_at_a_time() {
    let mut harness = large().await;
    harness.run();
    let bindings = bindings(&harness);
    harness.push(bindings);
    until_all_proven(&harness).await;
    harness
        .control
        .until("the inventory is complete", |state| {
            let facts = state.facts.as_ref();
            facts.is_some_and(|facts| facts.connectors_complete)
        })
        .await;
    let requests = harness.requests().await;
    let counts = counted(&requests);
    // For each connector: a look, the write, a look, a live call. For each space: one list, one question.
    for (kind, expected) in [
        ("GET connector", 2 * SPACES),
        ("POST connector", SPACES),
        ("POST execute", SPACES),
        ("GET connectors", SPACES),
        ("privileges", SPACES),
    ] {
        assert_eq!(counts.get(kind), Some(&expected), "{kind} {counts:?}");
    }
    assert_eq!(harness.connectors().await.len(), SPACES);
    let highest = highest_at_a_time(&requests);
    assert!((JOBS_MAX / 2..=JOBS_MAX).contains(&highest), "{highest}");
    harness.stop().await;
}

#[tokio::test]
async fn an_idle_round_is_one_list_for_each_space_and_nothing_else() {
    let mut harness = large().await;
    harness.run();
    let bindings = bindings(&harness);
    harness.push(bindings);
    until_all_proven(&harness).await;
    harness.stop().await;
    let mut config = harness.config();
    config.drift_interval = Duration::from_secs(2);
    harness.run_with(config);
    // The first looks after a start, and the inventory.
    harness
        .until_count("GET", "connectors", 2 * u64::try_from(SPACES).unwrap())
        .await;
    harness.forget_requests().await;
    harness
        .until_count("GET", "connectors", 3 * u64::try_from(SPACES).unwrap())
        .await;
    let requests = harness.requests().await;
    assert_eq!(
        counted(&requests)
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["GET connectors"]
    );
    assert!(highest_at_a_time(&requests) <= JOBS_MAX / 2);
    harness.stop().await;
}

#[tokio::test]
async fn a_kibana_that_asks_to_be_left_alone_is_left_alone_by_every_call() {
    for by_date in [false, true] {
        let mut harness = Harness::start().await;
        harness.run();
        harness.prove(harness.binding(PLACE, 1, 1)).await;
        let asks = json!({"api": {
            "mode": "status", "status": 429, "retry_after_secs": 3, "retry_after_date": by_date,
            "methods": ["PUT"], "remaining": 1,
        }});
        harness.kibana_faults(asks).await;
        harness.push(vec![
            harness.binding(PLACE, 2, 1),
            harness.binding("soc/assistant", 1, 1),
        ]);
        harness.until_count("PUT", "connector", 1).await;
        let asked = Instant::now();
        for place in [PLACE, "soc/assistant"] {
            harness
                .control
                .until_state(place, BindingState::Proven)
                .await;
        }
        // The date counts whole seconds.
        assert!(asked.elapsed() >= Duration::from_secs(2));
        let requests = harness.requests().await;
        let refused = requests
            .iter()
            .find(|request| request["status"] == json!(429))
            .unwrap();
        let at = |request: &Value| request["at_ms"].as_u64().unwrap();
        let quiet = at(refused) + 200..at(refused) + 1_900;
        let broken: Vec<_> = requests
            .iter()
            .filter(|request| quiet.contains(&at(request)))
            .collect();
        assert!(broken.is_empty(), "{broken:?}");
        let failed = harness.control.state().reports.iter().any(|report| {
            let failed = |status: &v1::BindingStatus| status.state() == BindingState::Failed;
            report.bindings.iter().any(failed)
        });
        assert!(!failed, "a moment is no news");
        harness.stop().await;
    }
}

#[tokio::test]
async fn a_kibana_that_asks_for_it_again_and_again_is_news() {
    let mut harness = Harness::start().await;
    harness
        .kibana_faults(json!({"api": {"mode": "status", "status": 429, "retry_after_secs": 1}}))
        .await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::KibanaDown);
    harness.kibana_faults(json!({})).await;
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    harness.stop().await;
}
