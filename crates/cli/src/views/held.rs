//! What an agent may know, and what to do about it.

use keyfleet_core::key::KeyState;
use keyfleet_proto::v1;

use super::{Page, words};
use crate::output::{Cell, Table, Tone, View};

/// The key versions that the agent of this deployment was ever sent, and what comes next.
pub(crate) fn page(deployment: &str, held: &[v1::HeldKey], view: &View) -> String {
    let mut page = Page::default();
    rows(&mut page, deployment, held, view);
    page.finish()
}

/// The same as sections of a page.
pub(crate) fn rows(page: &mut Page, deployment: &str, held: &[v1::HeldKey], view: &View) {
    if held.is_empty() {
        page.line(format_args!(
            "The agent of {deployment} was never sent a key."
        ));
        return;
    }
    let mut table = Table::new(&["KEY", "VERSION", "STATE", "SHOWN", "FINGERPRINT", "IN USE"]);
    for version in held {
        let in_use = if version.open {
            Cell::toned("maybe", Tone::Between)
        } else {
            "no".into()
        };
        table.row(vec![
            (&version.key).into(),
            version.version.to_string().into(),
            words::key_state_cell(version.state),
            (&version.shown).into(),
            super::key::fingerprint(&version.fingerprint, view).into(),
            in_use,
        ]);
    }
    page.table(&format!("What the agent of {deployment} may know"), &table);
    let next = next(held);
    if next.is_empty() {
        page.line("All of them are dead at the provider: nothing is left to do.");
    }
    page.sentences("Next", Tone::Between, &next);
}

/// A sentence for each key with a version that may still work.
fn next(held: &[v1::HeldKey]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for version in held {
        if !names.contains(&version.key.as_str()) {
            names.push(&version.key);
        }
    }
    names
        .into_iter()
        .filter_map(|key| step(key, held))
        .collect()
}

fn step(key: &str, held: &[v1::HeldKey]) -> Option<String> {
    let is_alive = |version: &&v1::HeldKey| {
        version.key == key && words::key_state(version.state) != Some(KeyState::Revoked)
    };
    let alive: Vec<&v1::HeldKey> = held.iter().filter(is_alive).collect();
    let versions: Vec<String> = alive.iter().map(|v| v.version.to_string()).collect();
    let (versions, them) = match versions.as_slice() {
        [] => return None,
        [one] => (format!("version {one}"), "it"),
        [before @ .., last] => (format!("versions {} and {last}", before.join(", ")), "them"),
    };
    let is_current = |v: &&&v1::HeldKey| words::key_state(v.state) == Some(KeyState::Current);
    let once = format!(
        "once `keyfleet key show {key}` says that nothing may hold {versions}, revoke {them} at the provider"
    );
    Some(match alive.iter().find(is_current) {
        Some(_) => format!("rotate {key}: write a new value to its place in Vault; {once}"),
        None => format!("{key}: {once}"),
    })
}
