//! What operators say to rollouts: every verb in every phase, with who said it, why and when; approvals.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{Approval, Event as RunEvent, Phase, Verb};
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::{AuditEntry, Event, EventScope};

use super::operator::{actor, said};
use super::world::{World, works};
use crate::app::Actor;
use crate::clock;
use crate::error::Error;

async fn say(world: &World, who: &Actor, verb: Verb, wave: &str) -> Result<(), Error> {
    let id = world.newest().await.id.to_string();
    let said = world.app.change_rollout(who, &id, verb, wave, " because ");
    said.await.map(drop)
}

fn named(name: &str) -> Actor {
    Actor {
        principal: name.to_owned(),
        ..actor(Role::Operator, "")
    }
}

async fn history(world: &World) -> Vec<Event> {
    let id = world.newest().await.id;
    world
        .write(move |tx| Ok(tx.events(EventScope::Rollout(id), 1000)?))
        .await
}

async fn audited(world: &World) -> Vec<AuditEntry> {
    world.write(|tx| Ok(tx.audit(1, 1000)?)).await
}

/// A rollout to two deployments whose first wave is under way, and whose waves ask for approvals.
async fn world(asks: fn(usize) -> Option<Approval>) -> World {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world
        .write(move |tx| {
            let mut strategy = tx.strategies()?.remove(0);
            for (index, wave) in strategy.waves.iter_mut().enumerate() {
                wave.approval = asks(index);
            }
            Ok(tx.put_strategy(&strategy)?)
        })
        .await;
    world.new_revision(2).await;
    world
}

fn two_others(index: usize) -> Option<Approval> {
    (index == 1).then_some(Approval {
        required: 2,
        not_author: true,
    })
}

#[tokio::test]
async fn every_verb_in_every_phase() {
    let world = world(two_others).await;
    let rollout = world.newest().await;
    for phase in Phase::ALL {
        for verb in Verb::ALL {
            if phase.is_terminal() && verb == Verb::Retry {
                continue;
            }
            let mut run = rollout.run.clone();
            (run.phase, run.wave) = (phase, Some(0));
            let id = rollout.id;
            world.write(move |tx| Ok(tx.set_run(id, &run, None)?)).await;
            for _ in 0..2 {
                let (before, entries) = (history(&world).await, audited(&world).await.len());
                let expected = world.newest().await.run.phase.next(RunEvent::Verb(verb));
                let was = world.newest().await.run;
                let done = say(&world, &named("pat"), verb, "").await;
                let Ok(expected) = expected else {
                    assert!(said(done).contains("does not take"), "{phase} {verb:?}");
                    assert_eq!(history(&world).await, before, "nothing is kept of it");
                    assert_eq!(audited(&world).await.len(), entries);
                    assert_eq!(world.newest().await.run, was);
                    continue;
                };
                done.unwrap();
                assert_eq!(world.newest().await.run.phase, expected, "{phase} {verb:?}");
                let after = history(&world).await;
                let said = after.iter().find(|event| !before.contains(event)).unwrap();
                assert_eq!(said.actor, "pat", "{phase} {verb:?}");
                assert!(said.text.contains("because"), "{said:?}");
                let audit = audited(&world).await;
                let entry = &audit.last().unwrap().entry;
                assert_eq!(entry.action, format!("rollout.{}", verb.as_str()));
                assert_eq!(entry.reason, "because");
                if expected.is_terminal() {
                    break;
                }
            }
        }
    }
}

async fn revision_of_b(world: &World) -> u64 {
    let bindings = world.bindings().await;
    bindings["b"]
        .desired
        .unwrap()
        .assignment
        .unwrap()
        .revision
        .0
}

