//! The task with a real database, and a gate server on loopback.

use keyfleet_core::rollout::{Action, GateCheck, Verb, Verdict, default_strategy};
use keyfleet_sim::gate::{GateServer, Says, start};

use super::*;
use crate::app::scenario::world::{World, works};
use crate::tasks::Tasks;

/// Far beyond what any of these tests takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    world: World,
    server: GateServer,
    asker: Asker,
}

impl Scene {
    /// A rollout with gates that are asked so often; nothing of it has been offered.
    async fn new(names: &[&str], interval: Duration) -> Self {
        let server = start().await.unwrap();
        let host = server.url().replace("http://", "");
        let allow = |config: &mut crate::config::Config| {
            config.gates.allowed_hosts = vec![host.parse().unwrap()];
        };
        let world = World::with(&["canary", "other"], allow).await;
        world.settle(works).await;
        let mut strategy = default_strategy("default".parse().unwrap());
        strategy.waves.truncate(1);
        let url: url::Url = server.url().parse().unwrap();
        let gate = |name: &&str| Gate {
            name: (*name).to_owned(),
            check: GateCheck::Http { url: url.clone() },
            interval,
            action: Action::Halt,
            fail_after: 2,
            inconclusive_after: 2,
        };
        strategy.gates = names.iter().map(gate).collect();
        world.write(move |tx| Ok(tx.put_strategy(&strategy)?)).await;
        world.new_revision(2).await;
        let asker = Asker::new(&world.app.config.gates).unwrap();
        Self {
            world,
            server,
            asker,
        }
    }

    fn app(&self) -> &App {
        &self.world.app
    }

    async fn states(&self) -> Vec<GateState> {
        self.world.newest().await.run.gates
    }

    async fn is_due(&self) -> bool {
        let questions = due(self.app()).await.unwrap();
        let now = clock::now();
        questions.iter().any(|question| question.due <= now)
    }

    /// Asks the first gate, and gives its answer back before it is kept.
    async fn ask(&self) -> (Question, Answer) {
        let question = due(self.app()).await.unwrap().remove(0);
        let answer = self.asker.ask(&question.gate).await;
        (question, answer)
    }

    async fn ask_and_keep(&self) {
        let (question, answer) = self.ask().await;
        keep(self.app(), question, answer).await.unwrap();
    }

