//! Keys and their versions; never a secret.

use keyfleet_proto::v1;

use super::{Page, words};
use crate::output::{Cell, Table, Tone, View, clean, when};

/// What control says of a key that can be read.
const VAULT_OK: &str = "ok";

/// The table of keys.
pub(crate) fn table(keys: &[v1::Key], view: &View) -> String {
    let mut table = Table::new(&[
        "NAME",
        "VERSION",
        "LOCATION",
        "SET",
        "ALLOWED HOSTS",
        "CHECKED",
        "VAULT…",
    ]);
    for key in keys {
        let tone = if key.vault_status == VAULT_OK {
            Tone::Good
        } else {
            Tone::Bad
        };
        table.row(vec![
            (&key.name).into(),
            version(key.current_version).into(),
            location(key).into(),
            (&key.set).into(),
            if view.wide {
                key.allowed_hosts.join(",").into()
            } else {
                "".into()
            },
            when(key.checked_at, view).into(),
            Cell::toned(&key.vault_status, tone),
        ]);
    }
    table.without_empty_columns().to_string()
}

/// One key with its versions.
pub(crate) fn page(response: &v1::GetKeyResponse, view: &View) -> String {
    let mut page = Page::default();
    if let Some(key) = &response.key {
        page.fact("Key", &key.name);
        page.fact("Location", location(key));
        page.fact("Parts", clean(&parts(key)));
        page.fact("Allowed hosts", key.allowed_hosts.join(", "));
        page.fact("Set", &key.set);
        page.fact("Version", version(key.current_version));
        page.fact("Vault", &key.vault_status);
        page.fact("Checked", when(key.checked_at, view));
    }
    let mut versions = Table::new(&[
        "VERSION",
        "STATE",
        "FINGERPRINT",
        "FIRST SEEN",
        "PROVEN BINDINGS",
        "MAY STILL HOLD IT",
        "SHOWN…",
    ]);
    for version in &response.versions {
        versions.row(vec![
            version.version.to_string().into(),
            words::key_state_cell(version.state),
            fingerprint(&version.fingerprint, view).into(),
            when(version.first_seen, view).into(),
            version.bindings_proven.to_string().into(),
            version.holdings_open.to_string().into(),
            (&version.shown).into(),
        ]);
    }
    page.table("Versions", &versions);
    page.table("Revocation", &revocation(&response.versions));
    page.finish()
}

/// Which of the versions that are no longer wanted may be revoked, and what else stands in the way.
fn revocation(versions: &[v1::KeyVersion]) -> Table {
    let mut table = Table::new(&["VERSION", "STANDS IN THE WAY…"]);
    for version in versions {
        let number = version.version.to_string();
        if version.may_be_revoked {
            let text = "nothing: it may be revoked at the provider";
            table.row(vec![number.into(), Cell::toned(text, Tone::Good)]);
            continue;
        }
        for waits in &version.revoke_waits {
            table.row(vec![
                number.as_str().into(),
                Cell::toned(waits, Tone::Between),
            ]);
        }
    }
    table
}

/// Characters of a fingerprint that are enough to compare by eye.
const FINGERPRINT_CHARS: usize = 12;

/// As much of a fingerprint as is compared by eye; all of it in a wide view.
pub(crate) fn fingerprint(fingerprint: &str, view: &View) -> String {
    if view.wide {
        fingerprint.to_owned()
    } else {
        fingerprint.chars().take(FINGERPRINT_CHARS).collect()
    }
}

fn location(key: &v1::Key) -> String {
    let v1::Key {
        mount, path, field, ..
    } = key;
    if key.parts.is_empty() {
        return format!("{mount}/{path}#{field}");
    }
    let fields: Vec<&str> = key.parts.values().map(String::as_str).collect();
    format!("{mount}/{path}#{}", fields.join("+"))
}

/// Which field of the secret holds which part.
fn parts(key: &v1::Key) -> String {
    let parts = key.parts.iter();
    let parts = parts.map(|(part, field)| format!("{part} in {field}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn version(version: u64) -> String {
    if version == 0 {
        String::new()
    } else {
        version.to_string()
    }
}
