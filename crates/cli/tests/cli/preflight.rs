//! What an agent sees of its Kibana: its preflight, the connectors of others, and what becomes of them.

use crate::harness::{Home, State, check, two_deployments};
use crate::terminal::at_terminal;
use keyfleet_proto::v1;
use v1::CheckOutcome::{Failed, Ok, Skipped, Warning};

const ROLE: &str = r#"PUT /_security/role/keyfleet-agent
{
  "applications": [
    {
      "application": "kibana-.kibana",
      "privileges": ["feature_actions.all"],
      "resources": ["space:default", "space:soc"]
    }
  ]
}"#;

fn one(name: &str, outcome: v1::CheckOutcome, sentence: &str) -> v1::Check {
    v1::Check {
        name: name.into(),
        outcome: outcome.into(),
        sentence: sentence.into(),
        detail: String::new(),
    }
}

/// A Kibana where nearly all is well, and one where the agent may not write.
fn checked() -> State {
    let mut state = two_deployments();
    let [good, bad] = &mut state.deployments[..] else {
        panic!("two deployments");
    };
    good.facts.as_mut().unwrap().checks = vec![
        one("reachability", Ok, "https://kibana-a:5601 answers"),
        one(
            "clock",
            Warning,
            "this host's clock is 75 s ahead of Kibana's: set it by NTP, or tokens of other systems may seem expired",
        ),
        one("elasticsearch", Skipped, "no connector here needs it"),
    ];
    let mut privileges = one(
        "privileges",
        Failed,
        "the credentials may not write connectors in space soc: give them the role below",
    );
    privileges.detail = ROLE.into();
    bad.facts.as_mut().unwrap().checks = vec![
        one("reachability", Ok, "https://kibana-b:5601 answers"),
        privileges,
    ];
    state
}

fn others(state: &mut State) {
    let seen = |space: &str, id: &str, name: &str| v1::SeenConnector {
        space: space.into(),
        id: id.into(),
        name: name.into(),
        r#type: ".gen-ai".into(),
        ..v1::SeenConnector::default()
    };
    let facts = state.deployments[0].facts.as_mut().unwrap();
    facts.connectors_complete = true;
    facts.connectors = vec![
        v1::SeenConnector {
            read_only: true,
            ..seen("default", "preconfigured-openai", "OpenAI of kibana.yml")
        },
        v1::SeenConnector {
            references: 3,
            ..seen(
                "default",
                "5e1f7c52-3f0e-4a6e-9b0e-3f2504e04f89",
                "OpenAI prod",
            )
        },
        v1::SeenConnector {
            missing_secrets: true,
            ..seen(
                "soc",
                "old",
                "OpenAI prod of the analysts, made by hand and never used since",
            )
        },
    ];
}

/// Every object says everything that it can say.
fn news() -> State {
    let mut state = checked();
    others(&mut state);
    state.has_news = true;
    let [adopted, other] = &mut state.bindings[..] else {
        panic!("two bindings");
    };
    adopted.adopted = true;
    adopted.references = 3;
    adopted.rung = v1::ProbeRung::KeyAccepted.into();
    other.rung = v1::ProbeRung::Reached.into();
    state.adoptions = vec![
        v1::Adoption {
            id: "5e1f7c52-3f0e-4a6e-9b0e-3f2504e04f89".into(),
            differences: vec![
                "config.defaultModel is gpt-4o, should be gpt-5.2".into(),
                "displayName is OpenAI prod, should be Assistant (gpt-5.2)".into(),
            ],
            problem: String::new(),
        },
        v1::Adoption {
            problem:
                "two connectors have the name \"OpenAI prod\" (ids a1 and b2): name one by its id"
                    .into(),
            ..v1::Adoption::default()
        },
    ];
    state
}

#[test]
fn a_preflight_says_what_was_found_and_ends_with_it() {
    let home = Home::new(checked());
    let of = |args: &[&str]| home.run(&[&["deployment", "preflight"][..], args].concat());
    let mut text = of(&["kibana-a"]);
    text += &of(&["kibana-a", "--fresh"]);
    text += &of(&["kibana-b", "--fresh"]);
    text += &of(&["kibana-b", "-o", "yaml"]);
    text += &of(&["kibana-c"]);
    home.fake.state().hangs = true;
    text += &of(&["kibana-a", "--fresh"]);
    check("preflight", &text);
    let nobody = Home::new(two_deployments());
    let text = nobody.run(&["deployment", "preflight", "kibana-a"]);
    assert!(
        text.starts_with("exit 1\n") && text.contains("Nothing was checked yet"),
        "{text}"
    );
}

#[test]
fn connectors_of_others_are_listed_with_the_way_to_adopt_one() {
    let mut state = checked();
    others(&mut state);
    let home = Home::new(state);
    let mut text = home.run(&["deployment", "connectors", "kibana-a"]);
    text += &home.run(&["deployment", "connectors", "kibana-b"]);
    text += &home.run(&["deployment", "connectors", "kibana-a", "-o", "json"]);
    check("connectors_of_others", &text);
}

#[test]
fn objects_show_parts_probes_patterns_and_what_they_replace() {
    let home = Home::new(news());
    let mut text = String::new();
    for args in [
        &["describe", "connector", "assistant"][..],
        &["describe", "deployment", "kibana-a"],
        &["describe", "key", "bedrock-prod"],
        &["get", "keys"],
        &["get", "placements"],
        &["get", "bindings"],
    ] {
        text += &format!("$ keyfleet {}\n{}\n", args.join(" "), home.run(args));
    }
    check("news", &text);
}

#[test]
fn a_plan_says_what_is_adopted_and_what_is_in_use() {
    let mut state = news();
    state.references = 3;
    let placement = ("Placement".into(), "everywhere".into());
    state.objects.insert(placement, "x".into());
    let home = Home::new(state);
    home.write("new.yaml", "Connector assistant gpt-5.2\n");
    let mut text = home.run(&["plan", "-f", "new.yaml"]);
    text += &home.run(&["delete", "placement", "everywhere", "--reason", "old"]);
    check("plan_adoption", &text);
}

#[test]
fn all_of_it_fits_80_columns() {
    let mut state = news();
    state.references = 3;
    let placement = ("Placement".into(), "everywhere".into());
    state.objects.insert(placement, "x".into());
    let home = Home::new(state);
    home.write("new.yaml", "Connector assistant gpt-5.2\n");
    let mut text = String::new();
    for args in [
        &["deployment", "preflight", "kibana-a", "--fresh"][..],
        &["deployment", "preflight", "kibana-b"],
        &["deployment", "connectors", "kibana-a"],
        &["describe", "connector", "assistant"],
        &["describe", "deployment", "kibana-a"],
        &["describe", "key", "bedrock-prod"],
        &["get", "placements"],
        &["get", "bindings"],
        &["plan", "-f", "new.yaml"],
    ] {
        let screen = at_terminal(&home, args, "");
        text += &format!("$ keyfleet {}\n{screen}\n", args.join(" "));
    }
    check("terminal_preflight", &text);
}
