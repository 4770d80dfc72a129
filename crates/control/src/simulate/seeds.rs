//! Thousands of small fleets in which everything goes wrong at random, each decided by its seed.
//!
//! After every event the checker looks at everything. Then comes calm: what is broken is mended, operators agree with
//! what waits for them, and everything must end. `KEYFLEET_SEEDS` and `KEYFLEET_SEED_FROM` say how many seeds are
//! tried, and from which one on; a seed that fails is printed with its story and how to replay it.

mod strategies;

use std::time::Duration;

use jiff::SignedDuration;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{ConnectorName, RolloutId};
use keyfleet_core::rollout::{Phase, Verb, WaitingOn};
use keyfleet_store::Scratch;

use super::random::Random;
use super::small::{assistant, monday, objects, openai};
use super::{Conditions, Fault, Simulation};

/// Seeds of one run of the tests, all parts together.
const SEEDS: u64 = 10_000;

/// The tests that share them, so that they run beside each other.
const PARTS: u64 = 8;

/// More events than any of these fleets needs to end.
const EVENTS_MAX: u32 = 200_000;

/// So often operators look after what waits for them before it must have ended.
const ROUNDS: u32 = 12;

const VERBS: [Verb; 7] = [
    Verb::Pause,
    Verb::Resume,
    Verb::Abort,
    Verb::Rollback,
    Verb::Retry,
    Verb::Approve,
    Verb::FastForward,
];

const CLASSES: [FailureClass; 6] = [
    FailureClass::Auth,
    FailureClass::Quota,
    FailureClass::Network,
    FailureClass::Model,
    FailureClass::RateLimit,
    FailureClass::Egress,
];

/// A fleet and what happens to it.
struct Chaos {
    simulation: Simulation,
    random: Random,
    connectors: Vec<ConnectorName>,
    joined: u32,
}

type Outcome = Result<(), String>;

