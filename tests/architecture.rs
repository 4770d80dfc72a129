//! Holds the shape of the workspace: who may depend on whom, and the rules that no lint knows.
//!
//! The rules are data at the top of this file. A change of the architecture is a change of that data, made in the
//! same commit and explained in ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::binaries::workspace;

/// Who may use what. In `ARROWS`, `name` uses `normal` and, for its tests, `dev`; in `OWNED` they use `name`.
struct Rule {
    name: &'static str,
    normal: &'static [&'static str],
    /// Beyond `normal`, for tests only.
    dev: &'static [&'static str],
}

impl Rule {
    fn allows(&self, name: &str, for_tests: bool) -> bool {
        self.normal.contains(&name) || (for_tests && self.dev.contains(&name))
    }
}

type Names = &'static [&'static str];

const fn rule(name: &'static str, normal: Names, dev: Names) -> Rule {
    Rule { name, normal, dev }
}

/// What each crate of ours may use of ours, from the inside out.
#[rustfmt::skip]
const ARROWS: [Rule; 11] = [
    rule("keyfleet-core", &[], &["xtask"]),
    rule("keyfleet-telemetry", &[], &[]),
    rule("keyfleet-proto", &["keyfleet-core"], &["xtask"]),
    rule("keyfleet-store", &["keyfleet-core"], &[]),
    rule("keyfleet-seal", &["keyfleet-core"], &["xtask"]),
    rule("keyfleet-kibana", &["keyfleet-core"], &["keyfleet-sim", "xtask"]),
    rule("keyfleet-openai", &["keyfleet-core"], &["keyfleet-sim", "xtask"]),
    rule("keyfleet-vault", &["keyfleet-core"], &["xtask"]),
    rule("keyfleet-agent", &[
        "keyfleet-core", "keyfleet-kibana", "keyfleet-proto", "keyfleet-seal", "keyfleet-telemetry",
    ], &["keyfleet-sim", "xtask"]),
    rule("keyfleet-cli", &["keyfleet-core", "keyfleet-proto", "keyfleet-telemetry"], &["xtask"]),
    rule("keyfleet-control", &[
        "keyfleet-core", "keyfleet-kibana", "keyfleet-openai", "keyfleet-proto", "keyfleet-seal",
        "keyfleet-store", "keyfleet-telemetry", "keyfleet-vault",
    ], &["keyfleet-sim", "xtask"]),
];

/// They stand around the product and may use any crate of it.
const AROUND: [&str; 3] = ["keyfleet-sim", "keyfleet-tests", "xtask"];

/// Features of keyfleet-proto that a crate must not ask for, tests aside: a server pulls axum into a client.
const PROTO_SIDES: [(&str, &str); 3] = [
    ("keyfleet-agent", "server"),
    ("keyfleet-cli", "server"),
    ("keyfleet-control", "client"),
];

/// Outside technologies and the crates that own them.
#[rustfmt::skip]
const OWNED: [Rule; 17] = [
    rule("vaultrs", &["keyfleet-vault"], &[]),
    rule("rustify", &["keyfleet-vault"], &[]),
    rule("reqwest", &[
        "keyfleet-control", "keyfleet-kibana", "keyfleet-openai", "keyfleet-vault", "keyfleet-sim", "keyfleet-tests",
    ], &["keyfleet-agent"]),
    rule("axum", &["keyfleet-control", "keyfleet-sim"], &["keyfleet-openai", "keyfleet-vault"]),
    rule("rusqlite", &["keyfleet-store"], &[]),
    rule("hpke", &["keyfleet-seal"], &[]),
    rule("rcgen", &["keyfleet-agent", "keyfleet-control", "xtask"], &[
        "keyfleet-cli", "keyfleet-kibana", "keyfleet-tests", "keyfleet-vault",
    ]),
    rule("x509-parser", &["keyfleet-control"], &[]),
    rule("config", &["keyfleet-agent", "keyfleet-control"], &[]),
    rule("serde-saphyr", &["keyfleet-cli", "keyfleet-control"], &[]),
    rule("clap", &["keyfleet-cli", "keyfleet-control", "keyfleet-sim"], &[]),
    rule("tracing-subscriber", &["keyfleet-telemetry"], &["keyfleet-vault"]),
    rule("prometheus-client", &["keyfleet-telemetry"], &[]),
    rule("protox", &["keyfleet-proto"], &[]),
    rule("tonic-prost-build", &["keyfleet-proto"], &[]),
    rule("tonic-reflection", &["keyfleet-control"], &["keyfleet-tests"]),
    rule("ctrlc", &["xtask"], &[]),
];

/// All that the core may use: values, ids, times, error texts; `insta`, `proptest` and `xtask` for its tests.
const CORE_USES: [&str; 7] = [
    "jiff",
    "thiserror",
    "url",
    "uuid",
    "insta",
    "proptest",
    "xtask",
];

