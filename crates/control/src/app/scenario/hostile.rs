//! Whatever an agent reports, control stores it or says what is wrong with it, and can still work with what is stored.

use keyfleet_core::Timestamp;
use keyfleet_proto::v1;
use prost::Message;
use tokio::runtime::Runtime;
use xtask::fuzz::Chance;

use super::world::{World, enrolment, ops};
use crate::app::status::Reporter;
use crate::app::view;
use crate::error::Error;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// Reports that are made of odd values, where bytes alone would seldom be a report at all.
const ODD_REPORTS: u64 = 500;

/// Numbers, texts and times that no agent of ours would say together.
const NUMBERS: [u64; 6] = [0, 1, 2, 7, 1 << 63, u64::MAX];
const TEXTS: [&str; 5] = [
    "",
    "default",
    "assistant",
    "sk-proj-0123456789abcdef0123",
    "\u{202e}\0",
];
const SECONDS: [i64; 5] = [0, -1, 1_795_434_000, i64::MIN, i64::MAX];

/// Names that a report has to use, and what may look like a key.
const WORDS: [&str; 6] = [
    "default",
    "assistant",
    "soc",
    "9.4.0",
    "sk-proj-",
    "\u{1b}[2J",
];

/// Control that has offered its one connector to a canary, and that canary's agent.
struct Offered {
    runtime: Runtime,
    world: World,
    from: Reporter,
}

impl Offered {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let world = runtime.block_on(async {
            let world = World::new(&["canary"]).await;
            world.offer().await;
            world
        });
        let from = Reporter {
            deployment: *world.names.keys().next().unwrap(),
            enrolment: enrolment(),
            certificate_serial: "01".to_owned(),
            certificate_not_after: Timestamp::MAX,
        };
        Self {
            runtime,
            world,
            from,
        }
    }

    /// Only what is wrong with the message may be said, and everything can still be composed and shown.
    fn still_works_after(&self, said: &Result<(), Error>) {
        assert!(matches!(said, Ok(()) | Err(Error::Invalid(_))), "{said:?}");
        let app = &self.world.app;
        let (desired, shown) = self.runtime.block_on(async {
            let look = |sight: &view::Sight<'_>| view::deployment(sight, "canary");
            let shown = app.view_as(&ops(), look).await;
            (app.desired(self.from.deployment).await, shown)
        });
        desired.unwrap();
        let facts = shown.unwrap().deployment.unwrap().facts;
        let facts = format!("{:?}", facts.unwrap_or_default());
        assert!(!facts.contains("0123456789abcdef"), "{facts}");
        self.runtime.block_on(self.world.bindings());
    }
}

#[test]
fn any_report_is_stored_or_refused() {
    let offered = Offered::new();
    xtask::fuzz::run(format!("{CORPUS}/report"), &WORDS, |bytes| {
        if let Ok(report) = v1::StatusReport::decode(bytes) {
            let said = offered.world.app.report(&offered.from, report, "test");
            offered.still_works_after(&offered.runtime.block_on(said));
        }
    });
    // What was offered may be held, whatever the agent said since.
    let holdings = offered.runtime.block_on(offered.world.holdings());
    assert!(holdings.contains_key(&1), "{holdings:?}");
}

#[test]
fn a_report_of_odd_values_is_stored_or_refused() {
    let offered = Offered::new();
    let mut n_stored = 0;
    for seed in 0..ODD_REPORTS {
        let report = odd_report(&mut Chance::new(seed));
        let said = offered.world.app.report(&offered.from, report, "test");
        let said = offered.runtime.block_on(said);
        n_stored += u64::from(said.is_ok());
        offered.still_works_after(&said);
    }
    assert!(n_stored > ODD_REPORTS / 20, "only {n_stored} were stored");
    assert!(n_stored < ODD_REPORTS, "all were stored");
}

#[test]
fn made_up_versions_do_not_fill_the_database() {
    let offered = Offered::new();
    for version in 2..60 {
        let mut report = odd_report(&mut Chance::new(0));
        report.bindings = vec![runs(version)];
        let said = offered.world.app.report(&offered.from, report, "test");
        offered.runtime.block_on(said).unwrap();
    }
    let holdings = offered.runtime.block_on(offered.world.holdings());
    assert!(
        holdings.contains_key(&1) && holdings.contains_key(&2),
        "{holdings:?}"
    );
    assert!(holdings.len() <= 10, "{holdings:?}");
}

/// The status of an agent that says it runs this key version.
fn runs(version: u64) -> v1::BindingStatus {
    let assignment = v1::Assignment {
        revision: 1,
        key_version: version,
    };
    let binding = v1::BindingRef {
        space: "default".to_owned(),
        connector: "assistant".to_owned(),
    };
    v1::BindingStatus {
        binding: Some(binding),
        running: Some(assignment),
        generation: Some(v1::Generation::default()),
        state: v1::BindingState::Proven.into(),
        ..v1::BindingStatus::default()
    }
}

