//! The checker bites: each thing that must never be is made to be, and found.

use keyfleet_core::id::{Generation, KeyVersion, Revision};

use super::*;
use crate::simulate::small::{assistant, openai, quick};

/// A calm fleet of two, in which nothing is broken.
fn calm() -> Simulation {
    let mut simulation = Simulation::settled(&quick(), &["canary", "b"], 1);
    simulation.new_revision(&assistant()).unwrap();
    simulation.run_out();
    assert_eq!(simulation.violations().unwrap(), Vec::<String>::new());
    simulation
}

/// A run that has just begun.
fn in_the_middle() -> Simulation {
    let mut simulation = calm();
    simulation.new_revision(&assistant()).unwrap();
    while !simulation
        .log()
        .contains("canary: default/assistant r3 v1 is PROVEN")
    {
        simulation.advance().unwrap();
    }
    simulation
}

/// What the checker says of a database that says something else.
fn with_rows(simulation: &mut Simulation, change: impl FnOnce(&mut Rows)) -> Vec<String> {
    let mut rows = simulation.look(Rows::load).unwrap();
    change(&mut rows);
    let mut found = Vec::new();
    rows.check(&mut found);
    simulation.checker.rows = Some((simulation.scratch.changes(), rows));
    found.extend(simulation.violations().unwrap());
    found
}

fn check(found: &[String], expected: &str) {
    assert!(
        found.iter().any(|line| line.contains(expected)),
        "{expected}: {found:#?}"
    );
}

fn document(counter: u64, digest: &str) -> v1::Desired {
    let generation = Generation { epoch: 1, counter };
    v1::Desired {
        generation: Some(generation.into()),
        digest: bytes::Bytes::copy_from_slice(digest.as_bytes()),
        ..v1::Desired::default()
    }
}

#[test]
fn what_is_sent_under_andon_is_found() {
    let id = DeploymentId::new(uuid::Uuid::from_u128(1));
    let mut checker = Checker::default();
    checker.document(id, &document(1, "a"), true);
    checker.key(id, &(openai(), KeyVersion(1)), true);
    check(&checker.found[..1], "under andon");
    check(&checker.found[1..], "under andon");
}

#[test]
fn a_refused_document_that_is_sent_again_is_found() {
    let id = DeploymentId::new(uuid::Uuid::from_u128(1));
    let mut checker = Checker::default();
    let document = document(1, "a");
    let answer = v1::DesiredAnswer {
        generation: document.generation,
        digest: document.digest.clone(),
        rejected: "no".to_owned(),
    };
    checker.refused(id, &answer);
    checker.document(id, &document, false);
    check(&checker.found, "is sent to it again");
}

#[test]
fn a_generation_with_two_contents_is_found() {
    let id = DeploymentId::new(uuid::Uuid::from_u128(1));
    let mut checker = Checker::default();
    checker.document(id, &document(1, "a"), false);
    checker.document(id, &document(1, "b"), false);
    check(&checker.found, "stands for two documents");
}

#[test]
fn a_generation_that_goes_back_is_found() {
    let mut simulation = calm();
    let found = with_rows(&mut simulation, |rows| {
        rows.generations
            .values_mut()
            .for_each(|it| *it = Generation::default());
    });
    check(&found, "is behind what was there");
}

#[test]
fn a_key_that_nobody_wrote_down_is_found() {
    let found = with_rows(&mut calm(), |rows| rows.open.clear());
    check(&found, "in memory, and no open holding says so");
    check(&found, "default/assistant, and no open holding says so");
    check(&found, "is told");
}

#[test]
fn a_proof_that_kibana_does_not_bear_out_is_found() {
    let mut simulation = calm();
    let agent = simulation.agents.values_mut().next().unwrap();
    agent.kibana.holds.clear();
    check(&simulation.violations().unwrap(), "and Kibana holds None");
}

#[test]
fn a_proof_without_evidence_is_found() {
    let found = with_rows(&mut calm(), |rows| rows.evidence.clear());
    check(&found, "counts as proven without evidence");
}

#[test]
fn what_is_told_and_not_there_is_found() {
    let found = with_rows(&mut calm(), |rows| {
        rows.keys.remove(&(assistant(), Revision(2)));
    });
    check(&found, "is told a revision that is not there");
}

#[test]
fn a_way_back_that_is_lost_is_found() {
    let found = with_rows(&mut in_the_middle(), |rows| rows.assignable.clear());
    check(&found, "may not be assigned any more");
    check(&found, "cannot go back any more");
}

#[test]
fn a_wave_of_a_run_that_has_not_begun_is_found() {
    let found = with_rows(&mut in_the_middle(), |rows| {
        rows.active[0].0.run.phase = Phase::Pending;
    });
    check(&found, "has a wave and has not begun");
}

#[test]
fn a_circle_is_found() {
    let mut simulation = calm();
    simulation.checker.n_at_once = (Some(simulation.now), AT_ONCE_MAX);
    check(&simulation.violations().unwrap(), "never ends");
}

#[test]
fn a_plan_that_breaks_a_rule_is_found() {
    let mut simulation = calm();
    PLANS.with_borrow_mut(|plans| plans.push("a broken plan".to_owned()));
    check(&simulation.violations().unwrap(), "a broken plan");
}
