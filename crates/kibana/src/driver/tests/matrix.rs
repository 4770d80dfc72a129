//! Holds the handbook's table of versions to the data of the drivers.

use std::fmt::Write as _;

use crate::driver::{DRIVERS, Driver, Feature};
use crate::version::Version;

/// Each release with which something changed, and the newest that is known.
const RELEASES: [(u16, u16); 12] = [
    (8, 9),
    (8, 11),
    (8, 14),
    (8, 15),
    (8, 16),
    (8, 17),
    (8, 18),
    (9, 1),
    (9, 2),
    (9, 3),
    (9, 4),
    (9, 6),
];

fn features() -> impl Iterator<Item = (&'static str, Feature)> {
    let of = |driver: &'static dyn Driver| {
        let kind = driver.connector_type();
        driver
            .features()
            .into_iter()
            .map(move |feature| (kind, feature))
    };
    DRIVERS.into_iter().flat_map(of)
}

/// The table, a row for each field and each part of the key of each provider.
fn matrix() -> String {
    let mut text = String::from("| type | provider | field or part of the key |");
    for (major, minor) in RELEASES {
        let _ = write!(text, " {major}.{minor} |");
    }
    let _ = write!(text, "\n|---|---|---|{}", "---|".repeat(RELEASES.len()));
    for (kind, feature) in features() {
        let provider = if feature.provider.is_empty() {
            "–"
        } else {
            feature.provider
        };
        let marks = match (feature.is_secret, feature.is_required) {
            (false, false) => "",
            (false, true) => " (required)",
            (true, false) => " (key)",
            (true, true) => " (key, required)",
        };
        let _ = write!(
            text,
            "\n| `{kind}` | {provider} | `{}`{marks} |",
            feature.name
        );
        for (major, minor) in RELEASES {
            let is_there = feature.since <= Version::new(major, minor, 0);
            let _ = write!(text, " {} |", if is_there { "yes" } else { "–" });
        }
    }
    text.push('\n');
    text
}

#[test]
fn the_handbook_shows_what_the_drivers_know() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/kibana/versions.md"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let matrix = matrix();
    assert!(
        text.contains(&matrix),
        "deploy/kibana/versions.md must hold this table:\n\n{matrix}"
    );
}

#[test]
fn every_change_has_its_column() {
    for (kind, feature) in features() {
        let since = (feature.since.major, feature.since.minor);
        assert!(RELEASES.contains(&since), "{kind} {feature:?}");
    }
}
