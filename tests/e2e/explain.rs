//! Nothing waits without a reason, and every page gives the same one; and what a change would do is tried beforehand.

use serde_json::Value;

use crate::ask::THREE;
use crate::kit::Fleet;

#[test]
fn every_page_says_the_same_sentence() {
    let fleet = Fleet::start("explain", &THREE).unwrap();
    fleet.begin_apply().unwrap();
    let id = fleet.rollout_id().unwrap();
    fleet.say("pause", &id).unwrap();
    let explained = fleet.wait_for_explanation("the test wants it").unwrap();
    let all = explained["deployments"].as_array().unwrap();
    let said = |name: &str| {
        let mut of = all.iter().filter(|waiting| waiting["deployment"] == name);
        of.next().unwrap()["sentence"].as_str().unwrap().to_owned()
    };
    for name in ["shop", "web"] {
        let sentence = said(name);
        let binding = fleet.binding(name, "default").unwrap();
        assert_eq!(binding["waiting"], sentence.as_str());
        let status = fleet.stack.json(&["status"]).unwrap();
        assert!(
            status["waiting"].to_string().contains(&sentence),
            "{status}"
        );
        let page = fleet
            .keyfleet(&["rollout", "explain", &id, "--deployment", name])
            .unwrap();
        // A terminal breaks lines; the words are the same.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&page.out).contains(&words(&sentence)), "{page:?}");
    }
    let waves = explained["rollout"]["waves"].as_array().unwrap();
    for wave in waves.iter().filter(|wave| wave["done"] != true) {
        assert!(
            wave["waiting"].as_str().is_some_and(|w| !w.is_empty()),
            "{wave}"
        );
    }
    fleet.say("resume", &id).unwrap();
    fleet.wait_until_proven("1").unwrap();
    let ended = fleet.keyfleet(&["rollout", "explain", &id]).unwrap();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("COMPLETED"), "{ended:?}");
}

#[test]
fn a_simulation_shows_the_run_and_touches_nothing() {
    let fleet = Fleet::start("simulate", &THREE).unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let real = fleet
        .stack
        .json(&["rollout", "simulate", "-f", &dir])
        .unwrap();
    let run = &real["rollouts"][0];
    assert_eq!(run["phase"], "ROLLOUT_PHASE_COMPLETED", "{real}");
    let proven = |wave: &Value| wave["proven"].as_u64().unwrap_or_default();
    let waves = run["waves"].as_array().unwrap();
    assert_eq!(
        waves.iter().map(proven).collect::<Vec<_>>(),
        [1, 2],
        "{real}"
    );
    assert!(!real["worstCases"].as_array().unwrap().is_empty(), "{real}");

    let simulate = ["rollout", "simulate", "-f", &dir, "--fleet", "40"];
    let page = fleet.keyfleet(&simulate).unwrap();
    assert_eq!(page.code, 0, "{page:?}");
    assert!(
        page.out.contains("canary") && page.out.contains("fleet"),
        "{page:?}"
    );
    let bad = [&simulate[..], &["--faults", "auth=100%"]].concat();
    let held = fleet.keyfleet(&bad).unwrap();
    assert_ne!(held.code, 0, "{held:?}");
    assert!(held.out.contains("AUTH"), "{held:?}");
    let again = fleet.keyfleet(&bad).unwrap();
    assert_eq!(again.out, held.out, "the same seed gives the same answer");

    assert!(fleet.bindings().unwrap().is_empty(), "nothing was stored");
    assert_eq!(fleet.writes().unwrap(), 0);
    let list = fleet.stack.json(&["rollout", "list"]).unwrap();
    assert!(
        list["rollouts"].as_array().is_none_or(Vec::is_empty),
        "{list}"
    );
}

#[test]
fn a_plan_says_whom_it_takes_over() {
    let fleet = Fleet::start_applied("conflict", &THREE).unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 1h")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let older = fleet.rollout_id().unwrap();
    fleet.wait_for_explanation("soaking").unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.2", "gpt-5.4-nano")
        .unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = fleet.stack.json(&["plan", "-f", &dir]).unwrap();
    let conflict = &plan["conflicts"][0];
    assert_eq!(conflict["rolloutId"], older.as_str(), "{plan}");
    let sentence = conflict["sentence"].as_str().unwrap();
    assert!(sentence.contains("1 of 3"), "{sentence}");
    assert_eq!(
        fleet.phase_of(&older).unwrap(),
        "ROLLOUT_PHASE_PROGRESSING",
        "a plan changes nothing"
    );
    fleet.begin_apply().unwrap();
    assert_eq!(fleet.phase_of(&older).unwrap(), "ROLLOUT_PHASE_SUPERSEDED");
}
