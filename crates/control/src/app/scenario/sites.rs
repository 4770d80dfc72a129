//! What labels and clocks mean to a rollout: a wave that is spread over a label, maintenance windows, and agents that come
//! back while it goes back.

use std::collections::BTreeSet;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::Revision;
use keyfleet_core::rollout::{Phase, Spread, Strategy, Verb, Window, Zone};
use keyfleet_proto::v1;

use super::world::{World, ops, reporter, works};

async fn with_strategy(world: &World, change: impl FnOnce(&mut Strategy) + Send + 'static) {
    world
        .write(|tx| {
            let mut strategy = tx.strategies()?.remove(0);
            change(&mut strategy);
            Ok(tx.put_strategy(&strategy)?)
        })
        .await;
}

/// Who was told revision 2, and has not proven it.
async fn in_flight(world: &World) -> BTreeSet<String> {
    let bindings = world.bindings().await.into_iter();
    let told = bindings.filter(|(_, binding)| {
        let told = binding.desired.and_then(|told| told.assignment);
        told.is_some_and(|told| told.revision == Revision(2))
            && binding.progress.state != BindingState::Proven
    });
    told.map(|(name, _)| name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn two_of_one_region_never_have_the_change_in_flight_together() {
    let world = World::new(&["canary", "b", "c", "d", "e", "f"]).await;
    world.settle(works).await;
    with_strategy(&world, |strategy| {
        strategy.waves[1].spread = Some(Spread {
            label: "region".to_owned(),
            max: 1,
        });
    })
    .await;
    let regions = [("b", "eu"), ("c", "eu"), ("d", "us")];
    let regions = regions.map(|(name, region)| (world.id(name), region));
    world
        .write(move |tx| {
            for row in tx.deployments()? {
                let Some((_, region)) = regions.iter().find(|(id, _)| *id == row.id) else {
                    continue;
                };
                let mut labels = row.labels;
                labels.insert("region".to_owned(), (*region).to_owned());
                tx.set_labels(row.id, &labels)?;
            }
            Ok(())
        })
        .await;
    world.new_revision(2).await;
    world.turn(works).await;
    world.offer().await;
    // Those without the label have one value together.
    assert_eq!(in_flight(&world).await, set(&["b", "d", "e"]));
    let call = v1::ExplainRolloutRequest::default();
    let explained = world.app.explain_rollout(&ops(), call).await.unwrap();
    let why = |name: &str| {
        let found = explained.deployments.iter().find(|w| w.deployment == name);
        found.map(|waiting| waiting.sentence.clone()).unwrap()
    };
    for words in ["region", "eu", "1"] {
        assert!(why("c").contains(words), "{words}: {}", why("c"));
    }
    assert!(why("f").contains("region"), "{}", why("f"));
    world.answer(works).await;
    world.offer().await;
    assert_eq!(in_flight(&world).await, set(&["c", "f"]));
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
}

#[tokio::test]
async fn the_time_for_which_windows_are_closed_is_not_the_waves() {
    let mut world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    with_strategy(&world, |strategy| {
        strategy.windows = vec![Window {
            cron: "0 22 * * *".to_owned(),
            duration: Duration::from_secs(4 * 3_600),
            zone: Zone::OfDeployment,
        }];
    })
    .await;
    world.new_revision(2).await;
    // Everybody is away.
    world.names.clear();
    let check = async |moment: &str, expected: Phase| {
        let moment: Timestamp = moment.parse().unwrap();
        world.offer_at(moment).await;
        let run = world.newest().await.run;
        assert_eq!(run.phase, expected, "{moment}: {}", run.hold_reason);
        run.hold_reason
    };
    check("2026-11-23T12:00:00Z", Phase::Progressing).await;
    check("2026-11-23T21:59:59Z", Phase::Progressing).await;
    check("2026-11-23T22:00:00Z", Phase::Progressing).await;
    check("2026-11-23T23:59:59Z", Phase::Progressing).await;
    let why = check("2026-11-24T00:00:00Z", Phase::Halted).await;
    assert!(why.contains("beside 10h"), "{why}");
}

#[tokio::test]
async fn who_comes_back_while_it_goes_back_has_its_time_again() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    world.answer(|_, _| Some(FailureClass::Model)).await;
    world.say(Verb::Rollback).await.unwrap();
    let now = crate::clock::now();
    let an_hour_ago = now.checked_sub(Duration::from_secs(3_600)).unwrap();
    world.offer_at(an_hour_ago).await;
    let id = world.id("canary");
    let generation = world.app.desired(id).await.unwrap().document.generation;
    let answer = v1::DesiredAnswer {
        generation,
        ..v1::DesiredAnswer::default()
    };
    world.app.answered(&reporter(id), answer).await.unwrap();
    let state = world.bindings().await["canary"].progress.state;
    assert_eq!(state, BindingState::Received);
    world.app.returned(id).await.unwrap();
    world.offer().await;
    let run = world.newest().await.run;
    assert_eq!(run.phase, Phase::RollingBack, "{}", run.hold_reason);
    world.settle(works).await;
    let run = world.newest().await.run;
    assert_eq!(run.phase, Phase::RolledBack);
    assert!(
        run.hold_reason.contains("because; 1 of 1"),
        "{}",
        run.hold_reason
    );
}