fn other() -> ConnectorName {
    "other".parse().unwrap()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Chaos {
    fn new(seed: u64, keeps_log: bool) -> Result<Self, String> {
        let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9).wrapping_add(1));
        let strategy = strategies::draw(&mut random);
        strategy
            .validate()
            .map_err(|err| format!("the strategy that was drawn is none: {err}"))?;
        let mut connectors = vec![assistant()];
        if random.chance(4_000) {
            connectors.push(other());
        }
        let start = monday();
        let scratch = Scratch::empty().map_err(|err| err.to_string())?;
        scratch
            .run(|tx| objects(tx, &strategy, &connectors, start))
            .map_err(|err| err.to_string())?;
        let conditions = Conditions::default();
        let simulation =
            Simulation::new(scratch, start, seed, &conditions).map_err(|err| err.to_string())?;
        let mut chaos = Self {
            simulation,
            random,
            connectors,
            joined: 0,
        };
        if !keeps_log {
            chaos.simulation.keep_no_log();
        }
        Ok(chaos)
    }

    /// All of it.
    fn run(&mut self) -> Outcome {
        for _ in 0..2 + self.random.below(4) {
            self.join()?;
        }
        self.done(|it| it.new_key_version(&openai()).map(drop))?;
        if self.random.chance(6_000) {
            self.calm(false)?;
        }
        for _ in 0..6 + self.random.below(14) {
            let pause = Duration::from_millis(self.random.below(40_000));
            self.go_on(pause)?;
            self.act()?;
        }
        self.calm(true)?;
        self.ends()?;
        self.nothing_new()
    }

    fn done<E: std::fmt::Display>(
        &mut self,
        act: impl FnOnce(&mut Simulation) -> Result<(), E>,
    ) -> Outcome {
        act(&mut self.simulation).map_err(|err| err.to_string())?;
        self.holds()
    }

    fn holds(&mut self) -> Outcome {
        self.simulation.must_hold().map_err(|err| err.to_string())
    }

    /// Time passes.
    fn go_on(&mut self, pause: Duration) -> Outcome {
        let until = self.simulation.now().checked_add(pause).unwrap();
        while self.simulation.next_at().is_some_and(|at| at <= until) {
            self.simulation.advance().map_err(|err| err.to_string())?;
        }
        self.simulation.now = until.max(self.simulation.now);
        Ok(())
    }

    /// Until nothing happens by itself.
    fn run_out(&mut self) -> Outcome {
        for _ in 0..EVENTS_MAX {
            if self
                .simulation
                .advance()
                .map_err(|err| err.to_string())?
                .is_none()
            {
                return Ok(());
            }
        }
        Err(format!("{EVENTS_MAX} events later something still happens"))
    }

    fn join(&mut self) -> Outcome {
        self.joined += 1;
        let tier = if self.joined == 1 || self.random.chance(1_500) {
            "canary"
        } else {
            "other"
        };
        let labels = Labels::from([
            ("tier".to_owned(), tier.to_owned()),
            ("region".to_owned(), format!("r{}", self.random.below(2))),
        ]);
        let name = format!("d{}", self.joined);
        self.done(|it| it.join(&name, labels).map(drop))
    }

    fn anybody(&mut self) -> Option<String> {
        let names: Vec<&str> = self
            .simulation
            .agents
            .values()
            .map(|agent| agent.name.as_str())
            .collect();
        self.random.pick(&names).map(str::to_owned)
    }

    fn any_rollout(&mut self) -> Option<RolloutId> {
        let rollouts = self.simulation.look(|tx| Ok(tx.rollouts(4)?)).ok()?;
        let ids: Vec<RolloutId> = rollouts.iter().map(|rollout| rollout.id).collect();
        self.random.pick(&ids)
    }

    /// Something happens.
    fn act(&mut self) -> Outcome {
        let Some(name) = self.anybody() else {
            return self.join();
        };
        let wait = secs(1 + self.random.below(60));
        let what = self.random.below(24);
        // Nobody can tell a dead control anything.
        if !self.simulation.is_up && (what < 5 || (15..=22).contains(&what)) {
            return Ok(());
        }
        match what {
            0..=4 => return self.speak(),
            5 => self.simulation.connect(&name, false),
            6 => self.simulation.connect(&name, true),
            7 => self.simulation.cut(&name),
            8 => self.simulation.repeat(&name),
            9 => self.simulation.crash_control(wait),
            10 => self.simulation.crash_agent(&name, wait),
            11 | 12 => self.fault(&name),
            13 => self.simulation.set_fault(&name, Fault::None),
            14 => self.simulation.loss = u32::try_from(self.random.below(800)).unwrap(),
            15 => return self.provider(),
            16 => self.jump(),
            17 if self.joined < 7 => return self.join(),
            18 if self.simulation.agents.len() > 2 => return self.done(|it| it.leave(&name)),
            19 => return self.relabel(&name),
            20 => return self.done(|it| it.new_key_version(&openai()).map(drop)),
            21 => return self.revise(),
            22 => {
                let on = self.random.chance(5_000).then_some("something smells");
                return self.done(|it| it.andon(on));
            }
            23 => self.simulation.set_gates(5_000, 3_000),
            _ => {}
        }
        self.holds()
    }

    fn speak(&mut self) -> Outcome {
        let (Some(rollout), Some(verb)) = (self.any_rollout(), self.random.pick(&VERBS)) else {
            return Ok(());
        };
        let who = self.random.pick(&["ada", "bob", "cleo"]).unwrap_or("ada");
        // What a phase does not take is refused, and changes nothing.
        drop(self.simulation.say(rollout, verb, who, "", "because"));
        self.holds()
    }

    fn fault(&mut self, name: &str) {
        let class = self.random.pick(&CLASSES).unwrap_or(FailureClass::Auth);
        let fault = match self.random.below(6) {
            0 => Fault::KibanaDown,
            1 | 2 => Fault::Fails(class),
            3 => Fault::Broken(class),
            4 => Fault::Slow(secs(1 + self.random.below(90))),
            _ if self.random.chance(5_000) => Fault::Rejects,
            _ => Fault::Stuck,
        };
        self.simulation.set_fault(name, fault);
    }

    fn provider(&mut self) -> Outcome {
        let versions = self.simulation.look(|tx| Ok(tx.key_versions(&openai())?));
        let versions = versions.map_err(|err| err.to_string())?;
        let newest = versions.iter().map(|row| row.version).max();
        match (self.random.below(3), newest) {
            (0, _) => self.simulation.credit(false),
            (1, _) => self.simulation.credit(true),
            (_, Some(newest)) => self.simulation.refuse_key(&openai(), newest, true),
            (_, None) => {}
        }
        self.holds()
    }

    fn jump(&mut self) {
        let by = i64::try_from(self.random.below(7_200)).unwrap() - 3_600;
        self.simulation.step_clock(SignedDuration::from_secs(by));
        self.simulation.nudge();
    }

    fn relabel(&mut self, name: &str) -> Outcome {
        let tier = self
            .random
            .pick(&["canary", "other", "none"])
            .unwrap_or("other");
        let labels = Labels::from([("tier".to_owned(), tier.to_owned())]);
        self.done(|it| it.relabel(name, labels, Vec::new()))
    }

    fn revise(&mut self) -> Outcome {
        let connector = self
            .random
            .below(u64::try_from(self.connectors.len()).unwrap());
        let connector = self.connectors[usize::try_from(connector).unwrap()].clone();
        let has_no_model = self.random.chance(2_500);
        self.done(|it| {
            let revision = it.new_revision(&connector)?;
            if has_no_model {
                it.no_model(&connector, revision);
            }
            Ok::<_, crate::error::Error>(())
        })
    }

    /// Everything is mended, and operators look after what waits for them.
    fn calm(&mut self, is_last: bool) -> Outcome {
        if is_last {
            self.mend()?;
        }
        for round in 0..ROUNDS {
            self.run_out()?;
            let active = self
                .simulation
                .look(|tx| Ok(tx.active_rollouts()?))
                .map_err(|err| err.to_string())?;
            if active.is_empty() {
                return Ok(());
            }
            for rollout in active {
                self.look_after(rollout.id, rollout.run.phase, round)?;
            }
        }
        self.simulation.explain();
        Err("calm does not end every rollout".to_owned())
    }

    fn look_after(&mut self, id: RolloutId, phase: Phase, round: u32) -> Outcome {
        let waits = self.simulation.waiting().get(&id);
        let waits_for_people = waits.is_some_and(|all| {
            all.iter()
                .any(|it| matches!(it.on, WaitingOn::Approval { .. }))
        });
        let verb = match phase {
            Phase::Progressing if waits_for_people => Verb::Approve,
            Phase::Progressing => Verb::FastForward,
            // What cannot be mended is given up in the end.
            _ if round > ROUNDS / 2 => Verb::Abort,
            _ => Verb::Retry,
        };
        for who in ["ada", "bob", "cleo"] {
            let said = self.simulation.say(id, verb, who, "", "calm");
            if let (Err(err), true) = (said, verb != Verb::Approve) {
                return Err(format!("calm cannot say {}: {err}", verb.as_str()));
            }
            if verb != Verb::Approve {
                break;
            }
        }
        self.holds()
    }

    fn mend(&mut self) -> Outcome {
        let simulation = &mut self.simulation;
        simulation.note("calm", || "everything is mended".to_owned());
        simulation.loss = 0;
        simulation.set_gates(10_000, 0);
        simulation.credit(true);
        simulation.provider.refused.clear();
        simulation.provider.no_model.clear();
        let names: Vec<String> = simulation
            .agents
            .values()
            .map(|agent| agent.name.clone())
            .collect();
        for name in names {
            simulation.set_fault(&name, Fault::Slow(secs(2)));
            simulation.set_fault(&name, Fault::None);
            simulation.connect(&name, true);
        }
        self.go_on(secs(120))?;
        let skew = self
            .simulation
            .now()
            .duration_since(self.simulation.control_now());
        self.simulation.step_clock(skew);
        self.simulation.nudge();
        self.done(|it| it.andon(None))
    }

    /// Nothing is left that nobody will ever take up.
    fn ends(&mut self) -> Outcome {
        let bindings = self
            .simulation
            .look(|tx| Ok(tx.bindings()?))
            .map_err(|err| err.to_string())?;
        for binding in bindings {
            let is_left = !binding.is_told_goal() && binding.held_by.is_none();
            let is_done = binding.is_converged()
                || binding.progress.failure.is_some()
                || binding.held_by.is_some();
            if is_left || !(is_done || binding.is_untold()) {
                return Err(format!("nobody ever takes up {}: {binding:#?}", binding.id));
            }
        }
        Ok(())
    }

    /// A restart of either side and a new session change nothing on any Kibana and write no row.
    fn nothing_new(&mut self) -> Outcome {
        // A proof from an agent whose clock was ahead of control's is dated anew when it is said again.
        let names: Vec<String> = self
            .simulation
            .agents
            .values()
            .map(|agent| agent.name.clone())
            .collect();
        for name in &names {
            self.simulation.repeat(name);
        }
        self.run_out()?;
        let bindings = self
            .simulation
            .look(|tx| Ok(tx.bindings()?))
            .map_err(|err| err.to_string())?;
        let is_calm = bindings.iter().all(keyfleet_store::Binding::is_converged);
        let before = (
            self.simulation.writes(),
            self.simulation.stored().map_err(|err| err.to_string())?,
        );
        let sent = self.simulation.checker.sent;
        for name in names {
            match self.random.below(3) {
                0 => self.simulation.cut(&name),
                1 => self.simulation.crash_agent(&name, secs(3)),
                _ => self.simulation.repeat(&name),
            }
        }
        if self.random.chance(5_000) {
            self.simulation.crash_control(secs(2));
        }
        self.run_out()?;
        let after = (
            self.simulation.writes(),
            self.simulation.stored().map_err(|err| err.to_string())?,
        );
        if before != after {
            return Err(format!(
                "restarts and new sessions changed something: {} writes before, {} after; {}",
                before.0,
                after.0,
                difference(&before.1, &after.1)
            ));
        }
        if is_calm && self.simulation.checker.sent != sent {
            return Err(
                "new sessions were sent a desired state or a key, and nothing was new".to_owned(),
            );
        }
        Ok(())
    }
}

