//! One table for each rule of the way forward and back, with its boundaries.

mod back;
mod deadline;
mod hold;
mod pace;

use std::time::Duration;

use super::*;
use crate::rollout::invariants::violations;
use crate::rollout::phase::Verb;
use crate::rollout::strategy::{Amount, Wave, default_strategy};
use crate::rollout::waiting::About;

/// A run at one moment.
pub(super) struct Scene {
    pub(super) strategy: Strategy,
    pub(super) run: Run,
    pub(super) targets: Vec<Target>,
    pub(super) now: Timestamp,
}

/// So many seconds after the beginning of the run.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target(number: usize, wave: usize, letter: char) -> Target {
    let step = match letter {
        'o' => Step::Offered(at(0)),
        'p' => Step::Proven(at(0)),
        'f' | 'b' => Step::Failed(at(0), FailureClass::Model),
        't' => Step::RollbackOffered(at(0)),
        'k' => Step::RolledBack(at(0)),
        'x' => Step::RollbackFailed(at(0), FailureClass::Timeout),
        _ => Step::Waiting,
    };
    Target {
        deployment: DeploymentId::new(uuid::Uuid::from_u128(number as u128)),
        wave,
        group: None,
        offered_at: None,
        rollback_at: None,
        opening: Opening::Always,
        shut: Duration::ZERO,
        left: false,
        step,
        online: letter != '-',
        baseline_red: letter == 'b',
        forgiven: false,
        can_roll_back: true,
    }
}

