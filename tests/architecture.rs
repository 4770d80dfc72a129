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

/// A crate of ours and what it may use of ours.
struct Arrows {
    package: &'static str,
    normal: &'static [&'static str],
    /// Beyond `normal`, for its tests only.
    dev: &'static [&'static str],
}

const fn arrows(
    package: &'static str,
    normal: &'static [&'static str],
    dev: &'static [&'static str],
) -> Arrows {
    Arrows {
        package,
        normal,
        dev,
    }
}

/// Every crate that others build on, from the inside out.
const ARROWS: [Arrows; 11] = [
    arrows("keyfleet-core", &[], &[]),
    arrows("keyfleet-telemetry", &[], &[]),
    arrows("keyfleet-proto", &["keyfleet-core"], &[]),
    arrows("keyfleet-store", &["keyfleet-core"], &[]),
    arrows("keyfleet-seal", &["keyfleet-core"], &[]),
    arrows("keyfleet-kibana", &["keyfleet-core"], &["keyfleet-sim"]),
    arrows("keyfleet-openai", &["keyfleet-core"], &["keyfleet-sim"]),
    arrows("keyfleet-vault", &["keyfleet-core"], &["xtask"]),
    arrows(
        "keyfleet-agent",
        &[
            "keyfleet-core",
            "keyfleet-kibana",
            "keyfleet-proto",
            "keyfleet-seal",
            "keyfleet-telemetry",
        ],
        &["keyfleet-sim"],
    ),
    arrows(
        "keyfleet-cli",
        &["keyfleet-core", "keyfleet-proto", "keyfleet-telemetry"],
        &[],
    ),
    arrows(
        "keyfleet-control",
        &[
            "keyfleet-core",
            "keyfleet-kibana",
            "keyfleet-openai",
            "keyfleet-proto",
            "keyfleet-seal",
            "keyfleet-store",
            "keyfleet-telemetry",
            "keyfleet-vault",
        ],
        &["keyfleet-sim", "xtask"],
    ),
];

/// They stand outside the product and may use any crate of it.
const AROUND: [&str; 3] = ["keyfleet-sim", "keyfleet-tests", "xtask"];

/// Features of keyfleet-proto that a crate must not ask for, tests aside: a server pulls axum into a client.
const PROTO_SIDES: [(&str, &str); 3] = [
    ("keyfleet-agent", "server"),
    ("keyfleet-cli", "server"),
    ("keyfleet-control", "client"),
];

/// An outside technology and the crates that own it.
struct Owned {
    technology: &'static str,
    normal: &'static [&'static str],
    dev: &'static [&'static str],
}

const fn owned(
    technology: &'static str,
    normal: &'static [&'static str],
    dev: &'static [&'static str],
) -> Owned {
    Owned {
        technology,
        normal,
        dev,
    }
}

const OWNED: [Owned; 17] = [
    owned("vaultrs", &["keyfleet-vault"], &[]),
    owned("rustify", &["keyfleet-vault"], &[]),
    owned(
        "reqwest",
        &[
            "keyfleet-kibana",
            "keyfleet-openai",
            "keyfleet-vault",
            "keyfleet-sim",
            "keyfleet-tests",
        ],
        &["keyfleet-agent", "keyfleet-control"],
    ),
    owned(
        "axum",
        &["keyfleet-control", "keyfleet-sim"],
        &["keyfleet-openai", "keyfleet-vault"],
    ),
    owned("rusqlite", &["keyfleet-store"], &[]),
    owned("hpke", &["keyfleet-seal"], &[]),
    owned(
        "rcgen",
        &["keyfleet-agent", "keyfleet-control", "xtask"],
        &["keyfleet-cli", "keyfleet-kibana", "keyfleet-tests"],
    ),
    owned("x509-parser", &["keyfleet-control"], &[]),
    owned("config", &["keyfleet-agent", "keyfleet-control"], &[]),
    owned(
        "serde-saphyr",
        &["keyfleet-cli", "keyfleet-control"],
        &["keyfleet-tests"],
    ),
    owned(
        "clap",
        &["keyfleet-cli", "keyfleet-control", "keyfleet-sim"],
        &[],
    ),
    owned(
        "tracing-subscriber",
        &["keyfleet-telemetry"],
        &["keyfleet-vault"],
    ),
    owned("prometheus-client", &["keyfleet-telemetry"], &[]),
    owned("protox", &["keyfleet-proto"], &[]),
    owned("tonic-prost-build", &["keyfleet-proto"], &[]),
    owned("tonic-reflection", &["keyfleet-control"], &[]),
    owned("ctrlc", &["xtask"], &[]),
];