fn difference(before: &str, after: &str) -> String {
    let mut lines = before.lines().zip(after.lines());
    let found = lines.find(|(before, after)| before != after);
    found.map_or_else(String::new, |(before, after)| {
        format!("{before} became {after}")
    })
}

fn try_seed(seed: u64, keeps_log: bool) -> Result<Simulation, (String, String)> {
    let mut chaos = Chaos::new(seed, keeps_log).map_err(|err| (err, String::new()))?;
    match chaos.run() {
        Ok(()) => Ok(chaos.simulation),
        Err(err) => Err((err, chaos.simulation.log().to_owned())),
    }
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

fn part(number_of_part: u64) {
    let (seeds, from) = (
        number("KEYFLEET_SEEDS", SEEDS),
        number("KEYFLEET_SEED_FROM", 0),
    );
    let mine = (from..from + seeds).filter(|seed| seed % PARTS == number_of_part);
    let mut failed = Vec::new();
    for seed in mine {
        if try_seed(seed, false).is_err() {
            failed.push(seed);
        }
        if failed.len() > 20 {
            break;
        }
    }
    let Some(first) = failed.first() else {
        return;
    };
    // The same seed again, with its story.
    let Err((why, log)) = try_seed(*first, true) else {
        panic!("seed {first} fails only sometimes: the simulator is not deterministic");
    };
    panic!(
        "seeds {failed:?} fail; seed {first}: {why}\nreplay: KEYFLEET_SEEDS=1 KEYFLEET_SEED_FROM={first} cargo nextest run -p keyfleet-control simulate::seeds\n{log}"
    );
}

macro_rules! parts {
    ($($name:ident: $number:literal),+) => {
        $(#[test]
        fn $name() {
            part($number);
        })+
    };
}

parts! {
    every_seed_ends_well_0: 0,
    every_seed_ends_well_1: 1,
    every_seed_ends_well_2: 2,
    every_seed_ends_well_3: 3,
    every_seed_ends_well_4: 4,
    every_seed_ends_well_5: 5,
    every_seed_ends_well_6: 6,
    every_seed_ends_well_7: 7
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 0..5 {
        let story = || match try_seed(seed, true) {
            Ok(simulation) => simulation.log().to_owned(),
            Err((_, log)) => log,
        };
        assert_eq!(story(), story());
    }
}
