//! What strangers hand to control before anybody knows who they are, and what an operator's settings may hold.

use rustls::pki_types::CertificateDer;

use crate::{ca, config};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

#[test]
fn any_certificate_and_any_request_is_read_or_refused() {
    // Tags and lengths of DER (X.690), and the name that makes a certificate an agent's.
    let words = [
        "\u{30}\u{3}\u{2}\u{1}\u{0}",
        "\u{6}\u{3}\u{55}\u{1d}\u{11}",
        "\u{2}\u{1}\u{0}",
        "\u{5}\u{0}",
        "urn:keyfleet:v1:",
        ":18446744073709551616",
        ":0",
        ":",
    ];
    xtask::fuzz::run(format!("{CORPUS}/certificates"), &words, |bytes| {
        let certificate = CertificateDer::from(bytes);
        if let Some(identity) = ca::identity(&certificate) {
            // The serial number goes into the database and the history.
            assert!(identity.serial.len() <= 2 * bytes.len());
        }
        let _ = ca::Request::read(bytes);
    });
}

#[test]
fn any_settings_are_read_or_refused_by_name() {
    let words = [
        "[agents]\n",
        "[vault]\n",
        "[[x]]\n",
        "listen = ",
        "names = ",
        "\"",
        "'''",
        "\"\"\"",
        "= 1e400\n",
        "= [[[[",
        "{a={a=",
        "0x",
        "1979-05-27T07:32:00Z",
        "address = \"http://",
        "allowed_hosts = [\"*.",
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("control.toml");
    xtask::fuzz::run(format!("{CORPUS}/config"), &words, |bytes| {
        std::fs::write(&file, bytes).unwrap();
        match config::load(Some(&file), None) {
            Ok(config) => assert!(!config.data_dir.as_os_str().is_empty()),
            Err(config::Error::Invalid { name, problem }) => {
                assert!(!name.is_empty() && !problem.is_empty());
            }
            Err(config::Error::Unknown { name }) => assert!(!name.is_empty()),
            Err(config::Error::Read(err)) => assert!(!err.to_string().is_empty()),
        }
    });
}
