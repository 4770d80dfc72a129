//! The preview as a stream: one at a time, ended by whoever goes away, in time, and clear about what it cannot use.

use std::time::Duration;

use futures_util::StreamExt as _;
use keyfleet_proto::v1;
use tonic::{Code, Status};
use v1::simulate_rollout_response::Part;

use super::{SIMULATION, SIMULATION_DEADLINE, simulation};
use crate::app::scenario::world::{World, ops};

/// So many made-up deployments, and no manifest.
fn ask(deployments: u32) -> v1::SimulateRolloutRequest {
    v1::SimulateRolloutRequest {
        deployments,
        ..v1::SimulateRolloutRequest::default()
    }
}

fn manifest(text: &str) -> v1::SimulateRolloutRequest {
    v1::SimulateRolloutRequest {
        files: vec![v1::ManifestFile {
            name: "f.yaml".to_owned(),
            text: text.to_owned(),
        }],
        ..ask(3)
    }
}

/// The last answer.
async fn ends(
    world: &World,
    call: v1::SimulateRolloutRequest,
    limit: Duration,
) -> Result<v1::SimulationResult, Status> {
    let mut answers = simulation(world.app.clone(), ops(), call, limit)?;
    while let Some(answer) = answers.next().await {
        match answer?.part {
            Some(Part::Result(result)) => return Ok(result),
            Some(Part::Progress(_)) | None => {}
        }
    }
    Err(Status::internal("it ended without a result"))
}

/// Until whoever simulates has ended.
async fn turn_is_free() {
    let turn = tokio::time::timeout(Duration::from_secs(60), SIMULATION.acquire());
    drop(turn.await.unwrap().unwrap());
}

#[tokio::test]
async fn one_at_a_time_and_whoever_goes_away_ends_it() {
    let world = World::new(&["a"]).await;
    turn_is_free().await;
    let again = || simulation(world.app.clone(), ops(), ask(2_000), SIMULATION_DEADLINE);
    let first = again().unwrap();
    let busy = Status::from(again().err().unwrap());
    assert_eq!(busy.code(), Code::Unavailable);
    assert!(
        busy.message().contains("another simulation is running"),
        "{busy:?}"
    );
    drop(first);
    turn_is_free().await;
    let after = ends(&world, ask(1), SIMULATION_DEADLINE).await.unwrap();
    assert_eq!(after.deployments, 1);
}

#[tokio::test]
async fn what_takes_too_long_says_what_to_do() {
    let world = World::new(&["a"]).await;
    turn_is_free().await;
    let late = ends(&world, ask(50), Duration::ZERO).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(
        late.message().contains("fewer deployments (--fleet N)"),
        "{late:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let world = World::new(&["a"]).await;
    let check = async |call: v1::SimulateRolloutRequest, words: &str| {
        turn_is_free().await;
        let said = ends(&world, call, SIMULATION_DEADLINE).await.unwrap_err();
        assert_eq!(said.code(), Code::InvalidArgument, "{said:?}");
        assert!(said.message().contains(words), "{said:?}");
    };
    let faults = v1::SimulateRolloutRequest {
        faults: "offline=10".to_owned(),
        ..ask(1)
    };
    check(faults, "write a share such as `offline=10%`").await;
    check(ask(20_001), "at most 20000 can be tried").await;
    check(manifest("kind: Nothing"), "f.yaml").await;
    check(manifest("a: [b"), "f.yaml").await;
}
