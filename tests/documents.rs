//! Holds the documents to what is really there: files, links, and the tests that the threat table names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xtask::binaries::workspace;

const DOCUMENTS: [&str; 5] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "README.md",
    "SECURITY.md",
    "deploy/README.md",
];

/// Where names in backticks are paths.
const FOLDERS: [&str; 4] = ["crates/", "deploy/", "proto/", "tests/"];

#[test]
fn every_file_that_a_document_names_is_there() -> Result<()> {
    let mut problems = Vec::new();
    for name in DOCUMENTS {
        let path = workspace().join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let folder = path.parent().context("a document lies in a folder")?;
        let missing = |found: &PathBuf| !found.exists();
        let links = links(&text).into_iter().map(|link| folder.join(link));
        let paths =
            quoted(&text).filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
        let paths = paths.map(|word| workspace().join(word));
        for found in links.chain(paths).filter(missing) {
            problems.push(format!(
                "{name} names {}, which is not there",
                found.display()
            ));
        }
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    Ok(())
}

#[test]
fn every_threat_names_tests_that_exist() -> Result<()> {
    let text = std::fs::read_to_string(workspace().join("SECURITY.md"))?;
    let (_, threats) = text
        .split_once("\n## Threats\n")
        .context("SECURITY.md has no threats")?;
    let (threats, _) = threats
        .split_once("\n## ")
        .context("nothing follows the threats")?;
    let rows: Vec<&str> = threats
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    ensure!(!rows.is_empty(), "the table of threats is empty");
    let tests = functions()?;
    let mut problems = Vec::new();
    for row in rows {
        let test = row
            .trim_end_matches(" |")
            .rsplit("| ")
            .next()
            .unwrap_or_default();
        let named: Vec<&str> = quoted(test).filter(|word| !word.contains(' ')).collect();
        if named.is_empty() && !test.contains("planned") {
            problems.push(format!("no test and no plan: {row}"));
        }
        let unknown = named.iter().filter(|name| !tests.contains(**name));
        problems.extend(unknown.map(|name| format!("there is no test {name}: {row}")));
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    Ok(())
}

/// What stands in backticks, line by line, outside of blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let mut is_block = false;
    let lines = text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    });
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The targets of links inside this repository.
fn links(text: &str) -> Vec<&str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

/// The names of all functions in the sources.
fn functions() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for folder in ["crates", "tests"] {
        collect(&workspace().join(folder), &mut found)?;
    }
    Ok(found)
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
    Ok(())
}
