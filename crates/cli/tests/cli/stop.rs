//! `keyfleet andon` and `keyfleet ca`: what concerns the whole fleet.

use crate::fake::{Fake, VIEWER};
use crate::harness::{Home, State, check, two_deployments};

#[test]
fn the_fleet_is_stopped_and_goes_on() {
    let home = Home::new(two_deployments());
    home.add_context("view", VIEWER);
    let text = [
        home.run(&["andon", "status"]),
        home.run(&["andon", "on"]),
        home.run(&[
            "andon",
            "on",
            "--reason",
            "wrong model",
            "--context",
            "view",
        ]),
        home.run(&["andon", "on", "--reason", "wrong model"]),
        home.run(&["status"]),
        home.run(&["andon", "off", "--reason", "model corrected"]),
        home.run(&["andon", "status", "-o", "json"]),
    ];
    check("andon", &text.join("\n"));
}

#[test]
fn the_ca_is_rotated() {
    let home = Home::new(two_deployments());
    let finish = ["ca", "finish", "--reason", "key stolen"];
    let text = [
        home.run(&["ca", "show"]),
        home.run(&finish),
        home.run(&["ca", "rotate", "--reason", "yearly"]),
        home.run(&finish),
        home.run(&[&finish[..], &["--yes"]].concat()),
    ];
    check("ca", &text.join("\n"));
}

#[test]
fn whoever_looks_during_a_rotation_trusts_the_next_ca_when_it_has_ended() {
    let rotate = ["ca", "rotate", "--reason", "yearly", "--quiet"];
    let finish = ["ca", "finish", "--reason", "yearly", "--yes"];
    for (looks, expected) in [
        (&[&rotate[..]][..], "exit 0"),
        (&[&["ca", "show"][..], &["ca", "show"]], "exit 0"),
        (&[&finish[..]], "exit 0"),
        (&[&["status"][..]], "exit 3"),
    ] {
        let mut home = Home::new(two_deployments());
        home.fake.state().ca_rotation = Some(false);
        let mut said = 0;
        for look in looks {
            let text = home.run(look);
            said += text.matches("context prod trusts the next CA").count();
        }
        let is_told = looks != [&rotate[..]] && expected == "exit 0";
        assert_eq!(said, usize::from(is_told), "once: {looks:?}");
        let next = home.fake.next.clone();
        home.fake = Fake::start_as(State::default(), next);
        home.run(&["context", "set", "prod", "--endpoint", &home.endpoint()]);
        let after = home.run(&["ca", "show"]);
        assert!(after.starts_with(expected), "{looks:?}: {after}");
    }
}

#[test]
fn a_context_that_cannot_be_written_is_told_of_and_stops_nothing() {
    let home = Home::new(two_deployments());
    home.fake.state().ca_rotation = Some(false);
    let text = std::fs::read_to_string(home.path(".config/keyfleet/config.toml")).unwrap();
    // Beside so long a name there is no room for that of the new file: as good as a disk that cannot be written.
    let name = "c".repeat(250) + ".toml";
    home.write(&name, &text);
    let mut command = home.command(&["ca", "show", "--quiet"]);
    let output = command.env("KEYFLEET_CONFIG", &name).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{err}");
    assert!(err.contains("cannot learn the next CA"), "{err}");
    assert!(err.contains("context set NAME --ca FILE"), "{err}");
    assert_eq!(std::fs::read_to_string(home.path(&name)).unwrap(), text);
}
