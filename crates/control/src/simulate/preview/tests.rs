use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::Approval;
use keyfleet_store::KeyVersionRow;

use super::*;
use crate::simulate::faults::spread;
use crate::simulate::small::{assistant, monday, objects, openai, quick};

/// So many made-up deployments, a third of them with the canary's label, which takes one; the first key version waits to be rolled out.
fn preview(n: u32, faults: &str) -> Preview {
    let start = monday();
    let mut strategy = quick();
    strategy.waves[1].approval = Some(Approval {
        required: 2,
        not_author: true,
    });
    let scratch = Scratch::empty().unwrap();
    let tiers = ["canary", "1", "2"].map(str::to_owned).to_vec();
    let labels = [("tier".to_owned(), tiers)].into();
    let fill = |tx: &Tx<'_>| -> Result<(), Error> {
        objects(tx, &strategy, &[assistant()], start)?;
        let version = KeyVersionRow {
            version: KeyVersion(1),
            state: KeyState::Current,
            fingerprint: "f1".to_owned(),
            shown: "sk-…".to_owned(),
            first_seen: start,
            readable: true,
        };
        tx.insert_key_version(&openai(), &version)?;
        make_up(tx, n, &labels, 1, start)?;
        spread(tx, "a try", start)
    };
    scratch.run(fill).unwrap();
    Preview {
        scratch,
        away: Vec::new(),
        start,
        seed: 7,
        conditions: faults.parse().unwrap(),
    }
}

fn result(preview: &Preview) -> v1::SimulationResult {
    preview.run(&mut |_| true).unwrap().unwrap()
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

#[test]
fn it_ends_when_nobody_wants_the_answer() {
    let mut n_reports = 0;
    let mut report = |_| {
        n_reports += 1;
        false
    };
    assert_eq!(preview(60, "").run(&mut report).unwrap(), None);
    assert_eq!(n_reports, 1);
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

#[test]
fn tmp_speed() {
    let Ok(n) = std::env::var("PREVIEW_N") else {
        return;
    };
    let faults = std::env::var("PREVIEW_FAULTS").unwrap_or_default();
    let begun = std::time::Instant::now();
    let preview = preview(n.parse().unwrap(), &faults);
    eprintln!("made up after {:?}", begun.elapsed());
    let mut what = String::new();
    let mut report = |p: v1::SimulationProgress| {
        if p.now != what {
            what = p.now.clone();
            eprintln!("{what} begins after {:?}", begun.elapsed());
        }
        begun.elapsed().as_secs() < 400
    };
    let result = preview.run(&mut report).unwrap();
    eprintln!("{n} done after {:?}", begun.elapsed());
    let result = result.unwrap();
    for r in &result.rollouts {
        eprintln!("{:?} {:?}", r.phase(), r.ends_secs);
        for w in &r.waves {
            eprintln!("{w:?}");
        }
    }
    for w in &result.worst_cases {
        eprintln!("{w:?}");
    }
}