    /// Waits until what is stored is so.
    async fn until(&self, is_so: impl Fn(&[GateState]) -> bool) -> Vec<GateState> {
        let mut changes = self.app().watch();
        let wait = async {
            loop {
                changes.mark_unchanged();
                let states = self.states().await;
                if is_so(&states) {
                    return states;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }
}

const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn what_a_gate_answers_is_kept_with_its_streak_and_wakes_the_planner() {
    let scene = Scene::new(&["errors"], LONG).await;
    assert!(scene.is_due().await);
    let mut changes = scene.app().watch();
    changes.mark_unchanged();
    scene.ask_and_keep().await;
    assert!(changes.has_changed().unwrap());
    let nudged = tokio::time::timeout(PATIENCE, scene.app().nudge.notified());
    assert!(nudged.await.is_ok());
    scene.ask_and_keep().await;
    let states = scene.states().await;
    let [state] = states.as_slice() else {
        panic!("{states:?}");
    };
    assert_eq!((state.verdict, state.streak), (Verdict::Pass, 2));
    assert_eq!(state.text, "200 OK");
    // It is asked again after its interval, and not before.
    assert!(!scene.is_due().await);
    scene.server.say(Says::Fail("too slow".to_owned()));
    scene.ask_and_keep().await;
    let state = scene.states().await.remove(0);
    assert_eq!((state.verdict, state.streak), (Verdict::Fail, 1));
    assert_eq!(state.text, "409 Conflict: too slow");
}

#[tokio::test]
async fn an_answer_is_kept_for_the_run_that_was_asked_about_only() {
    let scene = Scene::new(&["errors"], LONG).await;
    scene.world.offer().await;
    for verb in [Verb::Pause, Verb::Resume] {
        let asked = scene.ask().await;
        scene.world.say(verb).await.unwrap();
        let (question, answer) = asked;
        keep(scene.app(), question, answer).await.unwrap();
        assert_eq!(scene.states().await, []);
        if verb == Verb::Pause {
            assert!(!scene.is_due().await);
            scene.world.say(Verb::Resume).await.unwrap();
        }
    }
    let asked = scene.ask().await;
    scene.world.say(Verb::Abort).await.unwrap();
    keep(scene.app(), asked.0, asked.1).await.unwrap();
    assert_eq!(scene.states().await, []);
    assert!(due(scene.app()).await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_is_asked_while_andon_is_on() {
    let scene = Scene::new(&["errors"], LONG).await;
    let asked = scene.ask().await;
    let andon = keyfleet_store::Andon {
        by: "ops".to_owned(),
        reason: "test".to_owned(),
        at: clock::now(),
    };
    let stop = move |tx: &Tx<'_>| Ok(tx.set_andon(Some(&andon))?);
    scene.world.write(stop).await;
    assert!(due(scene.app()).await.unwrap().is_empty());
    keep(scene.app(), asked.0, asked.1).await.unwrap();
    assert_eq!(scene.states().await, []);
    scene.world.write(|tx| Ok(tx.set_andon(None)?)).await;
    assert!(scene.is_due().await);
}

#[tokio::test]
async fn an_answer_of_the_future_is_asked_again() {
    let scene = Scene::new(&["errors"], LONG).await;
    let newest = scene.world.newest().await;
    let gate = &newest.strategy.gates[0];
    let later = clock::now().saturating_add(LONG * 24).unwrap();
    let state = GateState::after(None, gate, Verdict::Pass, String::new(), later);
    scene
        .world
        .write(move |tx| Ok(tx.put_gates(newest.id, &[state])?))
        .await;
    assert!(scene.is_due().await);
    scene.ask_and_keep().await;
    assert!(!scene.is_due().await);
}

#[tokio::test]
async fn the_task_asks_every_gate_again_and_again_and_ends_with_the_service() {
    let scene = Scene::new(&["a", "b", "c"], Duration::ZERO).await;
    let shutdown = CancellationToken::new();
    let task = run(scene.app().clone(), scene.asker.clone(), shutdown.clone());
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("gates", task);
    let all = |states: &[GateState], is_so: fn(&GateState) -> bool| {
        states.len() == 3 && states.iter().all(is_so)
    };
    let passing = |state: &GateState| state.verdict == Verdict::Pass && state.streak >= 2;
    scene.until(|states| all(states, passing)).await;
    scene.server.say(Says::Inconclusive);
    let silent = |state: &GateState| state.verdict == Verdict::Inconclusive;
    let states = scene.until(|states| all(states, silent)).await;
    assert!(states[0].text.contains("503"), "{}", states[0].text);
    // A server that never answers does not hold up the end.
    scene.server.say(Says::Hang);
    shutdown.cancel();
    assert_eq!(tasks.join(PATIENCE).await, 0);
}

#[tokio::test]
async fn no_more_than_a_few_are_asked_at_a_time() {
    let names: Vec<String> = (0..2 * ASKED_AT_ONCE).map(|n| format!("g{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let scene = Scene::new(&names, LONG).await;
    scene.server.say(Says::Hang);
    let questions = due(scene.app()).await.unwrap();
    let mut asking = Asking::default();
    for _ in 0..2 {
        asking.begin(questions.clone(), &scene.asker, clock::now());
        assert_eq!(asking.tasks.len(), ASKED_AT_ONCE);
    }
    asking.tasks.shutdown().await;
}

#[tokio::test]
async fn nothing_is_offered_before_every_gate_has_passed() {
    let scene = Scene::new(&["errors"], LONG).await;
    let offered = async || {
        scene.world.offer().await;
        let id = scene.world.newest().await.id;
        let targets = scene
            .world
            .write(move |tx| Ok(tx.rollout_targets(id)?))
            .await;
        targets.iter().any(|target| target.offered_at.is_some())
    };
    assert!(!offered().await);
    scene.server.say(Says::Fail("too slow".to_owned()));
    scene.ask_and_keep().await;
    assert!(!offered().await);
    scene.server.say(Says::Pass);
    scene.ask_and_keep().await;
    assert!(offered().await);
    scene.server.say(Says::Fail("too slow".to_owned()));
    scene.ask_and_keep().await;
    scene.ask_and_keep().await;
    scene.world.offer().await;
    let run = scene.world.newest().await.run;
    assert_eq!(run.phase, Phase::Halted);
    assert!(run.hold_reason.contains("too slow"), "{}", run.hold_reason);
    assert!(due(scene.app()).await.unwrap().is_empty());
    // Whoever lets it go on has it asked anew.
    scene.world.say(Verb::Resume).await.unwrap();
    assert_eq!(scene.states().await, []);
    assert!(scene.is_due().await);
}