/// All that the core may use: values, ids, times, error texts.
const CORE_USES: [&str; 6] = ["jiff", "thiserror", "url", "uuid", "insta", "proptest"];

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

/// A longer file holds more than one thought.
const FILE_LINES_MAX: usize = 600;

#[test]
fn every_crate_uses_only_what_its_arrows_allow() -> Result<()> {
    let packages = packages()?;
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut problems = Vec::new();
    for package in &packages {
        if AROUND.contains(&package.name.as_str()) {
            continue;
        }
        let Some(rule) = ARROWS.iter().find(|rule| rule.package == package.name) else {
            problems.push(format!(
                "{} is a new crate: give it a row in ARROWS of tests/architecture.rs",
                package.name
            ));
            continue;
        };
        for used in package
            .uses
            .iter()
            .filter(|used| ours.contains(used.name.as_str()))
        {
            let name = used.name.as_str();
            let allowed = rule.normal.contains(&name) || (used.is_dev && rule.dev.contains(&name));
            if !allowed {
                problems.push(format!(
                    "{} must not use {name}: remove it from {}, or move the code to the crate that may",
                    package.name,
                    package.manifest.display()
                ));
            }
        }
    }
    none(&problems)
}

#[test]
fn clients_and_servers_stay_apart() -> Result<()> {
    let mut problems = Vec::new();
    for package in packages()? {
        for used in package
            .uses
            .iter()
            .filter(|used| used.name == "keyfleet-proto" && !used.is_dev)
        {
            let asks = |feature: &str| used.features.iter().any(|asked| asked == feature);
            let wrong = |(name, side): &&(&str, &str)| *name == package.name && asks(side);
            problems.extend(PROTO_SIDES.iter().find(wrong).map(|(name, side)| {
                format!("{name} must not ask for the feature `{side}` of keyfleet-proto outside of its tests")
            }));
        }
    }
    none(&problems)
}

#[test]
fn every_outside_technology_has_its_owners() -> Result<()> {
    let mut problems = Vec::new();
    for package in packages()? {
        for used in &package.uses {
            let Some(rule) = OWNED.iter().find(|rule| rule.technology == used.name) else {
                continue;
            };
            let name = package.name.as_str();
            let allowed = rule.normal.contains(&name) || (used.is_dev && rule.dev.contains(&name));
            if !allowed {
                problems.push(format!(
                    "{name} must not use {}, which belongs to {}: call that crate, and remove the line from {}",
                    used.name,
                    rule.normal.join(", "),
                    package.manifest.display()
                ));
            }
        }
    }
    none(&problems)
}

#[test]
fn the_core_is_pure() -> Result<()> {
    let packages = packages()?;
    let core = packages
        .iter()
        .find(|package| package.name == "keyfleet-core");
    let core = core.context("there is no keyfleet-core")?;
    let strange = core
        .uses
        .iter()
        .filter(|used| !CORE_USES.contains(&used.name.as_str()));
    let problems: Vec<String> = strange
        .map(|used| {
            format!(
                "keyfleet-core must not use {}: it decides, the edges act",
                used.name
            )
        })
        .collect();
    none(&problems)
}

#[test]
fn every_crate_keeps_the_lints_and_is_never_published() -> Result<()> {
    let mut problems = Vec::new();
    for package in packages()? {
        let manifest = std::fs::read_to_string(&package.manifest)?;
        let lints = manifest.split("[lints]").nth(1).unwrap_or_default();
        if lints.trim_start().lines().next().map(str::trim) != Some("workspace = true") {
            problems.push(format!(
                "{}: add `[lints]` with `workspace = true`",
                package.manifest.display()
            ));
        }
        if !package.is_private {
            problems.push(format!(
                "{}: add `publish.workspace = true`",
                package.manifest.display()
            ));
        }
    }
    none(&problems)
}