#[tokio::test]
async fn a_wave_begins_when_enough_others_have_agreed() {
    let world = world(two_others).await;
    world.settle(works).await;
    assert_eq!(
        revision_of_b(&world).await,
        1,
        "it asks for two others than ops"
    );
    let no = said(say(&world, &named("ops"), Verb::Approve, "").await);
    assert!(no.contains("others than ops"), "{no}");
    let wave = world.newest().await.strategy.waves[1].name.clone();
    for name in ["canary", "nowhere"] {
        let no = said(say(&world, &named("ann"), Verb::Approve, name).await);
        assert!(
            no.contains("asks for no approval") && no.contains(&wave),
            "{no}"
        );
    }
    let mut times = Vec::new();
    for _ in 0..2 {
        say(&world, &named("ann"), Verb::Approve, "").await.unwrap();
        world.settle(works).await;
        times.push(world.newest().await.run.wave_started_at);
        assert_eq!(revision_of_b(&world).await, 1, "ann alone, however often");
    }
    assert_eq!(times[0], times[1], "said twice it changes nothing");
    let texts = |events: Vec<Event>| events.into_iter().map(|e| e.text).collect::<Vec<_>>();
    let found = texts(history(&world).await);
    for words in ["ann approved wave", "ann had approved wave", "1 of 2"] {
        assert!(found.iter().any(|text| text.contains(words)), "{found:?}");
    }
    say(&world, &named("bob"), Verb::Approve, &wave)
        .await
        .unwrap();
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    assert_eq!(revision_of_b(&world).await, 2);
}

#[tokio::test]
async fn an_approval_gives_time_only_to_a_wave_that_has_none_left() {
    // The deadline of a wave is two hours.
    for (hours, is_given) in [(1, false), (3, true)] {
        let world = world(two_others).await;
        let ago = Duration::from_secs(hours * 3_600);
        let began = clock::now().checked_sub(ago).unwrap();
        world.offer_at(began).await;
        say(&world, &named("ann"), Verb::Approve, "").await.unwrap();
        let started = world.newest().await.run.wave_started_at;
        assert_eq!(started > began, is_given, "{hours}");
    }
}

#[tokio::test]
async fn who_pauses_forgives_what_had_failed_and_nothing_that_comes_later() {
    let auth =
        |name: &str, _: &v1::DesiredBinding| (name == "canary").then_some(FailureClass::Auth);
    for (is_later, expected) in [(false, Phase::Progressing), (true, Phase::RollingBack)] {
        let world = world(|_| None).await;
        world.offer().await;
        let fail = async |is_now: bool| {
            if is_now {
                world.answer(auth).await;
            }
        };
        fail(!is_later).await;
        say(&world, &named("ann"), Verb::Pause, "").await.unwrap();
        fail(is_later).await;
        world.offer().await;
        assert_eq!(world.newest().await.run.phase, Phase::Paused);
        say(&world, &named("ann"), Verb::Resume, "").await.unwrap();
        world.offer().await;
        assert_eq!(world.newest().await.run.phase, expected, "{is_later}");
    }
}

#[tokio::test]
async fn where_keyfleet_held_it_resume_is_the_answer_to_all_that_failed() {
    let world = world(|_| None).await;
    world.settle(|_, _| Some(FailureClass::Model)).await;
    let held = world.newest().await.run;
    assert_eq!(held.phase, Phase::Halted, "{held:?}");
    say(&world, &named("ann"), Verb::Resume, "").await.unwrap();
    world.offer().await;
    assert_eq!(world.newest().await.run.phase, Phase::Progressing);
}

#[tokio::test]
async fn the_first_wave_may_ask_too_and_what_asks_for_nothing_says_so() {
    let asks = |index| {
        (index == 0).then_some(Approval {
            required: 1,
            not_author: false,
        })
    };
    let first = world(asks).await;
    first.settle(works).await;
    assert_eq!(first.newest().await.run.wave, None);
    let viewer = actor(Role::Viewer, "");
    assert!(said(say(&first, &viewer, Verb::Approve, "").await).contains("operator"));
    say(&first, &named("ops"), Verb::Approve, "").await.unwrap();
    first.settle(works).await;
    assert_eq!(first.newest().await.run.phase, Phase::Completed);

    let nobody = world(|_| None).await;
    let no = said(say(&nobody, &named("ops"), Verb::Approve, "").await);
    assert!(no.contains("no wave of this rollout asks"), "{no}");
}

#[tokio::test]
async fn fast_forward_is_for_the_running_wave_alone() {
    let world = world(|_| None).await;
    say(&world, &named("ops"), Verb::FastForward, "")
        .await
        .unwrap();
    assert_eq!(
        world.newest().await.run.fast_forward,
        None,
        "none has begun"
    );
    world.offer().await;
    say(&world, &named("ops"), Verb::FastForward, "")
        .await
        .unwrap();
    let run = world.newest().await.run;
    assert_eq!((run.wave, run.fast_forward), (Some(0), Some(0)));
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}
