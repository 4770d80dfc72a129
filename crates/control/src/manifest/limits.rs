//! How much one call may bring, and how large one object may be: far beyond what a fleet needs, and few enough that no
//! file can flood control, an agent or a Kibana.

use std::collections::BTreeSet;
use std::fmt::Display;

use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::fleet::Selector;
use keyfleet_core::key::KeyField;
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::{Gate, GateCheck, Strategy};
use keyfleet_kibana::is_plain_text;
use keyfleet_proto::v1;

use super::{InvalidManifest, Manifest, Object, Place, read};

const FILES_MAX: usize = 500;
const OBJECTS_MAX: usize = 2_000;
const CONNECTORS_MAX: usize = 100;
const SPACES_MAX: usize = 100;
const HOSTS_MAX: usize = 20;
const WAVES_MAX: usize = 50;
const BUDGETS_MAX: usize = 50;
const WINDOWS_MAX: usize = 50;
const BLACKOUTS_MAX: usize = 100;
const GATES_MAX: usize = 20;
const REQUIREMENTS_MAX: usize = 20;
const VALUES_MAX: usize = 100;
/// Longest name that people see, and longest name of a wave or a field in Vault, in characters.
const TEXT_CHARS_MAX: usize = 120;
/// Longest `config`, and longest body of a live call, in bytes of canonical JSON.
const CONFIG_BYTES_MAX: usize = 32 << 10;
/// Longest URL of a gate, and longest query, in characters.
const QUESTION_CHARS_MAX: usize = 2_000;

/// A field, and what is wrong with it.
type Problem = (String, String);

/// Reads all files of one call.
///
/// # Errors
/// The first [`InvalidManifest`].
pub(crate) fn read_all(files: &[v1::ManifestFile]) -> Result<Vec<Manifest>, InvalidManifest> {
    let mut manifests: Vec<Manifest> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if index == FILES_MAX {
            return Err(too_many(file, "files", FILES_MAX));
        }
        for manifest in read(&file.name, &file.text)? {
            check(&manifest)?;
            stands_once(&manifests, &manifest)?;
            manifests.push(manifest);
            if manifests.len() > OBJECTS_MAX {
                return Err(too_many(file, "objects", OBJECTS_MAX));
            }
        }
    }
    Ok(manifests)
}

fn too_many(file: &v1::ManifestFile, what: &str, max: usize) -> InvalidManifest {
    InvalidManifest {
        place: Place {
            file: file.name.clone(),
            line: 1,
        },
        field: String::new(),
        problem: format!("there are more than {max} {what} up to here: apply them in parts"),
    }
}

fn stands_once(known: &[Manifest], manifest: &Manifest) -> Result<(), InvalidManifest> {
    let (kind, name) = (manifest.object.kind(), manifest.object.name());
    let same = known
        .iter()
        .find(|m| m.object.kind() == kind && m.object.name() == name);
    let Some(first) = same else { return Ok(()) };
    let problem = format!(
        "{kind} {name} stands in {}:{} already: keep one",
        first.place.file, first.place.line
    );
    Err(manifest.invalid("metadata.name", problem))
}

fn check(manifest: &Manifest) -> Result<(), InvalidManifest> {
    let checked = match &manifest.object {
        Object::Key(key) => few("spec.allowedHosts", key.allowed_hosts.len(), HOSTS_MAX)
            .and_then(|()| check_field(&key.location.field))
            .and_then(|()| selector("spec.scope", &key.scope)),
        Object::Connector(_, spec) => check_connector(spec),
        Object::Placement(placement) => check_placement(placement),
        Object::Strategy(strategy) => check_strategy(strategy),
    };
    checked.map_err(|(field, problem)| manifest.invalid(&field, problem))
}

fn check_field(field: &KeyField) -> Result<(), Problem> {
    match field {
        KeyField::One(field) => short("spec.vault.field", field),
        KeyField::Parts(parts) => {
            let mut parts = parts.iter();
            parts.try_for_each(|(part, field)| short(&format!("spec.vault.fields.{part}"), field))
        }
    }
}

fn check_connector(spec: &ConnectorSpec) -> Result<(), Problem> {
    short("spec.displayName", &spec.display_name)?;
    small("spec.config", &spec.config)?;
    small(
        "spec.probe.body",
        spec.probe.body.as_deref().unwrap_or_default(),
    )?;
    short(
        "spec.probe.model",
        spec.probe.model.as_deref().unwrap_or_default(),
    )
}

