//! A small fleet with one Key, one or two connectors and a strategy: what tests begin with.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{ConnectorName, KeyName, Revision};
use keyfleet_core::key::{Key, KeyLocation};
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{About, Amount, Phase, Strategy, Waiting, default_strategy};
use keyfleet_store::{Rollout, Scratch, Tx};

use super::{Conditions, Event, Simulation};
use crate::app::start::strategy_named;
use crate::error::Error;

/// When every simulated story begins: a Monday morning.
pub(crate) fn monday() -> Timestamp {
    "2026-11-23T08:00:00Z".parse().unwrap()
}

/// The one Key.
pub(crate) fn openai() -> KeyName {
    "openai".parse().unwrap()
}

/// The first connector.
pub(crate) fn assistant() -> ConnectorName {
    "assistant".parse().unwrap()
}

/// Two waves: a strict canary by the label `tier`, then the rest, four at a time; no soak.
pub(crate) fn quick() -> Strategy {
    let mut strategy = default_strategy("default".parse().unwrap());
    strategy.waves.remove(1);
    let canary = Labels::from([("tier".to_owned(), "canary".to_owned())]);
    strategy.waves[0].selector = Selector::from_labels(&canary);
    strategy.waves[0].soak = Duration::ZERO;
    strategy.waves[1].concurrency = Amount::Count(4);
    strategy
}

/// Everything but deployments and key versions.
pub(crate) fn objects(
    tx: &Tx<'_>,
    strategy: &Strategy,
    connectors: &[ConnectorName],
    now: Timestamp,
) -> Result<(), Error> {
    tx.set_outbound(&["api.openai.com".parse().unwrap()])?;
    tx.put_strategy(strategy)?;
    tx.put_key(&Key {
        name: openai(),
        location: KeyLocation {
            mount: "secret".to_owned(),
            path: "keyfleet/openai".to_owned(),
            field: "api_key".into(),
        },
        allowed_hosts: vec!["api.openai.com".to_owned()],
        scope: Selector::default(),
        rotation: keyfleet_core::key::Rotation::default(),
    })?;
    for connector in connectors {
        let new = ConnectorRevision {
            connector: connector.clone(),
            revision: Revision(1),
            spec: spec(connector),
        };
        tx.insert_connector(&new, now)?;
    }
    tx.put_placement(&Placement {
        name: "everywhere".parse().unwrap(),
        selector: Selector::default(),
        connectors: connectors.to_vec(),
        spaces: vec!["default".parse().unwrap()],
        except_spaces: Vec::new(),
        adopt: Vec::new(),
        drift_policy: DriftPolicy::Correct,
        strategy: strategy.name.clone(),
        task: None,
    })?;
    Ok(())
}

fn spec(connector: &ConnectorName) -> ConnectorSpec {
    ConnectorSpec {
        connector_type: ".gen-ai".to_owned(),
        display_name: connector.to_string(),
        config: r#"{"apiProvider":"OpenAI","apiUrl":"https://api.openai.com/v1/chat/completions"}"#
            .to_owned(),
        key: openai(),
        if_supported: Vec::new(),
        probe: Probe::default(),
        replaces: None,
    }
}

impl Simulation {
    /// Deployments of these names, joined one after the other, with the first version of the Key; the one whose name
    /// begins with `canary` is the canary. Nothing is rolled out yet.
    pub(crate) fn small(strategy: &Strategy, names: &[&str], seed: u64) -> Self {
        let start = monday();
        let scratch = Scratch::empty().unwrap();
        scratch
            .run(|tx| objects(tx, strategy, &[assistant()], start))
            .unwrap();
        let mut simulation = Self::new(scratch, start, seed, &Conditions::default()).unwrap();
        for name in names {
            simulation.join(name, tier(name)).unwrap();
        }
        simulation.new_key_version(&openai()).unwrap();
        simulation
    }

    /// As [`Simulation::small`], after the first rollout has ended.
    pub(crate) fn settled(strategy: &Strategy, names: &[&str], seed: u64) -> Self {
        let mut simulation = Self::small(strategy, names, seed);
        simulation.run_out();
        simulation
    }

    /// Goes on until nothing happens by itself any more.
    pub(crate) fn run_out(&mut self) {
        for _ in 0..1_000_000 {
            if self.advance().unwrap().is_none() {
                return;
            }
        }
        panic!("it never ends:\n{}", self.log());
    }

    /// When something happens next by itself.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        let next = self.queue.first_key_value();
        next.map(|((at, _), _)| *at)
    }

    /// True where nothing goes on but gates that are asked again and again, and plans that look at them.
    pub(super) fn only_gates_are_left(&self) -> bool {
        let mut events = self.queue.values();
        events.all(|event| matches!(event, Event::Gate(..) | Event::Plan))
    }

    /// The story so far: when, who, what.
    pub(crate) fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// Appends why everything waits, as the planner would say it now: it looks again every few seconds.
    pub(crate) fn explain(&mut self) {
        self.plan_at = Some(self.now);
        self.plan().unwrap();
        let lines: Vec<String> = self
            .waiting
            .values()
            .flatten()
            .map(|waiting| self.sentence(waiting))
            .collect();
        for line in lines {
            self.note("why", || line);
        }
    }

    /// A reason with the name of what waits.
    pub(super) fn sentence(&self, waiting: &Waiting) -> String {
        let about = match waiting.about {
            About::Run => "the rollout".to_owned(),
            About::Wave(index) => format!("wave {}", index + 1),
            About::Deployment(id) => self.name_of(id),
        };
        format!("{about}: {}", waiting.on)
    }

    /// The rollouts, the oldest first.
    pub(crate) fn rollouts(&self) -> Vec<Rollout> {
        let mut all = self.look(|tx| Ok(tx.rollouts(1_000)?)).unwrap();
        all.reverse();
        all
    }

    /// The phase of the newest rollout.
    pub(crate) fn phase(&self) -> Phase {
        self.rollouts().last().unwrap().run.phase
    }
}

/// The label of a deployment with this name.
pub(crate) fn tier(name: &str) -> Labels {
    let tier = if name.starts_with("canary") {
        "canary"
    } else {
        "other"
    };
    Labels::from([("tier".to_owned(), tier.to_owned())])
}

#[test]
fn a_change_spreads_over_the_fleet() {
    let mut simulation = Simulation::settled(&quick(), &["canary", "b", "c"], 1);
    assert_eq!(simulation.phase(), Phase::Completed, "{}", simulation.log());
    simulation.new_revision(&assistant()).unwrap();
    simulation.run_out();
    let bindings = simulation.look(|tx| Ok(tx.bindings()?)).unwrap();
    assert!(
        bindings.iter().all(keyfleet_store::Binding::is_converged),
        "{}",
        simulation.log()
    );
    let strategy = simulation
        .look(|tx| strategy_named(tx, &quick().name))
        .unwrap();
    assert_eq!(strategy, quick());
}
