//! All three providers over five versions of Kibana: every connector is proven, every key rotates, and a field that a
//! Kibana is too old for is an error that names it, or is left out there.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::{binaries, http};

use crate::kit::{Fleet, KEY, Member};

/// The oldest knows no provider `Other`, so it does not get a connector of it.
const MEMBERS: [Member; 5] = [
    ("archive", "8.11.4", &["default"], &[]),
    (
        "lab",
        "8.18.0",
        &["default"],
        &[("tier", "canary"), ("llm", "own")],
    ),
    ("shop", "9.1.0", &["default"], &[("llm", "own")]),
    ("soc", "9.2.0", &["default"], &[("llm", "own")]),
    ("web", "9.6.0", &["default"], &[("llm", "own")]),
];

/// Path in Vault, first value, second value.
const KEYS: [(&str, &str, &str); 3] = [
    (
        "keyfleet/openai",
        KEY,
        "sk-proj-e2e-1111111111111111111111111111111111zR7k",
    ),
    (
        "keyfleet/azure",
        "azure-e2e-00000000000000000000000a0a0",
        "azure-e2e-11111111111111111111111a1a1",
    ),
    (
        "keyfleet/own-llm",
        "own-e2e-0000000000000000000000000b0b0",
        "own-e2e-1111111111111111111111111b1b1",
    ),
];

/// The example of the handbook, with the simulator's Azure and its compatible server in the place of real ones.
fn add_providers(fleet: &Fleet) -> Result<()> {
    let example = binaries::workspace().join("deploy/kibana/providers.yaml");
    let text = std::fs::read_to_string(example)?
        .replace("https://contoso.openai.azure.com", &fleet.openai.url)
        .replace(
            "https://llm.example.com",
            &format!("{}/compatible", fleet.openai.url),
        )
        .replace("[contoso.openai.azure.com]", "[127.0.0.1]")
        .replace("[llm.example.com]", "[127.0.0.1]");
    ensure!(!text.contains(".com"), "{text}");
    Ok(std::fs::write(
        fleet.manifests.dir().join("providers.yaml"),
        text,
    )?)
}

fn start(name: &str) -> Result<Fleet> {
    let fleet = Fleet::start(name, &MEMBERS)?;
    // The first is there already.
    for (path, first, _) in KEYS.into_iter().skip(1) {
        fleet.accept_key(first)?;
        fleet.stack.bao.kv_put(path, "api_key", first)?;
    }
    add_providers(&fleet)?;
    Ok(fleet)
}

/// Which of these fields the connectors of one display name have, by deployment.
fn fields(fleet: &Fleet, name: &str, fields: &[&str]) -> Result<BTreeMap<&'static str, String>> {
    let mut found = BTreeMap::new();
    for (deployment, connector) in fleet.all_connectors()? {
        let config = connector["config"].as_object().context("no config")?;
        let has = fields.iter().filter(|field| config.contains_key(**field));
        if connector["name"] == name {
            found.insert(deployment, has.copied().collect::<Vec<_>>().join(" "));
        }
    }
    Ok(found)
}

/// The end of the key of each connector, by its provider; one where all agree.
fn tails(fleet: &Fleet) -> Result<BTreeMap<String, Vec<String>>> {
    let mut tails: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, connector) in fleet.all_connectors()? {
        let provider = connector["config"]["apiProvider"].to_string();
        let tail = connector["secret_tail"].to_string();
        let known = tails.entry(provider.replace('"', "")).or_default();
        if !known.contains(&tail) {
            known.push(tail);
        }
    }
    Ok(tails)
}

/// The runs that the simulated provider answered with success: path, and body.
fn completions(fleet: &Fleet) -> Result<Vec<(String, Value)>> {
    let log: Value = serde_json::from_str(&http::get(&fleet.openai.url, "/_sim/requests")?)?;
    let mut all = log.as_array().context("no log")?.clone();
    all.retain(|row| row["class"] == "chat" && row["status"] == 200);
    let read = |row: &Value| Some((row["path"].as_str()?.to_owned(), row["body"].clone()));
    all.iter()
        .map(|row| read(row).context("a row without path"))
        .collect()
}