#[test]
fn there_is_one_tls_provider() -> Result<()> {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock"))?;
    let locked = |name: &str| lock.contains(&format!("\nname = \"{name}\"\n"));
    let mut problems: Vec<String> = OTHER_TLS
        .iter()
        .filter(|name| locked(name))
        .map(|name| {
            format!("{name} came into Cargo.lock: turn off the default features that bring it (`cargo tree -i {name}`)")
        })
        .collect();
    if !locked("ring") {
        problems.push("ring is not in Cargo.lock: rustls needs its provider".to_owned());
    }
    none(&problems)
}

#[test]
fn the_agent_is_light() -> Result<()> {
    let tree = cargo(&[
        "tree",
        "-p",
        "keyfleet-agent",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--offline",
    ])?;
    let crates: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let is_there = |name: &&&str| {
        crates
            .iter()
            .any(|line| line.split(' ').next() == Some(**name))
    };
    let mut problems: Vec<String> = AGENT_NEVER
        .iter()
        .filter(is_there)
        .map(|name| {
            format!("the agent links {name}: `cargo tree -p keyfleet-agent -e normal -i {name}` shows through whom")
        })
        .collect();
    if crates.len() > AGENT_CRATES_MAX {
        problems.push(format!(
            "the agent is made of {} crates, {AGENT_CRATES_MAX} are allowed: turn features off or do without",
            crates.len()
        ));
    }
    none(&problems)
}

#[test]
fn every_source_file_is_short_and_says_what_it_is() -> Result<()> {
    let mut problems = Vec::new();
    for path in sources()? {
        let text = std::fs::read_to_string(&path)?;
        let shown = path.strip_prefix(workspace()).unwrap_or(&path).display();
        if !text.starts_with("//!") {
            problems.push(format!(
                "{shown}: begin with a `//!` line that says what the module is for"
            ));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!(
                "{shown} has {lines} lines, {FILE_LINES_MAX} are allowed: split it by what it is about"
            ));
        }
    }
    none(&problems)
}

#[test]
fn no_test_is_left_out_and_no_lint_is_silenced() -> Result<()> {
    // Put together here, so that this file does not find itself.
    let never = [
        (["#[", "ignore"].concat(), "repair the test or remove it"),
        (["#[", "should_panic"].concat(), "check the error instead"),
        (["#[", "allow("].concat(), "use expect with a reason"),
        (["#![", "allow("].concat(), "use expect with a reason"),
    ];
    let mut problems = Vec::new();
    for path in sources()? {
        let text = std::fs::read_to_string(&path)?;
        let shown = path.strip_prefix(workspace()).unwrap_or(&path).display();
        for (number, line) in (1..).zip(text.lines()) {
            let found = never
                .iter()
                .find(|(pattern, _)| line.trim_start().starts_with(pattern));
            problems
                .extend(found.map(|(pattern, advice)| {
                    format!("{shown}:{number}: no `{pattern}`: {advice}")
                }));
        }
    }
    none(&problems)
}

#[test]
fn the_top_level_holds_what_the_design_allows() -> Result<()> {
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(workspace())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let allowed =
            name.starts_with('.') || name.ends_with(".toml") || TOP_LEVEL.contains(&name.as_str());
        if !allowed {
            problems.push(format!(
                "{name} must not lie at the top: put it into crates, proto, deploy or tests, or remove it"
            ));
        }
    }
    none(&problems)
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
    let metadata = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ])?;
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

fn cargo(arguments: &[&str]) -> Result<String> {
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(workspace())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cargo {} failed: {said}",
        arguments.join(" ")
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Every Rust file that people write.
fn sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["crates", "tests"] {
        collect(&workspace().join(folder), &mut found)?;
    }
    ensure!(!found.is_empty(), "no Rust file was found");
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn none(problems: &[String]) -> Result<()> {
    ensure!(problems.is_empty(), "\n{}", problems.join("\n"));
    Ok(())
}