impl Scene {
    /// A run in its first wave at the moment 0. One word for each wave, one letter for each deployment: `w` waiting,
    /// `-` waiting and away, `o` offered, `p` proven, `f` failed, `b` failed and broken before, `t` told to go back, `k`
    /// back, `x` failed to go back. Waves are called a, b, c, have no soak and take everybody at a time; nothing is spent.
    pub(super) fn new(waves: &str) -> Self {
        let mut strategy = default_strategy("test".parse().unwrap());
        let blank = Wave {
            concurrency: Amount::Percent(100),
            ..strategy.waves[2].clone()
        };
        strategy.waves.clear();
        strategy.budgets.clear();
        strategy.offline.max_percent = 100;
        let mut targets = Vec::new();
        for ((index, letters), name) in waves.split(' ').enumerate().zip('a'..) {
            strategy.waves.push(Wave {
                name: name.to_string(),
                ..blank.clone()
            });
            for letter in letters.chars() {
                targets.push(target(targets.len(), index, letter));
            }
        }
        let mut run = Run::new("ada", at(0));
        run.phase = Phase::Progressing;
        run.wave = Some(0);
        let now = at(0);
        Self {
            strategy,
            run,
            targets,
            now,
        }
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The plan, which breaks no rule.
    pub(super) fn plan(&self) -> Plan {
        let input = PlanInput {
            now: self.now,
            andon: None,
            strategy: &self.strategy,
            run: &self.run,
            targets: &self.targets,
        };
        let plan = plan(&input);
        assert_eq!(violations(&input, &plan), Vec::<String>::new());
        plan
    }

    fn numbers(&self, ids: &[DeploymentId]) -> Vec<usize> {
        let number = |id: &DeploymentId| self.targets.iter().position(|t| t.deployment == *id);
        ids.iter().filter_map(number).collect()
    }

    /// The numbers of the deployments that are offered the change.
    pub(super) fn offers(&self) -> Vec<usize> {
        self.numbers(&self.plan().offer)
    }

    /// The numbers of the deployments that are told to go back.
    pub(super) fn returns(&self) -> Vec<usize> {
        self.numbers(&self.plan().roll_back)
    }

    /// What happens to the run.
    pub(super) fn event(&self) -> Option<Event> {
        self.plan().events.first().map(|(event, _)| *event)
    }

    /// What happens to the run, in words.
    pub(super) fn sentence(&self) -> String {
        let plan = self.plan();
        let event = plan.events.first();
        event
            .map(|(_, sentence)| sentence.clone())
            .unwrap_or_default()
    }

    pub(super) fn why(&self, about: About) -> String {
        let plan = self.plan();
        let found = plan
            .waiting_on
            .iter()
            .find(|waiting| waiting.about == about);
        found
            .map(|waiting| waiting.on.to_string())
            .unwrap_or_default()
    }

    /// Why the deployment of this number waits.
    pub(super) fn why_not(&self, number: usize) -> String {
        self.why(About::Deployment(self.targets[number].deployment))
    }
}

#[test]
fn a_run_without_deployments_ends_at_once() {
    let scene = Scene::new("").with(|s| s.run = Run::new("ada", at(0)));
    assert_eq!(scene.event(), Some(Event::Started));
    let scene = Scene::new("").with(|s| s.run.wave = None);
    assert_eq!(scene.event(), Some(Event::Finished));
    let gone = Scene::new("w w").with(|s| {
        s.run.wave = None;
        s.targets.iter_mut().for_each(|target| target.left = true);
    });
    assert_eq!(gone.event(), Some(Event::Finished));
    let expected = "every wave is done: 0 of 0 deployments proven, 2 left the rollout";
    assert_eq!(gone.sentence(), expected);
}

#[test]
fn every_wave_begins_by_the_same_rule_the_first_too() {
    let check = |waves: &str, wave: Option<usize>, expected: Event| {
        let scene = Scene::new(waves).with(|s| s.run.wave = wave);
        assert_eq!(scene.event(), Some(expected), "{waves} {wave:?}");
    };
    check("w w", None, Event::WaveStarted(0));
    check(" w", None, Event::WaveStarted(1));
    check("p w", Some(0), Event::WaveStarted(1));
    check("p  w", Some(0), Event::WaveStarted(2));
    check("p p", Some(1), Event::Finished);
    // A pause before the start, and its end, lead the same way.
    let mut run = Run::new("ada", at(0));
    for verb in [Verb::Pause, Verb::Resume] {
        run.happen(Event::Verb(verb), "", at(1)).unwrap();
    }
    let scene = Scene::new("w").with(|s| s.run = run);
    assert_eq!(scene.event(), Some(Event::WaveStarted(0)));
}

#[test]
fn who_left_counts_for_nothing_but_finishes_what_it_does() {
    let leave =
        |waves: &str, number: usize| Scene::new(waves).with(|s| s.targets[number].left = true);
    assert_eq!(leave("ww", 0).offers(), [1]);
    assert!(leave("ww", 0).why_not(0).starts_with("left the rollout"));
    // In flight it keeps its place, and the wave waits for it.
    let busy = leave("ow", 0).with(|s| s.strategy.waves[0].concurrency = Amount::Count(1));
    assert_eq!(busy.offers(), [0; 0]);
    assert_eq!(leave("o", 0).event(), None);
    // Away, failed, or soaking it holds nobody up.
    for letter in ["-", "f", "b", "p"] {
        let scene = leave(&format!("{letter} w"), 0).with(|s| {
            s.strategy.waves[0].soak = secs(600);
            s.strategy.waves[0].mandatory = true;
        });
        assert_eq!(scene.event(), Some(Event::WaveStarted(1)), "{letter}");
    }
    // A tenth of ten who are left, of eleven who were.
    let share = leave(&"w".repeat(20), 3).with(|s| {
        s.strategy.waves[0].concurrency = Amount::Percent(10);
    });
    assert_eq!(share.offers(), [0]);
}

#[test]
fn waves_and_the_run_say_what_they_wait_for() {
    let scene = Scene::new("ow w w").with(|s| s.strategy.waves[0].concurrency = Amount::Count(1));
    let running =
        "wave \"a\" (1 of 3): 0 of 2 deployments proven, 1 in flight (wave deadline in 2h)";
    assert_eq!(scene.why(About::Run), running);
    assert_eq!(scene.why(About::Wave(0)), running);
    let later = "wave \"c\" (3 of 3) has not started: wave 1 \"a\" is running";
    assert_eq!(scene.why(About::Wave(2)), later);
    assert_eq!(scene.why_not(3), later);
    let paused = scene.with(|s| {
        s.run.phase = Phase::Paused;
        s.run.hold_reason = "lunch".to_owned();
    });
    for about in [About::Run, About::Wave(0), About::Wave(2)] {
        assert_eq!(paused.why(about), "paused: lunch");
    }
}
