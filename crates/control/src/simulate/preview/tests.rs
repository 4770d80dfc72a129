//! Previews of small made-up fleets: waves, worst cases, approvals, gates, windows, and who goes away.

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::{Action, Approval, Budget, Gate, GateCheck, Strategy, Window, Zone};
use keyfleet_store::KeyVersionRow;

use super::fates::most;
use super::*;
use crate::simulate::faults::spread;
use crate::simulate::small::{assistant, monday, objects, openai, quick};
use keyfleet_store::Tx;

/// Two waves, the second of which two others have to agree with.
fn agreed() -> Strategy {
    let mut strategy = quick();
    strategy.waves[1].approval = Some(Approval {
        required: 2,
        not_author: true,
    });
    strategy
}

fn preview(n: u32, faults: &str) -> Preview {
    preview_with(n, faults, &agreed())
}

/// So many made-up deployments, a third of them with the canary's label, which takes one; the first key version waits to be rolled out.
fn preview_with(n: u32, faults: &str, strategy: &Strategy) -> Preview {
    let start = monday();
    let scratch = Scratch::empty().unwrap();
    let tiers = ["canary", "1", "2"].map(str::to_owned).to_vec();
    let labels = [("tier".to_owned(), tiers)].into();
    let fill = |tx: &Tx<'_>| -> Result<(), Error> {
        objects(tx, strategy, &[assistant()], start)?;
        let version = KeyVersionRow {
            version: KeyVersion(1),
            state: KeyState::Current,
            fingerprint: "f1".to_owned(),
            shown: "sk-…".to_owned(),
            first_seen: start,
            readable: true,
            released: true,
        };
        tx.insert_key_version(&openai(), &version)?;
        make_up(tx, n, &labels, 1, start)?;
        spread(tx, "a try", start)
    };
    scratch.run(fill).unwrap();
    Preview {
        scratch,
        away: BTreeSet::new(),
        start,
        seed: 7,
        conditions: faults.parse().unwrap(),
    }
}

fn result(preview: &Preview) -> v1::SimulationResult {
    preview.run(&mut Patient).unwrap().unwrap()
}

#[test]
fn a_fleet_that_works_is_done_wave_by_wave() {
    let result = result(&preview(12, ""));
    let [rollout] = result.rollouts.as_slice() else {
        panic!("{:?}", result.rollouts)
    };
    assert_eq!(rollout.phase(), v1::RolloutPhase::Completed, "{rollout:?}");
    let waves: Vec<_> = rollout
        .waves
        .iter()
        .map(|w| (w.deployments, w.proven, w.failed))
        .collect();
    assert_eq!(waves, [(1, 1, 0), (11, 11, 0)]);
    let in_flight: Vec<u32> = rollout
        .waves
        .iter()
        .map(|wave| wave.in_flight_max)
        .collect();
    assert!((1..=4).contains(&in_flight[1]), "{in_flight:?}");
    assert!(rollout.waves[0].ends_secs <= rollout.waves[1].begins_secs);
    assert!(rollout.waves[1].proven_secs.unwrap() <= rollout.ends_secs);
    assert!(
        result
            .notes
            .iter()
            .any(|note| note.contains("waits for 2 to agree"))
    );
    assert_eq!(result.deployments, 12);
}

