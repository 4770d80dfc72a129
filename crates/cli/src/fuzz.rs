//! What a person's files and flags may hold by mistake.

use std::os::unix::fs::PermissionsExt as _;

use crate::{audit, contexts, duration};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

#[test]
fn any_file_of_contexts_is_read_or_refused_by_its_line() {
    let words = [
        "[contexts.",
        "current = ",
        "endpoint = ",
        "token = \"",
        "'''",
        "\"\"\"",
        "= [[[[",
        "{a={a=",
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    xtask::fuzz::run(format!("{CORPUS}/contexts"), &words, |bytes| {
        std::fs::write(&file, bytes).unwrap();
        match contexts::Contexts::load(&file) {
            Ok(read) => {
                read.save(&file).unwrap();
                let again = contexts::Contexts::load(&file).unwrap();
                assert_eq!(again.current, read.current);
                assert!(again.contexts.keys().eq(read.contexts.keys()));
            }
            Err(err) => {
                // The file holds tokens: an error says where it is broken and not what stands there.
                let source = std::error::Error::source(&err).map(ToString::to_string);
                let said = format!("{err}: {}", source.unwrap_or_default());
                assert!(
                    !said.contains("kfo_") && said.contains("config.toml"),
                    "{said}"
                );
            }
        }
    });
}

#[test]
fn any_line_of_an_export_is_read_or_refused_by_its_number() {
    let words = [
        "\"@timestamp\":",
        "\"event\":",
        "\"sequence\":",
        "\"hash\":",
        "\"previous_hash\":",
        "\"outcome\":",
        "{",
        "}",
    ];
    let good = audit::ecs::write(&audit::chain::tests::log(1)[0]);
    assert!(audit::ecs::read(1, &good).is_ok(), "{good}");
    xtask::fuzz::run(format!("{CORPUS}/audit"), &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match audit::ecs::read(7, &text) {
            Ok(link) => {
                let again = audit::ecs::read(7, &audit::ecs::write(&link)).unwrap();
                assert_eq!(again.entry, link.entry);
                let mut chain = audit::chain::Chain::new(Vec::new());
                let _ = chain.push(&link);
                assert!(chain.finish().is_ok_and(|checked| checked.n_entries() <= 1));
            }
            Err(err) => assert!(err.to_string().contains("line 7"), "{err}"),
        }
    });
}

#[test]
fn any_word_of_a_flag_is_taken_or_refused() {
    let words = [
        "h",
        "m",
        "s",
        "d",
        "w",
        "https://",
        "@",
        "[::1]",
        ":",
        "18446744073709551615",
    ];
    xtask::fuzz::run(format!("{CORPUS}/words"), &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(span) = duration::parse(&text) {
            assert!(!span.is_zero());
            assert!(
                duration::parse(&duration::short(span.as_secs())).is_ok(),
                "{span:?}"
            );
        }
        let _ = (
            contexts::check_name(&text),
            contexts::check_token(&text),
            contexts::check_open_proxy(&text),
        );
        if let Ok(endpoint) = contexts::check_endpoint(&text) {
            assert_eq!(contexts::check_endpoint(&endpoint).ok(), Some(endpoint));
        }
    });
}