fn odd_report(chance: &mut Chance) -> v1::StatusReport {
    let bindings = (0..=chance.below(2)).map(|_| odd_binding(chance));
    v1::StatusReport {
        bindings: bindings.collect(),
        sequence: number(chance),
        full: chance.below(2) == 0,
        facts: (chance.below(4) == 0).then(|| odd_facts(chance)),
    }
}

/// Long and odd lists, with what names and describes things made of what no Kibana has.
fn odd_facts(chance: &mut Chance) -> v1::KibanaFacts {
    let many = |chance: &mut Chance| [0, 1, 2, 40][chance.below(4)];
    let spaces = (0..many(chance)).map(|_| v1::Space {
        id: foreign(chance),
        actions_enabled: chance.below(2) == 0,
    });
    let spaces = spaces.collect();
    let checks = (0..many(chance)).map(|_| v1::Check {
        name: foreign(chance),
        outcome: i32::try_from(chance.below(7)).unwrap_or(0),
        sentence: foreign(chance),
        detail: foreign(chance),
    });
    let checks = checks.collect();
    let connectors = (0..many(chance)).map(|_| v1::SeenConnector {
        space: foreign(chance),
        id: foreign(chance),
        name: foreign(chance),
        r#type: foreign(chance),
        config_json: foreign(chance),
        read_only: chance.below(2) == 0,
        missing_secrets: chance.below(2) == 0,
        references: u32::try_from(number(chance)).unwrap_or(u32::MAX),
    });
    let connectors = connectors.collect();
    v1::KibanaFacts {
        reachable: chance.below(2) == 0,
        version: foreign(chance),
        uuid: foreign(chance),
        flavor: foreign(chance),
        licence: foreign(chance),
        spaces,
        problems: vec![foreign(chance)],
        observed_at: time(chance),
        checks,
        connectors,
        connectors_complete: chance.below(2) == 0,
    }
}

/// A text of a Kibana, or of somebody who says he is one.
fn foreign(chance: &mut Chance) -> String {
    let text = FOREIGN[chance.below(FOREIGN.len())];
    match chance.below(20) {
        0 => text.repeat(20),
        _ => text.to_owned(),
    }
}

/// What looks like an id of ours, like a key, like JSON, and like nothing.
const FOREIGN: [&str; 10] = [
    "",
    "default",
    "9.4.0",
    "assistant",
    "7d8f5bd4-8f4b-5c4c-9b0f-2f6c1f3b7a10",
    "sk-proj-0123456789abcdef0123 ",
    r#"{"apiProvider":"OpenAI","apiUrl":"https://x.example/"}"#,
    "[[[[",
    "\u{202e}\0\u{1b}[2J",
    "ü ",
];

fn odd_binding(chance: &mut Chance) -> v1::BindingStatus {
    // Mostly what was offered, so that the odd rest is looked at too.
    let is_known = chance.below(8) > 0;
    let binding = v1::BindingRef {
        space: if is_known { "default" } else { text(chance) }.to_owned(),
        connector: if is_known { "assistant" } else { text(chance) }.to_owned(),
    };
    v1::BindingStatus {
        binding: Some(binding),
        running: assignment(chance),
        attempted: assignment(chance),
        attempt: u32::try_from(number(chance)).unwrap_or(1),
        generation: Some(v1::Generation {
            epoch: 1,
            counter: number(chance),
        }),
        state: i32::try_from(chance.below(11)).unwrap_or(0),
        failure_class: i32::try_from(chance.below(18)).unwrap_or(0),
        text: text(chance).to_owned(),
        baseline_ok: (chance.below(2) == 0).then_some(false),
        proven_at: time(chance),
        changed_at: time(chance),
        removed: chance.below(4) == 0,
        ..v1::BindingStatus::default()
    }
}

fn number(chance: &mut Chance) -> u64 {
    // Odd ones are rare, or nothing would ever be stored.
    let kept = if chance.below(6) > 0 {
        3
    } else {
        NUMBERS.len()
    };
    NUMBERS[chance.below(kept)]
}

fn text(chance: &mut Chance) -> &'static str {
    TEXTS[chance.below(TEXTS.len())]
}

fn assignment(chance: &mut Chance) -> Option<v1::Assignment> {
    (chance.below(4) > 0).then(|| v1::Assignment {
        revision: number(chance),
        key_version: number(chance),
    })
}

fn time(chance: &mut Chance) -> Option<prost_types::Timestamp> {
    let kept = if chance.below(4) > 0 {
        3
    } else {
        SECONDS.len()
    };
    let seconds = SECONDS[chance.below(kept)];
    (chance.below(2) == 0).then_some(prost_types::Timestamp { seconds, nanos: 0 })
}

#[test]
fn any_answer_to_a_desired_state_is_stored_or_refused() {
    let offered = Offered::new();
    xtask::fuzz::run(format!("{CORPUS}/answer"), &WORDS, |bytes| {
        if let Ok(answer) = v1::DesiredAnswer::decode(bytes) {
            let said = offered.world.app.answered(&offered.from, answer);
            offered.still_works_after(&offered.runtime.block_on(said));
        }
    });
}