/// What the agent must never link, and how many crates it may be made of.
const AGENT_NEVER: [&str; 4] = ["axum", "clap", "rusqlite", "vaultrs"];
const AGENT_CRATES_MAX: usize = 200;

/// Other TLS stacks than rustls with ring.
const OTHER_TLS: [&str; 6] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "boring",
    "native-tls",
    "openssl",
    "openssl-sys",
];

/// What lies at the top of the repository, beside `*.toml` and names that begin with a dot. `target` is cargo's.
const TOP_LEVEL: [&str; 11] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "crates",
    "deploy",
    "proto",
    "target",
    "tests",
];

/// Code that a build script writes is silenced where it is included; a lint that expects would differ by feature.
const GENERATED: (&str, &str) = ("crates/proto/src/lib.rs", "allow(");

/// A longer file holds more than one thought.
const FILE_LINES_MAX: usize = 600;

#[test]
fn every_crate_uses_only_what_its_arrows_allow() -> Result<()> {
    let packages = packages()?;
    let is_ours = |name: &str| packages.iter().any(|package| package.name == name);
    let mut problems = Vec::new();
    for package in &packages {
        let name = package.name.as_str();
        let rule = ARROWS.iter().find(|rule| rule.name == name);
        if rule.is_none() && !AROUND.contains(&name) {
            problems.push(format!("{name} is new: give it a row in ARROWS"));
        }
        let Some(rule) = rule else { continue };
        for used in package.uses.iter().filter(|used| is_ours(&used.name)) {
            if !rule.allows(&used.name, used.is_dev) {
                let advice = "remove it, or move the code to the crate that may";
                problems.push(format!("{name} must not use {}: {advice}", used.name));
            }
        }
    }
    assert_none(&problems);
    Ok(())
}

#[test]
fn clients_and_servers_stay_apart() -> Result<()> {
    let mut problems = Vec::new();
    for package in packages()? {
        let proto = |used: &&Used| used.name == "keyfleet-proto" && !used.is_dev;
        for used in package.uses.iter().filter(proto) {
            for (name, side) in PROTO_SIDES {
                if name == package.name && used.features.iter().any(|feature| feature == side) {
                    let advice = "ask for it in its dev-dependencies only";
                    problems.push(format!(
                        "{name} links the {side} of keyfleet-proto: {advice}"
                    ));
                }
            }
        }
    }
    assert_none(&problems);
    Ok(())
}

#[test]
fn every_outside_technology_has_its_owners() -> Result<()> {
    let mut problems = Vec::new();
    for package in packages()? {
        for used in &package.uses {
            let Some(rule) = OWNED.iter().find(|rule| rule.name == used.name) else {
                continue;
            };
            if !rule.allows(&package.name, used.is_dev) {
                let owners = rule.normal.join(", ");
                problems.push(format!(
                    "{} must not use {}: call its owner ({owners}) and remove it from the manifest",
                    package.name, used.name
                ));
            }
        }
    }
    assert_none(&problems);
    Ok(())
}

