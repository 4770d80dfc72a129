//! Holds the handbook's table of versions to the data of the drivers.

use std::fmt::Write as _;

use super::gen_ai;
use crate::version::Version;

/// Each release with which something changed, and the newest that is known.
const RELEASES: [(u16, u16); 9] = [
    (8, 9),
    (8, 11),
    (8, 14),
    (8, 17),
    (8, 18),
    (9, 1),
    (9, 2),
    (9, 3),
    (9, 6),
];

/// The table, a row for each field of each provider.
fn matrix() -> String {
    let mut text = String::from("| provider | field |");
    for (major, minor) in RELEASES {
        let _ = write!(text, " {major}.{minor} |");
    }
    let _ = write!(text, "\n|---|---|{}", "---|".repeat(RELEASES.len()));
    for feature in gen_ai().features() {
        let needed = if feature.is_required {
            " (required)"
        } else {
            ""
        };
        let _ = write!(
            text,
            "\n| {} | `{}`{needed} |",
            feature.provider, feature.field
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
    for feature in gen_ai().features() {
        let since = (feature.since.major, feature.since.minor);
        assert!(RELEASES.contains(&since), "{feature:?}");
    }
}