#[test]
fn the_worst_case_of_a_strict_canary_is_small() {
    let result = result(&preview(12, ""));
    assert!(!result.worst_cases.is_empty());
    for worst in &result.worst_cases {
        assert!((1..12).contains(&worst.broken_max), "{worst:?}");
        assert_ne!(worst.phase(), v1::RolloutPhase::Completed, "{worst:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let faults = "offline=10%,auth=5%,slow=3s,loss=1%";
    assert_eq!(result(&preview(30, faults)), result(&preview(30, faults)));
}

/// Goes away after so many looks.
struct Leaver {
    looks: std::cell::Cell<u32>,
    heard: u32,
}

impl Audience for Leaver {
    fn waits(&self) -> bool {
        self.looks.set(self.looks.get().saturating_sub(1));
        self.looks.get() > 0
    }

    fn hear(&mut self, _: v1::SimulationProgress) {
        self.heard += 1;
    }
}

#[test]
fn it_ends_at_once_when_nobody_wants_the_answer() {
    let check = |looks, expected| {
        let looks = std::cell::Cell::new(looks);
        let mut leaver = Leaver { looks, heard: 0 };
        assert_eq!(preview(60, "").run(&mut leaver).unwrap(), None);
        assert_eq!(leaver.heard, expected);
    };
    check(1, 0);
    check(10, 0);
    check(300, 1);
}

fn the_rollout(result: &v1::SimulationResult) -> &v1::SimulatedRollout {
    let [rollout] = result.rollouts.as_slice() else {
        panic!("{:?}", result.rollouts)
    };
    rollout
}

fn count_notes(result: &v1::SimulationResult, words: &str) -> usize {
    let notes = result.notes.iter();
    notes.filter(|note| note.contains(words)).count()
}

#[test]
fn a_rollout_that_begins_later_is_agreed_with_too() {
    // A removal waits until the first rollout has ended; then it is a rollout of its own.
    let mut strategy = agreed();
    strategy.waves[0].approval = strategy.waves[1].approval;
    let preview = preview_with(6, "", &strategy);
    let mut tried = Tried {
        simulation: Simulation::new(
            preview.scratch.fork().unwrap(),
            preview.start,
            preview.seed,
            &preview.conditions,
        )
        .unwrap(),
        start: preview.start,
        stopped: BTreeMap::new(),
        begun: BTreeMap::new(),
        notes: BTreeSet::new(),
    };
    assert!(tried.go_on("first", &mut Patient).unwrap());
    tried.simulation.new_revision(&assistant()).unwrap();
    assert!(tried.go_on("second", &mut Patient).unwrap());
    let phases: Vec<Phase> = tried
        .rollouts()
        .unwrap()
        .iter()
        .map(|rollout| rollout.run.phase)
        .collect();
    assert_eq!(phases, [Phase::Completed, Phase::Completed]);
    let notes = tried.notes.iter().filter(|note| note.contains("to agree"));
    assert_eq!(notes.count(), 2, "one for each wave: {:?}", tried.notes);
}

#[test]
fn the_worst_cases_name_a_class_that_no_budget_names() {
    let check = |budgets: Vec<Budget>, class, words: &str, is_bounded| {
        let mut strategy = quick();
        strategy.budgets = budgets;
        let result = result(&preview_with(12, "", &strategy));
        let class = v1::FailureClass::from(class);
        let of_class = |worst: &&v1::WorstCase| worst.failure_class() == class;
        let worst = result.worst_cases.iter().find(of_class);
        let worst = worst.unwrap_or_else(|| panic!("{:?}", result.worst_cases));
        assert!(worst.sentence.contains(words), "{}", worst.sentence);
        assert_eq!(worst.broken_max < 12, is_bounded, "{worst:?}");
    };
    let usual = quick().budgets;
    let named: Vec<Budget> = usual
        .iter()
        .filter(|b| b.class.is_some())
        .copied()
        .collect();
    let unnamed = FailureClass::ALL
        .into_iter()
        .find(|class| named.iter().all(|b| b.class != Some(*class)))
        .unwrap();
    check(usual, unnamed, "only the budget `any` counts", true);
    check(named, unnamed, "that no budget counts", false);
    check(
        Vec::new(),
        FailureClass::Auth,
        "all 12 would be broken",
        false,
    );
    check(Vec::new(), FailureClass::Auth, "has no budgets", false);
}

#[test]
fn gates_pass_and_a_rollout_that_waits_only_for_their_polls_ends() {
    let mut strategy = quick();
    strategy.gates = vec![Gate {
        name: "errors".to_owned(),
        check: GateCheck::Http {
            url: "http://127.0.0.1/errors".parse().unwrap(),
        },
        interval: Duration::from_secs(10),
        action: Action::Halt,
        fail_after: 1,
        inconclusive_after: 1,
    }];
    let passed = result(&preview_with(6, "", &strategy));
    assert_eq!(the_rollout(&passed).phase(), v1::RolloutPhase::Completed);
    assert_eq!(count_notes(&passed, "gate errors of strategy default"), 1);
    // With everybody away nothing goes on but the gate.
    strategy.waves[0].mandatory = true;
    let held = result(&preview_with(6, "offline=100%", &strategy));
    let rollout = the_rollout(&held);
    assert_eq!(rollout.phase(), v1::RolloutPhase::Halted, "{rollout:?}");
    assert!(rollout.reason.contains("deadline of 2h"), "{rollout:?}");
    assert!((7_200..7_260).contains(&rollout.ends_secs), "{rollout:?}");
    assert_eq!(rollout.waves[0].offline, 1, "{rollout:?}");
}

#[test]
fn a_window_that_is_months_away_is_waited_for_and_one_that_never_opens_ends_it() {
    let check = |cron: &str, phase, words: &str| {
        let mut strategy = quick();
        strategy.windows = vec![Window {
            cron: cron.to_owned(),
            duration: Duration::from_secs(4 * 3_600),
            zone: Zone::Named("UTC".to_owned()),
        }];
        let result = result(&preview_with(6, "", &strategy));
        let rollout = the_rollout(&result);
        assert_eq!(rollout.phase(), phase, "{rollout:?}");
        assert!(rollout.reason.contains(words), "{}", rollout.reason);
        rollout.ends_secs / 86_400
    };
    let completed = v1::RolloutPhase::Completed;
    assert!((140..160).contains(&check("0 3 15 4 *", completed, "every wave is done")));
    // The 29th of February is more than a year away.
    let held = v1::RolloutPhase::Progressing;
    assert_eq!(check("0 3 29 2 *", held, "window"), 0);
}

#[test]
fn spans_that_touch_do_not_overlap() {
    let at = |secs| Timestamp::new(secs, 0).unwrap();
    let check = |spans: &[(i64, Option<i64>)], expected| {
        let spans = spans.iter().map(|(from, until)| (at(*from), until.map(at)));
        assert_eq!(most(spans), expected);
    };
    check(&[], 0);
    check(&[(1, Some(2)), (2, Some(3))], 1);
    check(&[(1, Some(3)), (2, Some(3)), (4, None)], 2);
    check(&[(1, None), (2, None), (9, None)], 3);
}
