//! Hosts, and where keys and questions may go.

use super::*;

fn key(hosts: &[&str]) -> Key {
    Key {
        name: "openai".parse().unwrap(),
        location: location("secret", "keyfleet/openai"),
        allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        scope: Selector::default(),
        rotation: crate::key::Rotation::default(),
    }
}

fn location(mount: &str, path: &str) -> KeyLocation {
    KeyLocation {
        mount: mount.to_owned(),
        path: path.to_owned(),
        field: "api_key".into(),
    }
}

/// `outcome` is empty where the key may go, else a part of the sentence.
fn check(url: &str, outbound: &[&str], outcome: &str) {
    let key = key(&["api.openai.com", "x.gateway.example", "[::1]", "127.0.0.1"]);
    let outbound: Vec<HostPattern> = outbound.iter().map(|o| o.parse().unwrap()).collect();
    let url = Url::parse(url).unwrap();
    let said = may_travel(&key, Some(&url), &outbound)
        .map_or_else(|stays| stays.to_string(), |()| String::new());
    let is_right = said.contains(outcome) && said.is_empty() == outcome.is_empty();
    assert!(is_right, "{url}: {said:?}, not {outcome:?}");
}

#[test]
fn a_key_travels_where_both_its_key_and_the_settings_allow() {
    let usual = ["api.openai.com", "*.gateway.example", "[::1]"];
    check("https://api.openai.com/v1/chat/completions", &usual, "");
    check("https://API.OpenAI.com:8443/v1", &usual, "");
    check("https://x.gateway.example/v1", &usual, "");
    check("http://[::1]:9/v1", &usual, "");
    check("http://[0:0:0:0:0:0:0:1]/v1", &usual, "");
    check(
        "https://api.openai.com./v1",
        &usual,
        "not to api.openai.com.",
    );
    check(
        "https://api.openai.com@evil.example/v1",
        &usual,
        "not to evil.example",
    );
    check(
        "https://api.openai.com.evil.example/v1",
        &usual,
        "not to api.openai.com.evil",
    );
    check(
        "https://evil.example\\@api.openai.com/v1",
        &usual,
        "not to evil.example",
    );
    check("https://аpi.openai.com/v1", &usual, "not to xn--");
    check(
        "https://x.api.openai.com/v1",
        &usual,
        "not to x.api.openai.com",
    );
    check(
        "https://[::ffff:7f00:1]/v1",
        &usual,
        "not to [::ffff:7f00:1]",
    );
    check(
        "http://127.0.0.1/v1",
        &usual,
        "setting outbound.allowed_hosts",
    );
    check(
        "http://2130706433/v1",
        &usual,
        "setting outbound.allowed_hosts",
    );
    check("https://api.openai.com/v1", &[], "to nowhere only");
    check("http://api.openai.com/v1", &usual, "unencrypted");
    check("http://api.openai.com/v1", &["http://api.openai.com"], "");
    check(
        "https://x.gateway.example/v1",
        &["gateway.example"],
        "may not travel",
    );
    check(
        "https://x.gateway.example/v1",
        &["*.y.gateway.example"],
        "may not travel",
    );
}

#[test]
fn a_gate_may_ask_hosts_of_the_settings_only() {
    let check = |url: &str, allowed: &[&str], text: &str| {
        let allowed: Vec<AskedHost> = allowed.iter().map(|a| a.parse().unwrap()).collect();
        let said = may_ask(&url.parse().unwrap(), &allowed);
        let said = said.map_or_else(|err| err.to_string(), |()| String::new());
        assert_eq!(said.is_empty(), text.is_empty(), "{url}: {said}");
        assert!(said.contains(text), "{url}: {said}");
    };
    let usual = [
        "prometheus.example",
        "*.ops.example",
        "127.0.0.1",
        "[::1]",
        "localhost",
    ];
    check("https://prometheus.example/a?b", &usual, "");
    check("https://PROMETHEUS.example", &usual, "");
    check("https://PROMETHEUS.example:443", &usual, "");
    check("https://a.ops.example/", &usual, "");
    check("http://127.0.0.1/", &usual, "");
    check("http://[::1]/", &usual, "");
    check("http://localhost/", &usual, "");
    check(
        "https://ops.example/",
        &usual,
        "ops.example may not be asked: add it",
    );
    check(
        "https://prometheus.example.evil/",
        &usual,
        "may not be asked",
    );
    check(
        "https://a/",
        &[],
        "gates.allowed_hosts of the control service, which lists none",
    );
    check("http://127.0.0.2/", &usual, "127.0.0.2 may not be asked");
    check("http://169.254.169.254/", &usual, "may not be asked");
    check(
        "http://prometheus.example/",
        &usual,
        "unencrypted: write https://prometheus.example",
    );
    check(
        "http://prometheus.example/",
        &["http://prometheus.example"],
        "",
    );
    for wrong in [
        "https://user@localhost/",
        "https://:pass@localhost/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "data:localhost",
    ] {
        check(wrong, &usual, "without user and password");
    }
}

