//! What a broken disk, a careless person or a hostile control service may hand to an agent.

use keyfleet_core::id::DeploymentId;
use keyfleet_proto::v1;
use prost::Message as _;
use secrecy::SecretString;

use crate::config::Config;
use crate::enrol::JoinToken;
use crate::identity::{Identity, TokenHash, enrolment_keys};
use crate::ledger::Ledger;
use crate::wish::Desired;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

const WORDS: [&str; 16] = [
    "\"format\":",
    "\"deployment\":",
    "\"bindings\":",
    "\"goal\":",
    "\"revision\":",
    "\"key_version\":",
    "\"applied\":",
    "\"proven_at\":",
    "default/",
    "/",
    "-----BEGIN CERTIFICATE-----\n",
    "-----END ",
    "kfj_",
    ".",
    "Deployment: ",
    "not_after: ",
];

#[test]
fn any_file_in_the_state_directory_is_read_or_set_aside() {
    let deployment: DeploymentId = "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().unwrap();
    xtask::fuzz::run(format!("{CORPUS}/state"), &WORDS, |bytes| {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "ledger.json",
            "desired.pb",
            "rejected.pb",
            "identity.pem",
            "candidate.pem",
            "enrolment.pem",
        ] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let ledger = Ledger::open(dir.path(), deployment).unwrap();
        ledger.desired().unwrap();
        ledger.rejected().unwrap();
        // Read again, it is what was set right.
        drop(Ledger::open(dir.path(), deployment).unwrap());
        if let Err(err) = Identity::load(dir.path()) {
            assert!(err.to_string().contains("identity.pem"), "{err}");
        }
        enrolment_keys(dir.path(), &TokenHash("00".repeat(32))).unwrap();
        let _ = JoinToken::parse(SecretString::from(
            String::from_utf8_lossy(bytes).into_owned(),
        ));
    });
}

#[test]
fn any_desired_state_is_taken_or_refused_by_field() {
    xtask::fuzz::run(format!("{CORPUS}/state"), &WORDS, |bytes| {
        let Ok(wire) = v1::Desired::decode(bytes) else {
            return;
        };
        if let Err(invalid) = Desired::read(wire) {
            assert!(
                !invalid.field.is_empty() && !invalid.problem.is_empty(),
                "{invalid}"
            );
        }
    });
}

#[test]
fn any_settings_are_read_or_refused() {
    let words = [
        "[control]\n",
        "[kibana]\n",
        "address = ",
        "= \"https://",
        "'''",
        "= [[[[",
        "= 1e400\n",
        "{a={a=",
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    xtask::fuzz::run(format!("{CORPUS}/config"), &words, |bytes| {
        std::fs::write(&file, bytes).unwrap();
        if let Err(err) = Config::load(&file) {
            assert!(!err.to_string().is_empty());
        }
    });
}
