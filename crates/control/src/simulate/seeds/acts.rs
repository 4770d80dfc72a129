//! What happens at random: words of operators, faults of everybody, changes of what is wanted.

use jiff::SignedDuration;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::rollout::Verb;

use super::{Chaos, Fault, Outcome, openai, secs};

const CLASSES: [FailureClass; 6] = [
    FailureClass::Auth,
    FailureClass::Quota,
    FailureClass::Network,
    FailureClass::Model,
    FailureClass::RateLimit,
    FailureClass::Egress,
];

impl Chaos {
    /// Something happens.
    pub(super) fn act(&mut self) -> Outcome {
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
            0..=2 if self.rotates => return self.speak_to_campaign(),
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
        let (Some(rollout), Some(verb)) = (self.any_rollout(), self.random.pick(&Verb::ALL)) else {
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
}