fn check_placement(placement: &Placement) -> Result<(), Problem> {
    few(
        "spec.connectors",
        placement.connectors.len(),
        CONNECTORS_MAX,
    )?;
    few("spec.spaces", placement.spaces.len(), SPACES_MAX)?;
    few(
        "spec.exceptSpaces",
        placement.except_spaces.len(),
        SPACES_MAX,
    )?;
    once("spec.connectors", &placement.connectors)?;
    once("spec.spaces", &placement.spaces)?;
    once("spec.exceptSpaces", &placement.except_spaces)?;
    selector("spec.selector", &placement.selector)
}

fn check_strategy(strategy: &Strategy) -> Result<(), Problem> {
    few("spec.waves", strategy.waves.len(), WAVES_MAX)?;
    few("spec.budgets", strategy.budgets.len(), BUDGETS_MAX)?;
    for (index, wave) in strategy.waves.iter().enumerate() {
        short(&format!("spec.waves[{index}].name"), &wave.name)?;
        selector(&format!("spec.waves[{index}].select"), &wave.selector)?;
    }
    few("spec.windows", strategy.windows.len(), WINDOWS_MAX)?;
    for (index, window) in strategy.windows.iter().enumerate() {
        short(&format!("spec.windows[{index}].cron"), &window.cron)?;
    }
    few("spec.blackouts", strategy.blackouts.len(), BLACKOUTS_MAX)?;
    for (index, blackout) in strategy.blackouts.iter().enumerate() {
        short(&format!("spec.blackouts[{index}].reason"), &blackout.reason)?;
    }
    few("spec.gates", strategy.gates.len(), GATES_MAX)?;
    for (index, gate) in strategy.gates.iter().enumerate() {
        check_gate(&format!("spec.gates[{index}]"), gate)?;
    }
    Ok(())
}

fn check_gate(path: &str, gate: &Gate) -> Result<(), Problem> {
    short(&format!("{path}.name"), &gate.name)?;
    let (kind, url, query) = match &gate.check {
        GateCheck::Http { url } => ("http", url, ""),
        GateCheck::Prometheus { url, query, .. } => ("prometheus", url, query.as_str()),
    };
    plain(
        &format!("{path}.{kind}.url"),
        url.as_str(),
        QUESTION_CHARS_MAX,
    )?;
    // A query may be written over several lines.
    let query = query.replace('\n', " ");
    plain(&format!("{path}.{kind}.query"), &query, QUESTION_CHARS_MAX)
}

fn few(field: &str, n: usize, max: usize) -> Result<(), Problem> {
    if n <= max {
        return Ok(());
    }
    Err((
        field.to_owned(),
        format!("has {n} entries, and {max} are allowed: split it"),
    ))
}

fn once<T: Ord + Display>(field: &str, items: &[T]) -> Result<(), Problem> {
    let mut known = BTreeSet::new();
    match items.iter().position(|item| !known.insert(item)) {
        None => Ok(()),
        Some(index) => Err((
            format!("{field}[{index}]"),
            format!("{} stands in the list twice", items[index]),
        )),
    }
}

fn short(field: &str, text: &str) -> Result<(), Problem> {
    plain(field, text, TEXT_CHARS_MAX)
}

fn plain(field: &str, text: &str, chars_max: usize) -> Result<(), Problem> {
    let problem = if text.chars().count() > chars_max {
        format!("is longer than {chars_max} characters")
    } else if !is_plain_text(text) {
        "holds a character that nobody sees or that turns the text around; remove it".to_owned()
    } else {
        return Ok(());
    };
    Err((field.to_owned(), problem))
}

fn small(field: &str, json: &str) -> Result<(), Problem> {
    if json.len() <= CONFIG_BYTES_MAX {
        return Ok(());
    }
    let problem = format!("is larger than {CONFIG_BYTES_MAX} bytes");
    Err((field.to_owned(), problem))
}

