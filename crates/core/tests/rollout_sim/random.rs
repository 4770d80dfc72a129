//! Many seeds of everything at once. To replay one: `replay(SEED)` in the test below.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::rollout::{
    Action, Amount, Budget, Deadlines, Phase, Sample, Step, Strategy, Verb, Wave, assign_waves,
    default_strategy,
};

use crate::world::{Agent, Fault, World, id};

/// How many worlds each test looks at.
const SEEDS: u64 = 3_000;

/// What a world may do before it must have ended: every deployment takes a handful of moments, and comes
/// round again after each retry.
const MOMENTS_MAX: usize = 600;

/// The xorshift64* generator (Vigna, 2016): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 to `below` - 1.
    fn below(&mut self, below: u64) -> u64 {
        (self.next() >> 33) % below
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    fn amount(&mut self, least: u64) -> Amount {
        match self.one_in(2) {
            true => Amount::Count((least + self.below(4)) as u32),
            false => Amount::Percent((least + self.below(101 - least)) as u8),
        }
    }

    fn seconds(&mut self, below: u64) -> Duration {
        Duration::from_secs(self.below(below))
    }

    fn strategy(&mut self) -> Strategy {
        let mut strategy = default_strategy("random".parse().unwrap());
        let waves = 1 + self.below(3);
        strategy.waves = (1..=waves)
            .map(|number| Wave {
                name: format!("w{number}"),
                selector: Default::default(),
                sample: (number < waves).then(|| Sample(self.amount(1))),
                concurrency: self.amount(1),
                strict: self.one_in(2),
                soak: self.seconds(60),
            })
            .collect();
        let classes = [
            None,
            Some(FailureClass::Auth),
            Some(FailureClass::Timeout),
            Some(FailureClass::Rejected),
        ];
        strategy.budgets = classes
            .into_iter()
            .filter(|_| !self.one_in(3))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|class| Budget {
                class,
                max: self.amount(0),
                min_sample: self.below(6) as u32,
                action: self.of(&Action::ALL),
            })
            .collect();
        strategy.deadlines = Deadlines {
            ack: Duration::from_secs(30),
            apply: Duration::from_secs(40),
            prove: Duration::from_secs(50),
            wave: Duration::from_secs(3_600),
        };
        strategy.offline_max_percent = self.of(&[0, 20, 50, 100]);
        strategy.rollback_concurrency = self.amount(1);
        strategy
    }

    fn fault(&mut self) -> Fault {
        match self.below(10) {
            0 => Fault::Silent,
            1 => Fault::Hangs,
            2 => Fault::Rejects,
            3 => Fault::Fails(FailureClass::Auth),
            4 => Fault::Fails(FailureClass::Model),
            _ => Fault::None,
        }
    }

    /// A healthy world of 0 to 12 deployments.
    fn world(&mut self) -> World {
        let strategy = self.strategy();
        let labels = Labels::new();
        let fleet: Vec<_> = (0..self.below(13) as usize)
            .map(|n| (id(n), &labels))
            .collect();
        let mut world = World::new(strategy.clone(), &assign_waves(&strategy, &fleet));
        for agent in &mut world.agents {
            agent.delay = self.seconds(20);
        }
        world
    }

    /// A world where some deployments are away, broken or cannot go back.
    fn faulty_world(&mut self) -> World {
        let mut world = self.world();
        for index in 0..world.targets.len() {
            let target = &mut world.targets[index];
            target.online = !self.one_in(6);
            target.baseline_red = self.one_in(8);
            target.can_roll_back = !self.one_in(12);
            let fault = self.fault();
            let rollback_fault = self.one_in(10).then_some(FailureClass::KibanaDown);
            world.agents[index] = Agent {
                fault,
                rollback_fault,
                ..world.agents[index]
            };
        }
        world
    }

    /// Something nobody planned for.
    fn disturb(&mut self, world: &mut World) {
        let index = match world.targets.len() {
            0 => return,
            targets => self.below(targets as u64) as usize,
        };
        match self.below(12) {
            0..=3 => world.connect(index, !world.targets[index].online),
            4 => world.set_andon(!world.andon),
            5 => {
                let jump = self.seconds(7_200);
                world.now = world.now.checked_add(jump).unwrap();
                world.settle();
            }
            6 => {
                let jump = self.seconds(7_200);
                world.now = world.now.checked_sub(jump).unwrap();
                world.settle();
            }
            7 => world.agents[index].fault = self.fault(),
            8 => {
                if let Step::Proven(_) = world.targets[index].step {
                    world.regressed = true;
                    let now = world.now;
                    world.targets[index].step = Step::Failed(now, FailureClass::Network);
                    world.settle();
                }
            }
            _ => {
                let verb = self.of(&[
                    Verb::Pause,
                    Verb::Resume,
                    Verb::Resume,
                    Verb::Rollback,
                    Verb::Retry,
                ]);
                world.verb(verb);
            }
        }
    }
}

/// One world: trouble for a while, then calm. It must come to an end.
fn replay(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = random.faulty_world();
    world.settle();
    for _ in 0..random.below(80) {
        if random.one_in(3) {
            random.disturb(&mut world);
        } else {
            world.advance();
        }
    }
    calm(&mut world);
    for _ in 0..20 {
        world.run_for(MOMENTS_MAX);
        match world.run.phase {
            Phase::Paused | Phase::Halted | Phase::RollbackPaused | Phase::RollbackHalted => {
                world.verb(Verb::Retry);
            }
            _ => break,
        }
    }
    assert!(
        world.run.phase.is_terminal(),
        "seed {seed}: {} for ever\n{}",
        world.run.phase,
        world.log
    );
}

/// Everything works from now on, and the clock is right again.
fn calm(world: &mut World) {
    for index in 0..world.targets.len() {
        world.agents[index].fault = Fault::None;
        world.agents[index].rollback_fault = None;
        world.targets[index].can_roll_back = true;
        if !world.targets[index].online {
            world.connect(index, true);
        }
    }
    if world.andon {
        world.set_andon(false);
    }
}

#[test]
fn whatever_happens_the_invariants_hold_and_a_calm_world_ends() {
    for seed in 0..SEEDS {
        // The seed of a failing world is the last one printed.
        let result = std::panic::catch_unwind(|| replay(seed));
        assert!(result.is_ok(), "seed {seed} fails: replay({seed})");
    }
}

#[test]
fn a_healthy_fleet_always_completes() {
    for seed in 0..SEEDS {
        let mut world = Random::new(seed).world();
        world.settle();
        world.run_for(MOMENTS_MAX);
        assert_eq!(
            world.run.phase,
            Phase::Completed,
            "seed {seed}\n{}",
            world.log
        );
        let proven = |step| matches!(step, Step::Proven(_));
        assert!(
            world.targets.iter().all(|target| proven(target.step)),
            "seed {seed}"
        );
    }
}

#[test]
fn a_rollback_of_a_connected_fleet_always_comes_back() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut world = random.world();
        world.settle();
        world.run_for(random.below(40) as usize);
        if !world.verb(Verb::Rollback) {
            assert_eq!(
                world.run.phase,
                Phase::Completed,
                "seed {seed}\n{}",
                world.log
            );
            continue;
        }
        world.run_for(MOMENTS_MAX);
        assert_eq!(
            world.run.phase,
            Phase::RolledBack,
            "seed {seed}\n{}",
            world.log
        );
        let back = |step| matches!(step, Step::Waiting | Step::RolledBack(_));
        assert!(
            world.targets.iter().all(|target| back(target.step)),
            "seed {seed}"
        );
    }
}