#[test]
fn all_three_are_proven_and_rotated_on_five_versions() {
    let fleet = start("providers").unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(fleet.bindings().unwrap().len(), 5 + 5 + 4);
    assert!(fleet.is_proven("1").unwrap());
    each_connector_has_what_its_kibana_knows(&fleet);
    each_provider_was_called_in_its_own_way(&fleet);

    for (path, _, second) in KEYS {
        fleet.accept_key(second).unwrap();
        let version = fleet.stack.bao.kv_put(path, "api_key", second).unwrap();
        assert_eq!(version, 2, "{path}");
    }
    let rotated = || {
        let tails = tails(&fleet).ok()?;
        let ends = [
            ("OpenAI", "zR7k"),
            ("Azure OpenAI", "a1a1"),
            ("Other", "b1b1"),
        ];
        let has = |(provider, tail): (&str, &str)| {
            tails.get(provider) == Some(&vec![format!("{tail:?}")])
        };
        ends.into_iter().all(has).then_some(())
    };
    fleet
        .wait_until("every connector has the second key", rotated)
        .unwrap();
    let proven = || {
        let all = fleet.bindings().ok()?;
        let is_there =
            |b: &Value| b["state"] == "BINDING_STATE_PROVEN" && b["lastProven"] == b["goal"];
        all.iter().all(is_there).then_some(())
    };
    fleet
        .wait_until("every binding is proven with it", proven)
        .unwrap();
    each_connector_has_what_its_kibana_knows(&fleet);
    // Nothing is missing anywhere, so nothing is written again.
    let writes = fleet.writes().unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(fleet.writes().unwrap(), writes);
}

fn each_connector_has_what_its_kibana_knows(fleet: &Fleet) {
    let azure = fields(fleet, "Azure gpt-4.1", &["temperature"]).unwrap();
    let expected = [
        ("archive", ""),
        ("lab", ""),
        ("shop", ""),
        ("soc", ""),
        ("web", "temperature"),
    ];
    assert_eq!(
        azure,
        expected.map(|(name, has)| (name, has.to_owned())).into()
    );
    let names = [
        "contextWindowLength",
        "enableNativeFunctionCalling",
        "verificationMode",
    ];
    let other = fields(fleet, "Our own model", &names).unwrap();
    let all = names.join(" ");
    let expected = [
        ("lab", ""),
        ("shop", "verificationMode"),
        ("soc", all.as_str()),
        ("web", all.as_str()),
    ];
    assert_eq!(
        other,
        expected.map(|(name, has)| (name, has.to_owned())).into()
    );
}

fn each_provider_was_called_in_its_own_way(fleet: &Fleet) {
    let runs = completions(fleet).unwrap();
    let of = |start: &str| -> Vec<&Value> {
        let runs = runs.iter().filter(|(path, _)| path.starts_with(start));
        runs.map(|(_, body)| body).collect()
    };
    let azure = of("/openai/deployments/gpt-4.1/");
    assert!(azure.len() >= 5 && azure.iter().all(|body| body.get("model").is_none()));
    let own = of("/compatible/");
    let is_old = |body: &&Value| {
        body["model"] == "gpt-4.1"
            && body["max_tokens"] == 16
            && body.get("max_completion_tokens").is_none()
    };
    assert!(own.len() >= 4 && own.iter().all(is_old), "{own:?}");
    assert!(
        of("/v1/")
            .iter()
            .all(|body| body["model"] == "gpt-5.4-mini")
    );
}

#[test]
fn a_field_that_a_kibana_is_too_old_for_is_an_error_that_names_it() {
    let fleet = start("too-new").unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = || fleet.keyfleet(&["plan", "-f", &dir]).unwrap();
    let refused = |words: &[&str]| {
        let done = plan();
        assert_ne!(done.code, 0, "{done:?}");
        for word in words {
            assert!(done.err.contains(word), "{word:?} is not in {done:?}");
        }
    };
    let edit = |from: &str, to: &str| fleet.manifests.edit("providers.yaml", from, to).unwrap();
    edit("  ifSupported: [temperature]\n", "");
    refused(&[
        "providers.yaml:34",
        "spec.config.temperature",
        "deployment archive runs Kibana 8.11.4",
        "needs Kibana 9.3",
        "name temperature in ifSupported",
    ]);
    // Nothing was stored.
    assert_eq!(fleet.bindings().unwrap().len(), 0);
    assert_eq!(fleet.writes().unwrap(), 0);
    edit("    temperature: 0.2\n", "");
    plan().must_succeed().unwrap();
    // The provider itself cannot be left out.
    edit("matchLabels: {llm: own}", "matchLabels: {}");
    refused(&["spec.config.apiProvider", "deployment archive", "8.17"]);
    edit("matchLabels: {}", "matchLabels: {llm: own}");
    edit(
        "ifSupported: [contextWindowLength,",
        "ifSupported: [apiUrl,",
    );
    refused(&["spec.ifSupported[0]", "without which no connector works"]);
    // A Key of another provider names its hosts.
    edit(
        "ifSupported: [apiUrl,",
        "ifSupported: [contextWindowLength,",
    );
    edit(
        "  allowedHosts: [127.0.0.1]\n---\napiVersion: keyfleet/v1\nkind: Connector",
        "---\napiVersion: keyfleet/v1\nkind: Connector",
    );
    refused(&["spec.allowedHosts", "list yours"]);
}