fn selector(field: &str, selector: &Selector) -> Result<(), Problem> {
    few(field, selector.requirements.len(), REQUIREMENTS_MAX)?;
    for requirement in &selector.requirements {
        let values = requirement.operator.values();
        few(field, values.len(), VALUES_MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: String) -> v1::ManifestFile {
        let name = name.to_owned();
        v1::ManifestFile { name, text }
    }

    fn manifest(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: keyfleet/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    }

    /// `outcome` is a part of the error; empty where the manifest is good.
    fn check(kind: &str, spec: &str, outcome: &str) {
        let found = read_all(&[file("f.yaml", manifest(kind, "x", spec))]);
        let said = found.err().map(|err| err.to_string()).unwrap_or_default();
        let is_right = said.contains(outcome) && said.is_empty() == outcome.is_empty();
        assert!(is_right, "{kind} {spec:.200}: {said:?}, not {outcome:?}");
        assert!(said.is_empty() || said.contains(": spec"), "{said}");
    }

    fn many(prefix: &str, n: usize) -> String {
        let all: Vec<String> = (0..n).map(|i| format!("{prefix}{i}")).collect();
        all.join(", ")
    }

    #[test]
    fn what_a_key_may_hold_is_bounded() {
        let key = |rest: &str| {
            format!("{{provider: openai, vault: {{mount: secret, path: keyfleet/a}}, {rest}}}")
        };
        let hosts = |hosts: &str| key(&format!("allowedHosts: [{hosts}]"));
        for (kind, spec, outcome) in [
            ("Key", key(""), ""),
            ("Key", hosts("api.openai.com, \"[::1]\", 10.0.0.1"), ""),
            (
                "Key",
                hosts(""),
                "spec.allowedHosts: must list at least one host",
            ),
            (
                "Key",
                hosts("a.example, https://b.example"),
                "spec.allowedHosts[1]",
            ),
            ("Key", hosts("\"*.example.org\""), "spec.allowedHosts[0]"),
            ("Key", hosts("ä.example"), "write xn--"),
            ("Key", hosts("a.example."), "dot at the end"),
            ("Key", hosts("\"2130706433\""), "write 127.0.0.1"),
            ("Key", hosts(&many("a", 21)), "has 21 entries"),
            (
                "Key",
                key("").replace(
                    "keyfleet/a",
                    &format!("keyfleet/a, fields: {{secret: {}}}", "a".repeat(121)),
                ),
                "spec.vault.fields.secret: is longer",
            ),
            (
                "Key",
                key("scope: {matchLabels: {\"a b\": c}}"),
                "cannot be a label",
            ),
        ] {
            check(kind, &spec, outcome);
        }
    }

    #[test]
    fn what_a_placement_and_a_strategy_may_hold_is_bounded() {
        let placed = |rest: &str| format!("{{connectors: [a], {rest}}}");
        for (kind, spec, outcome) in [
            ("Placement", placed("spaces: [a, b]"), ""),
            (
                "Placement",
                placed("spaces: [a, b, a]"),
                "spec.spaces[2]: a stands in the list twice",
            ),
            (
                "Placement",
                placed(&format!("spaces: [{}]", many("s", 101))),
                "spec.spaces: has 101",
            ),
            (
                "Placement",
                placed(&format!("exceptSpaces: [{}]", many("s", 101))),
                "spec.exceptSpaces: has 101",
            ),
            (
                "Placement",
                placed("exceptSpaces: [\"x*\", \"x*\"]"),
                "spec.exceptSpaces[1]: x* stands in the list twice",
            ),
            (
                "Placement",
                format!("{{connectors: [{}]}}", many("c", 101)),
                "spec.connectors: has 101",
            ),
            (
                "Placement",
                placed("selector: {matchLabels: {a: \"b,c\"}}"),
                "cannot be a label",
            ),
            (
                "Placement",
                placed("selector: {matchExpressions: [{key: a, operator: In}]}"),
                "need values",
            ),
            (
                "Placement",
                placed(&format!(
                    "selector: {{matchExpressions: [{{key: a, operator: In, values: [{}]}}]}}",
                    many("v", 101)
                )),
                "has 101 entries",
            ),
            (
                "Strategy",
                "{waves: [{name: \"a\\u001b[2J\", concurrency: 1}]}".to_owned(),
                "spec.waves[0].name",
            ),
            (
                "Strategy",
                format!("{{waves: [{{name: {}, concurrency: 1}}]}}", "a".repeat(121)),
                "longer than 120",
            ),
        ] {
            check(kind, &spec, outcome);
        }
    }

    #[test]
    fn what_a_strategy_lists_is_bounded() {
        for (kind, spec, outcome) in [
            ("Strategy", waves("windows", WINDOW, 50), ""),
            (
                "Strategy",
                waves("windows", WINDOW, 51),
                "spec.windows: has 51",
            ),
            (
                "Strategy",
                waves("windows", WINDOW, 1).replace("22", &["22"; 50].join(",")),
                "spec.windows[0].cron: is longer than 120",
            ),
            (
                "Strategy",
                waves("windows", WINDOW, 1).replace("0 22", "0\\t22"),
                "spec.windows[0].cron: holds a character",
            ),
            (
                "Strategy",
                waves("blackouts", BLACKOUT, 101),
                "spec.blackouts: has 101",
            ),
            ("Strategy", waves("gates", GATE, 20), ""),
            ("Strategy", waves("gates", GATE, 21), "spec.gates: has 21"),
            (
                "Strategy",
                waves("blackouts", BLACKOUT, 1).replace("festive", "\"a\\u200Bb\""),
                "spec.blackouts[0].reason: holds",
            ),
            (
                "Strategy",
                waves("gates", GATE, 1).replace("/go", &format!("/{}", "a".repeat(2_000))),
                "spec.gates[0].http.url: is longer than 2000",
            ),
        ] {
            check(kind, &spec, outcome);
        }
    }

    const WINDOW: &str = "{cron: \"N 22 * * *\", duration: 4h}";
    const BLACKOUT: &str = "{from: 2026-12-24, until: 2026-12-26, reason: festive}";
    const GATE: &str = "{name: gN, http: {url: \"https://gates.example.com/go\"}}";

    /// A strategy with so many of these; `N` becomes the number of each.
    fn waves(list: &str, one: &str, n: usize) -> String {
        let all: Vec<String> = (0..n).map(|i| one.replace('N', &i.to_string())).collect();
        let all = all.join(", ");
        format!("{{waves: [{{name: all, concurrency: 1}}], {list}: [{all}]}}")
    }

    #[test]
    fn a_connector_is_bounded_and_its_name_shows_itself_as_it_is() {
        let name = |name: &str| {
            format!(
                "{{type: .gen-ai, displayName: \"{name}\", key: k, config: {{apiProvider: OpenAI, apiUrl: \"https://api.openai.com/v1/chat/completions\"}}}}"
            )
        };
        for (kind, spec, outcome) in [
            (
                "Connector",
                name("OpenAI GPT ü 模型 \\U0001F469\\u200D\\U0001F4BB"),
                "",
            ),
            ("Connector", name("a\\u202Eb"), "turns the text around"),
            ("Connector", name("a\\u200Bb"), "nobody sees"),
            ("Connector", name("a\\u0007b"), "control character"),
            ("Connector", name(&"a".repeat(121)), "longer than 120"),
        ] {
            check(kind, &spec, outcome);
        }
        let headers: String = (0..300)
            .map(|i| format!("h{i}: {}, ", "v".repeat(120)))
            .collect();
        let large = name("x").replace(
            "apiProvider: OpenAI,",
            &format!("apiProvider: OpenAI, headers: {{{headers}}},"),
        );
        check("Connector", &large, "spec.config: is larger than");
        let wordy = name("x").replace(
            "key: k,",
            &format!("key: k, probe: {{body: {{a: {}}}}},", "v".repeat(40_000)),
        );
        check("Connector", &wordy, "spec.probe.body: is larger than");
    }

    #[test]
    fn what_one_call_may_bring_is_bounded_and_each_object_stands_once() {
        let strategy = |i: usize| {
            manifest(
                "Strategy",
                &format!("s{i}"),
                "{waves: [{name: all, concurrency: 1}]}",
            )
        };
        let all: String = (0..=OBJECTS_MAX).map(strategy).collect();
        let err = read_all(&[file("f.yaml", all)]).unwrap_err().to_string();
        assert!(err.contains("more than 2000 objects"), "{err}");
        let files: Vec<_> = (0..=FILES_MAX)
            .map(|i| file(&format!("{i}.yaml"), String::new()))
            .collect();
        let err = read_all(&files).unwrap_err().to_string();
        assert!(
            err.starts_with("500.yaml:1: ") && err.contains("more than 500 files"),
            "{err}"
        );
        let twice = [file("a.yaml", strategy(1)), file("b.yaml", strategy(1))];
        let err = read_all(&twice).unwrap_err().to_string();
        assert_eq!(
            err,
            "b.yaml:4: metadata.name: Strategy s1 stands in a.yaml:2 already: keep one"
        );
    }
}
