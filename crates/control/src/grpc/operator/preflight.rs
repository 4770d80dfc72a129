//! What an agent found of its Kibana, looked at afresh where the caller wants it; and how long agents wait for their turn
//! to make a live call.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::DeploymentId;
use keyfleet_proto::{Invalid, v1};

use crate::app::view::{self, Sight};
use crate::app::{Actor, App};
use crate::error::Error;
use crate::sessions::Pace;

/// The deployment with its checks. Whoever hangs up meanwhile leaves nothing behind.
pub(super) async fn run(
    app: &App,
    actor: &Actor,
    call: &v1::PreflightDeploymentRequest,
) -> Result<v1::PreflightDeploymentResponse, Error> {
    let known = look(app, actor, &call.name).await?;
    let looked_at = match call.fresh {
        true => have_looked(app, Invalid::parse("id", &known.id)?).await,
        false => None,
    };
    let Some(at) = looked_at else {
        return Ok(answer(known, None));
    };
    Ok(answer(look(app, actor, &call.name).await?, Some(at)))
}

async fn look(app: &App, actor: &Actor, name: &str) -> Result<v1::Deployment, Error> {
    let name = name.to_owned();
    let read = move |sight: &Sight<'_>| view::deployment(sight, &name);
    let found = app.view_as(actor, read).await?.deployment;
    found.ok_or_else(|| Invalid::missing("deployment").into())
}

/// When the agent looked; `None` where it is not connected, does not answer in time, or control is going down.
async fn have_looked(app: &App, id: DeploymentId) -> Option<Timestamp> {
    let asked = app.sessions.look(id)?;
    // Cancel-safe: a question that nobody waits for any more is answered all the same.
    tokio::select! {
        found = asked.found() => found,
        () = app.shutdown.cancelled() => None,
    }
}

/// Facts that did not change are not stored again: when they were seen last is said here.
fn answer(
    mut deployment: v1::Deployment,
    looked_at: Option<Timestamp>,
) -> v1::PreflightDeploymentResponse {
    if let (Some(facts), Some(at)) = (&mut deployment.facts, looked_at) {
        facts.observed_at = Some(keyfleet_proto::WireTime(at).into());
    }
    v1::PreflightDeploymentResponse {
        deployment: Some(deployment),
        fresh: looked_at.is_some(),
    }
}

/// One sentence where agents that the caller may see have waited for more than a minute.
pub(super) fn probes_held_up(pace: &Pace, sight: &Sight<'_>) -> Option<String> {
    let (waiting, longest) = pace.held_up();
    let count = waiting.into_iter().filter(|id| sight.sees(*id)).count();
    held_up(count, longest, pace.per_minute())
}

fn held_up(count: usize, longest: Duration, per_minute: u32) -> Option<String> {
    let (agents, wait) = match count {
        0 => return None,
        1 => ("agent", "waits"),
        _ => ("agents", "wait"),
    };
    Some(format!(
        "{count} {agents} {wait} for more than a minute to make a live call, the longest for {} s: the fleet makes at most {per_minute} a minute (setting agents.fleet_probes_per_minute of the control service)",
        longest.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::scenario::world::{World, ops};
    use crate::sessions::Entered;

    async fn preflight(
        world: &World,
        actor: &Actor,
        fresh: bool,
    ) -> Result<v1::PreflightDeploymentResponse, Error> {
        let call = v1::PreflightDeploymentRequest {
            name: "soc".to_owned(),
            fresh,
        };
        run(&world.app, actor, &call).await
    }

    #[tokio::test]
    async fn who_is_not_connected_is_not_waited_for() {
        let world = World::new(&["soc"]).await;
        for fresh in [false, true] {
            let found = preflight(&world, &ops(), fresh).await.unwrap();
            assert!(!found.fresh);
            assert_eq!(found.deployment.unwrap().name, "soc");
        }
    }

    #[tokio::test]
    async fn what_is_out_of_reach_is_not_there_and_no_agent_is_asked() {
        let world = World::new(&["soc"]).await;
        let id = *world.names.keys().next().unwrap();
        let entered = world
            .app
            .sessions
            .enter(id, "boot", false, &world.app.shutdown);
        let Entered::Seat(seat) = entered else {
            panic!("there is no place");
        };
        let scoped = Actor {
            scope: "no=such".parse().unwrap(),
            ..ops()
        };
        let refused = preflight(&world, &scoped, true).await.unwrap_err();
        assert!(matches!(refused, Error::NotFound { .. }), "{refused}");
        let asked = tokio::time::timeout(std::time::Duration::ZERO, seat.looks.wanted.notified());
        assert!(asked.await.is_err());
    }

    #[tokio::test]
    async fn the_answer_of_the_agent_is_waited_for() {
        let world = World::new(&["soc"]).await;
        let id = *world.names.keys().next().unwrap();
        let entered = world
            .app
            .sessions
            .enter(id, "boot", false, &world.app.shutdown);
        let Entered::Seat(seat) = entered else {
            panic!("there is no place");
        };
        let agent = async {
            seat.looks.wanted.notified().await;
            seat.found(Timestamp::from_second(7).unwrap());
        };
        let ops = ops();
        let (found, ()) = tokio::join!(preflight(&world, &ops, true), agent);
        assert!(found.unwrap().fresh);
        // A control service that goes down lets everybody go.
        world.app.shutdown.cancel();
        assert!(!preflight(&world, &ops, true).await.unwrap().fresh);
    }

    #[test]
    fn a_long_wait_is_one_sentence() {
        assert_eq!(held_up(0, Duration::from_secs(99), 600), None);
        let one = held_up(1, Duration::from_secs(99), 600).unwrap();
        assert!(one.starts_with("1 agent waits for"), "{one}");
        let two = held_up(2, Duration::from_secs(99), 600).unwrap();
        assert!(two.starts_with("2 agents wait for"), "{two}");
        assert!(two.contains("longest for 99 s") && two.contains("at most 600 a minute"));
    }
}