#[test]
fn the_core_is_pure() -> Result<()> {
    let packages = packages()?;
    let core = packages
        .iter()
        .find(|package| package.name == "keyfleet-core");
    let uses = &core.context("there is no keyfleet-core")?.uses;
    let strange = uses
        .iter()
        .filter(|used| !CORE_USES.contains(&used.name.as_str()));
    let problems = strange.map(|used| {
        format!(
            "keyfleet-core must not use {}: the core decides, the edges act",
            used.name
        )
    });
    assert_none(&problems.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn every_crate_keeps_the_lints_and_is_never_published() -> Result<()> {
    let mut problems = Vec::new();
    for package in packages()? {
        let manifest = std::fs::read_to_string(&package.manifest)?;
        let lints = manifest.split("[lints]").nth(1).unwrap_or_default();
        if !lints.trim_start().starts_with("workspace = true") {
            problems.push(format!(
                "{}: add `workspace = true` under `[lints]`",
                package.name
            ));
        }
        if !package.is_private {
            problems.push(format!("{}: add `publish.workspace = true`", package.name));
        }
    }
    assert_none(&problems);
    Ok(())
}

#[test]
fn there_is_one_tls_provider() -> Result<()> {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock"))?;
    let is_locked = |name: &str| lock.contains(&format!("\nname = \"{name}\"\n"));
    let others = OTHER_TLS.iter().filter(|name| is_locked(name));
    let problems = others.map(|name| {
        format!(
            "{name} is in Cargo.lock: turn off the features that bring it (`cargo tree -i {name}`)"
        )
    });
    assert_none(&problems.collect::<Vec<_>>());
    assert!(
        is_locked("ring"),
        "ring is not in Cargo.lock: it is the one provider of rustls here"
    );
    Ok(())
}

#[test]
fn the_agent_is_light() -> Result<()> {
    let arguments = "tree -p keyfleet-agent -e normal --prefix none --offline";
    let tree = cargo(arguments)?;
    let crates: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let links = |name: &str| {
        crates
            .iter()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let never = AGENT_NEVER.iter().filter(|name| links(name));
    let problems = never.map(|name| {
        format!("the agent links {name}: `cargo {arguments} -i {name}` shows through whom")
    });
    assert_none(&problems.collect::<Vec<_>>());
    assert!(
        crates.len() <= AGENT_CRATES_MAX,
        "the agent is made of {} crates, {AGENT_CRATES_MAX} are allowed: turn features off or do without",
        crates.len()
    );
    Ok(())
}

#[test]
fn every_source_file_is_short_and_says_what_it_is() -> Result<()> {
    let mut problems = Vec::new();
    for Source { name, text } in sources()? {
        if !text.starts_with("//!") {
            problems.push(format!(
                "{name}: begin with a `//!` line that says what it is for"
            ));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            let advice = "split it by what it is about";
            problems.push(format!(
                "{name} has {lines} lines of {FILE_LINES_MAX}: {advice}"
            ));
        }
    }
    assert_none(&problems);
    Ok(())
}

#[test]
fn no_test_is_left_out_and_no_lint_is_silenced() -> Result<()> {
    let never = [
        ("ignore", "repair the test or remove it"),
        ("should_panic", "check the error instead"),
        ("allow(", "use expect with a reason"),
    ];
    let mut problems = Vec::new();
    for Source { name, text } in sources()? {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            let attribute = line.strip_prefix("#[").or_else(|| line.strip_prefix("#!["));
            let starts = |(word, _): &&(&str, &str)| attribute.is_some_and(|a| a.starts_with(word));
            if let Some((word, advice)) = never.iter().find(starts)
                && (name.as_str(), *word) != GENERATED
            {
                problems.push(format!("{name}:{number}: no attribute `{word}`: {advice}"));
            }
        }
    }
    assert_none(&problems);
    Ok(())
}

#[test]
fn the_top_level_holds_what_the_design_allows() -> Result<()> {
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(workspace())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_setting = name.starts_with('.') || name.ends_with(".toml");
        if !is_setting && !TOP_LEVEL.contains(&name.as_str()) {
            let advice = "put it into crates, proto, deploy or tests, or remove it";
            problems.push(format!("{name} must not lie at the top: {advice}"));
        }
    }
    assert_none(&problems);
    Ok(())
}

/// A package of the workspace, as its manifest declares it.
struct Package {
    name: String,
    manifest: PathBuf,
    is_private: bool,
    uses: Vec<Used>,
}

struct Used {
    name: String,
    is_dev: bool,
    features: Vec<String>,
}

fn packages() -> Result<Vec<Package>> {
    // What is declared is all that these rules are about, and it can be read without any registry.
    let metadata = cargo("metadata --format-version 1 --no-deps --offline")?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = array(&metadata, "packages")?
        .iter()
        .map(package)
        .collect::<Result<Vec<_>>>()?;
    ensure!(!packages.is_empty(), "cargo metadata names no package");
    Ok(packages)
}

fn package(value: &Value) -> Result<Package> {
    Ok(Package {
        name: text(value, "name")?,
        manifest: text(value, "manifest_path")?.into(),
        is_private: value["publish"].as_array().is_some_and(Vec::is_empty),
        uses: array(value, "dependencies")?
            .iter()
            .map(used)
            .collect::<Result<_>>()?,
    })
}

fn used(value: &Value) -> Result<Used> {
    let features = array(value, "features")?.iter().filter_map(Value::as_str);
    Ok(Used {
        name: text(value, "name")?,
        is_dev: value["kind"] == "dev",
        features: features.map(str::to_owned).collect(),
    })
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value[field].as_str();
    text.map(str::to_owned)
        .with_context(|| format!("cargo metadata without `{field}`"))
}

fn array<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field]
        .as_array()
        .with_context(|| format!("cargo metadata without `{field}`"))
}

fn cargo(arguments: &str) -> Result<String> {
    let mut command = Command::new("cargo");
    let output = command
        .args(arguments.split(' '))
        .current_dir(workspace())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {arguments} failed: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A Rust file that people write; its name begins at the top of the repository.
struct Source {
    name: String,
    text: String,
}

fn sources() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for folder in ["crates", "tests"] {
        collect(&workspace().join(folder), &mut found)?;
    }
    ensure!(!found.is_empty(), "no Rust file was found");
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(workspace())?.display().to_string();
            found.push(Source {
                name,
                text: std::fs::read_to_string(&path)?,
            });
        }
    }
    Ok(())
}

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
