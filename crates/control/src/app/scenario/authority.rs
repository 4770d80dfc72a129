//! Replacing the CA, what operators see of it, and of deployments that are not trusted.

use std::time::Duration;

use keyfleet_core::audit::Outcome;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;

use super::identity::{Agent, admin, audited, join_token, row, say, see, text, who};
use super::operator::actor;
use super::world::World;
use crate::app::view;
use crate::ca::Authority;
use crate::clock;
use crate::config::Config;
use crate::error::Error;

/// What `keyfleet status` calls a problem, without Vault's: there is none here.
async fn problems(world: &World) -> Vec<String> {
    let look = |sight: &view::Sight<'_>| view::status(sight);
    let status = world.app.view_as(&actor(Role::Admin, ""), look).await;
    let mut problems = status.unwrap().problems;
    problems.retain(|problem| !problem.starts_with("key openai: "));
    problems
}

#[tokio::test]
async fn a_rotation_leaves_operators_their_time_unless_one_of_them_ends_it() {
    let world = World::new(&[]).await;
    assert!(problems(&world).await.is_empty());
    let during = world
        .app
        .rotate_ca(&actor(Role::Admin, ""), "x")
        .await
        .unwrap();
    assert!(during.waiting.is_empty(), "{during:?}");
    let ends_after = during.ends_after.unwrap().seconds;
    let day = clock::now().as_second() + 86_400;
    assert!((day - 10..=day).contains(&ends_after), "{ends_after}");
    assert!(!world.app.finish_ca_rotation_if_done().await.unwrap());
    let said = problems(&world).await.join("; ");
    let until = jiff::Timestamp::from_second(ends_after).unwrap();
    assert!(
        said.contains(&format!("`keyfleet ca show` once before {until}, which")),
        "{said}"
    );
    // A restart counts on from the same moment.
    let again = Authority::load(world.dir.path()).unwrap().cas();
    let made_at = again.next.as_ref().unwrap().made_at();
    assert_eq!(made_at.as_second() + 86_400, ends_after);
    let next = during.next.unwrap();
    assert!(next.certificate_pem.contains("BEGIN CERTIFICATE"));
    let after = world
        .app
        .finish_ca_rotation(&actor(Role::Admin, ""), "x", false)
        .await;
    let after = after.unwrap();
    assert_eq!(after.current.unwrap().certificate_pem, next.certificate_pem);
    assert_eq!((after.next, after.ends_after), (None, None));
    assert!(problems(&world).await.is_empty());
}

#[tokio::test]
async fn the_status_names_whose_agents_are_not_trusted_and_counts_the_rest() {
    let names: Vec<String> = (0..23).map(|number| format!("d{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names).await;
    say(&world, "d01", v1::DeploymentVerb::Suspend)
        .await
        .unwrap();
    let one = problems(&world).await;
    assert!(
        matches!(one.as_slice(), [only] if only.starts_with("deployment d01 is SUSPENDED: ")),
        "{one:?}"
    );
    for name in &names {
        say(&world, name, v1::DeploymentVerb::Revoke).await.unwrap();
    }
    let all = problems(&world).await;
    assert_eq!(all.len(), 21, "{all:?}");
    assert!(all[20].starts_with("3 deployments more"), "{all:?}");
}

#[tokio::test]
async fn a_rotation_of_the_ca_ends_when_every_agent_has_come_with_a_new_certificate() {
    let at_once = |config: &mut Config| config.agents.ca_overlap = Duration::ZERO;
    let world = World::with(&[], at_once).await;
    let token = join_token(&world, 3).await;
    let (agent, away) = (Agent::new("soc"), Agent::new("away"));
    let soc = agent.enrol(&world, &token).await.unwrap();
    let gone = away.enrol(&world, &token).await.unwrap();
    see(&world, soc.deployment, 1).await;
    see(&world, gone.deployment, 1).await;
    let before = world.app.ca(&admin("")).await.unwrap();
    assert_eq!(before.current.as_ref().unwrap().deployments, 2);
    assert!(text(world.app.finish_ca_rotation(&admin(""), "x", true).await).contains("ca rotate"));
    assert!(!world.app.finish_ca_rotation_if_done().await.unwrap());
    let during = world.app.rotate_ca(&admin(""), "a new year").await.unwrap();
    assert_eq!(during.waiting.len(), 2, "{during:?}");
    assert!(text(world.app.rotate_ca(&admin(""), "x").await).contains("already"));
    let next = agent.renew(&world, &who(&soc.issued)).await.unwrap();
    let pin = during.next.unwrap().pin;
    assert_eq!(next.ca, pin);
    assert!(
        world.app.renews_for_ca(&row(&world, soc.deployment).await),
        "given is not seen"
    );
    see(&world, soc.deployment, 2).await;
    assert!(!world.app.renews_for_ca(&row(&world, soc.deployment).await));
    let waits = world.app.ca(&admin("")).await.unwrap().waiting;
    assert!(
        matches!(waits.as_slice(), [only] if only.starts_with("away: ")),
        "{waits:?}"
    );
    let asks = text(world.app.finish_ca_rotation(&admin(""), "x", false).await);
    assert!(
        asks.contains("1 deployment") && asks.contains("--yes"),
        "{asks}"
    );
    assert!(!world.app.finish_ca_rotation_if_done().await.unwrap());
    // A revoked agent is not waited for.
    say(&world, "away", v1::DeploymentVerb::Revoke)
        .await
        .unwrap();
    assert!(world.app.finish_ca_rotation_if_done().await.unwrap());
    let after = world.app.ca(&admin("")).await.unwrap();
    assert_eq!((after.current.unwrap().pin, after.next), (pin, None));
    let done = |action: &str| (action.to_owned(), Outcome::Done);
    let log = audited(&world).await;
    assert!(
        log.contains(&done("ca.rotate")) && log.contains(&done("ca.finish")),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_rotation_that_cannot_be_written_changes_nothing_and_the_log_says_so() {
    let world = World::new(&[]).await;
    let before = world.app.authority.pin();
    // A directory in the way of the file: as good as a disk that cannot be written.
    std::fs::create_dir_all(world.dir.path().join("ca-next.key").join("in the way")).unwrap();
    assert!(matches!(
        world.app.rotate_ca(&admin(""), "x").await,
        Err(Error::Internal { .. })
    ));
    assert_eq!(world.app.authority.pin(), before);
    assert!(world.app.authority.cas().next.is_none());
    let log = audited(&world).await;
    assert_eq!(
        log.last().unwrap(),
        &("ca.rotate".to_owned(), Outcome::Refused)
    );
}
