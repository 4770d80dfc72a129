//! `keyfleet delete`: what it takes away is shown before it is gone.

use crate::harness::{Home, check, two_deployments};

#[test]
fn objects_are_deleted() {
    let mut state = two_deployments();
    for (kind, name) in [
        ("Placement", "everywhere"),
        ("Connector", "assistant"),
        ("Strategy", "careful"),
    ] {
        state.objects.insert((kind.into(), name.into()), "x".into());
    }
    let home = Home::new(state);
    let text = [
        home.run(&["delete", "connector", "assistant", "--reason", "old"]),
        home.run(&["delete", "placement", "everywhere", "--dry-run"]),
        home.run(&["delete", "placement", "everywhere"]),
        home.run(&["delete", "placement", "everywhere", "--reason", "old"]),
        home.run(&[
            "delete",
            "Placement",
            "everywhere",
            "--reason",
            "old",
            "--yes",
        ]),
        home.run(&["delete", "connectors", "assistant", "--reason", "old"]),
        home.run(&[
            "delete", "strategy", "careful", "--reason", "old", "-o", "json",
        ]),
        home.run(&["delete", "strategy", "careful", "--reason", "old", "--yes"]),
        home.run(&["delete", "deployment", "kibana-a", "--reason", "old"]),
    ];
    check("delete", &text.join("\n"));
    assert!(home.fake.state().objects.is_empty());
}