#[test]
fn a_gate_may_ask_the_ports_of_the_settings_only() {
    let check = |url: &str, allowed: &str, may: bool| {
        let allowed: AskedHost = allowed.parse().unwrap();
        let said = may_ask(&url.parse().unwrap(), &[allowed]);
        assert_eq!(said.is_ok(), may, "{url}: {said:?}");
    };
    check("https://a.example:9090/", "a.example", false);
    check("https://a.example:9090/", "a.example:9090", true);
    check("https://a.example:9091/", "a.example:9090", false);
    check("https://a.example/", "a.example:9090", false);
    check("https://a.example/", "a.example:443", true);
    check("https://a.example:80/", "a.example", false);
    check("http://a.example/", "http://a.example", true);
    check("http://a.example:443/", "http://a.example", false);
    check("http://a.example:9090/", "http://a.example:9090", true);
    check("http://a.example:9090/", "a.example:9090", false);
    check("https://x.a.example:9090/", "*.a.example:9090", true);
    check("https://x.a.example/", "*.a.example:9090", false);
    check("http://[::1]:9090/", "[::1]:9090", true);
    check("http://[::1]:9090/", "[::1]", false);
    check("http://127.0.0.1:22/", "127.0.0.1", false);
    let listed: AskedHost = "a.example".parse().unwrap();
    let said = may_ask(&"https://a.example:9090/".parse().unwrap(), &[listed]);
    let expected = "a.example:9090 may not be asked: add it to the setting gates.allowed_hosts of the control service, which lists a.example";
    assert_eq!(said.unwrap_err().to_string(), expected);
}

#[test]
fn whom_to_ask_is_a_host_with_or_without_a_port() {
    for text in [
        "a.example",
        "a.example:9090",
        "http://*.a.example:1",
        "127.0.0.1:65535",
        "[::1]",
        "[::1]:9090",
    ] {
        assert_eq!(text.parse::<AskedHost>().unwrap().to_string(), text);
    }
    for (text, problem) in [
        ("a.example:0", "from 1 to 65535"),
        ("a.example:65536", "from 1 to 65535"),
        ("a.example:", "is not a host"),
        ("a.example:http", "is not a host"),
        ("a.example:9090/x", "is not a host"),
        ("https://a.example:9090", "is not a host"),
        ("::1", "is not a host"),
        ("", "is not a host"),
    ] {
        let said = text.parse::<AskedHost>().unwrap_err().to_string();
        assert!(said.contains(problem), "{text}: {said}");
    }
}

#[test]
fn a_domain_stands_for_what_lies_below_it() {
    let pattern: HostPattern = "*.example.org".parse().unwrap();
    for (host, fits) in [
        ("a.example.org", true),
        ("a.b.example.org", true),
        ("example.org", false),
        (".example.org", false),
        ("aexample.org", false),
        ("a.example.org.evil", false),
    ] {
        assert_eq!(pattern.matches(host), fits, "{host}");
    }
    for text in [
        "a.example",
        "*.a.example",
        "http://a.example",
        "http://*.a.example",
    ] {
        assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
    }
    for bad in [
        "",
        "*",
        "*.",
        "a.*",
        "https://a",
        "a:443",
        "a/b",
        "a.",
        "ä.example",
        "1.2.3",
        "a b",
        "u@a",
    ] {
        assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
    }
}

#[test]
fn a_key_is_sent_within_its_scope_only() {
    let mut key = key(&["api.openai.com"]);
    key.scope = "env=prod".parse().unwrap();
    let to = Url::parse("https://api.openai.com/v1").unwrap();
    let outbound = ["api.openai.com".parse().unwrap()];
    let prod = Labels::from([("env".to_owned(), "prod".to_owned())]);
    assert_eq!(may_be_sent(&key, Some(&to), &prod, &outbound), Ok(()));
    let said = may_be_sent(&key, Some(&to), &Labels::new(), &outbound).unwrap_err();
    assert!(
        said.to_string().contains("only be used where env=prod"),
        "{said}"
    );
    let said = may_be_sent(&key, None, &prod, &outbound).unwrap_err();
    assert!(matches!(said, Stays::NoDestination { .. }), "{said}");
}

#[test]
fn only_what_lies_below_an_allowed_beginning_serves_as_a_key() {
    let below = ["secret/keyfleet/".to_owned(), "kv/one/key".to_owned()];
    let check = |mount: &str, path: &str, allowed: bool| {
        let found = may_serve(&location(mount, path), &below);
        assert_eq!(found.is_ok(), allowed, "{mount} {path}: {found:?}");
    };
    check("secret", "keyfleet/openai", true);
    check("secret", "keyfleet/team/openai", true);
    check("secret/keyfleet", "openai", true);
    check("kv", "one/key", true);
    check("kv", "one/key/below", true);
    check("kv", "one/keys", false);
    check("secret", "keyfleet", false);
    check("secret", "keyfleet-admin/openai", false);
    check("secret", "other", false);
    for path in [
        "keyfleet/../admin",
        "keyfleet/..",
        "keyfleet//openai",
        "/keyfleet/openai",
        "keyfleet/openai/",
        "keyfleet/./openai",
        "keyfleet/%2e%2e/admin",
        "keyfleet/%2fadmin",
        "keyfleet\\..\\admin",
        "keyfleet/open ai",
        "keyfleet/a?b",
        "keyfleet/a#b",
        "keyfleet/*",
        "keyfleet/ä",
        "keyfleet/\u{202e}a",
        "",
    ] {
        check("secret", path, false);
    }
    for mount in ["", "/secret", "secret/", "secret/../secret", "SECRET"] {
        check(mount, "keyfleet/openai", false);
    }
    for beginnings in [vec![], vec![String::new()], vec!["/".to_owned()]] {
        assert!(may_serve(&location("secret", "keyfleet/openai"), &beginnings).is_err());
    }
}
