//! The agent's own rules, which control cannot override: what may be written at all, and where a key may travel.

use keyfleet_core::binding::{BindingId, Failure};
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{DeploymentId, SpaceId};

use super::{Place, Wish, join};
use crate::config::Accept;
use crate::hosts::{self, bare};
use crate::said::tidy;

/// The longest id of a connector that is taken from control.
const ID_CHARS_MAX: usize = 255;

impl Wish {
    /// Checks the wish against this agent's own rules.
    ///
    /// # Errors
    /// [`FailureClass::Rejected`] with a sentence that names the rule.
    pub(crate) fn check(
        &self,
        place: &Place,
        deployment: DeploymentId,
        accept: &Accept,
    ) -> Result<(), Failure> {
        let binding = BindingId {
            deployment,
            space: place.space.clone(),
            connector: place.connector.clone(),
        };
        let own = binding.connector_id().as_hyphenated().to_string();
        if self.adopted {
            self.check_adoption(place, accept)?;
        } else if self.connector_id != own {
            return Err(rejected(
                "the connector's id is not the one of this deployment, space and connector",
            ));
        }
        // Our own connector may always go, also from where the agent would put none any more.
        match &self.spec {
            None => Ok(()),
            Some(spec) => self.check_definition(place, spec, accept),
        }
    }

    /// A connector that was there before us: control says which, so it may only say what this agent lets it.
    fn check_adoption(&self, place: &Place, accept: &Accept) -> Result<(), Failure> {
        if !accept.adoption {
            return Err(rejected(
                "this agent lets no connector be adopted that was there before (`accept.adoption`)",
            ));
        }
        // Also of a removal, whose id is somebody else's choice.
        if !listed(&accept.spaces, place.space.as_str()) {
            return Err(not_accepted(&place.space));
        }
        if self.task.is_some() {
            return Err(rejected("an inference endpoint cannot be adopted"));
        }
        // It becomes a segment of a path.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let id = self.connector_id.as_str();
        let is_segment = (1..=ID_CHARS_MAX).contains(&id.len()) && !matches!(id, "." | "..");
        if !is_segment || !id.chars().all(is_plain) {
            return Err(rejected(format!(
                "{id:?} is no id of a connector that can be adopted: at most {ID_CHARS_MAX} letters, digits, dots, hyphens and underscores"
            )));
        }
        Ok(())
    }

    /// Inference endpoints know no spaces.
    fn check_surface(&self, place: &Place) -> Result<(), Failure> {
        if self.task.is_some() && place.space.as_str() != "default" {
            return Err(rejected(
                "an inference endpoint is kept in Elasticsearch, which has no spaces: only the space default may be named",
            ));
        }
        Ok(())
    }

    fn check_definition(
        &self,
        place: &Place,
        spec: &ConnectorSpec,
        accept: &Accept,
    ) -> Result<(), Failure> {
        let kind = &spec.connector_type;
        if !listed(&accept.connector_types, kind) {
            return Err(rejected(format!(
                "this agent does not accept connectors of type {kind} (`accept.connector_types`)"
            )));
        }
        if !listed(&accept.spaces, place.space.as_str()) {
            return Err(not_accepted(&place.space));
        }
        self.check_surface(place)?;
        let Some(driver) = keyfleet_kibana::driver(kind) else {
            return Err(rejected(format!(
                "this agent has no driver for connectors of type {kind}; update the agent"
            )));
        };
        if let Err(problems) = driver.check(&spec.config) {
            return Err(rejected(join(&problems)));
        }
        if let Err(unfit) = driver.check_secret_parts(&spec.config, &self.key_parts, None) {
            return Err(rejected(format!("the key {}: {}", spec.key, unfit.problem)));
        }
        let destination = driver.destination(&spec.config);
        let Some(host) = destination
            .as_ref()
            .and_then(|url| url.host_str())
            .map(bare)
        else {
            return Err(rejected(
                "the definition names no host for the key to travel to",
            ));
        };
        if !listed(&accept.hosts, host) {
            return Err(rejected(format!(
                "this agent lets no key travel to {host} (`accept.hosts`)"
            )));
        }
        // A Key names its hosts one by one: there is no entry for every host.
        let is_host = |allowed: &String| hosts::canonical(allowed).as_deref() == Some(host);
        if !self.allowed_hosts.iter().any(is_host) {
            return Err(rejected(format!(
                "the key {} may not travel to {host} (its allowed hosts)",
                spec.key
            )));
        }
        Ok(())
    }
}

pub(crate) fn listed(list: &[String], value: &str) -> bool {
    list.iter()
        .any(|entry| entry == hosts::ANY || entry == value)
}

fn not_accepted(space: &SpaceId) -> Failure {
    rejected(format!(
        "this agent does not accept the space {space} (`accept.spaces`)"
    ))
}

/// The text may repeat what control sent.
fn rejected(text: impl AsRef<str>) -> Failure {
    Failure {
        class: FailureClass::Rejected,
        text: tidy(text.as_ref()),
    }
}

/// True where one of the agent's own lists names this, or everything.
#[cfg(test)]
mod tests {
    use super::*;
    use keyfleet_core::connector::Probe;
    use keyfleet_core::placement::DriftPolicy;
    use proptest::prelude::*;

    const GOOD: &str = "good.example";

    fn place(space: &str) -> Place {
        Place {
            space: space.parse().unwrap(),
            connector: "assistant".parse().unwrap(),
        }
    }

    /// What the rules say of an adopted connector of any type and host.
    fn judge(space: &str, change: impl FnOnce(&mut Wish, &mut ConnectorSpec)) -> String {
        let mut spec = ConnectorSpec {
            connector_type: ".gen-ai".to_owned(),
            display_name: "OpenAI".to_owned(),
            config: serde_json::json!({"apiProvider": "OpenAI", "apiUrl": format!("https://{GOOD}/v1/chat/completions")})
                .to_string(),
            key: "openai".parse().unwrap(),
            if_supported: Vec::new(),
            probe: Probe::default(),
            replaces: None,
        };
        let mut wish = Wish {
            connector_id: "theirs".to_owned(),
            adopted: true,
            spec: None,
            goal: None,
            drift_policy: DriftPolicy::Correct,
            allowed_hosts: vec![GOOD.to_owned()],
            probe_interval: None,
            key_parts: Vec::new(),
            after: None,
            references_agreed: 0,
            task: None,
        };
        change(&mut wish, &mut spec);
        wish.spec = Some(spec);
        let accept = Accept {
            connector_types: vec!["*".to_owned()],
            hosts: vec!["*".to_owned()],
            spaces: vec!["default".to_owned()],
            adoption: true,
        };
        let deployment = DeploymentId::new(uuid::Uuid::nil());
        let judged = wish.check(&place(space), deployment, &accept);
        judged.map_or_else(|failure| failure.text, |()| String::new())
    }

    #[test]
    fn a_key_gives_exactly_the_parts_that_a_connector_needs() {
        let check = |config: serde_json::Value, parts: &[&str], expected: &str| {
            let text = judge("default", |wish, spec| {
                wish.key_parts = parts.iter().map(|&part| part.to_owned()).collect();
                spec.config = config.to_string();
            });
            match expected {
                "" => assert_eq!(text, "", "{parts:?}"),
                _ => assert!(text.contains(expected), "{parts:?}: {text}"),
            }
        };
        let url = format!("https://{GOOD}/v1/chat/completions");
        let plain = serde_json::json!({"apiProvider": "OpenAI", "apiUrl": url});
        check(plain.clone(), &[], "");
        check(plain.clone(), &["apiKey"], "");
        check(plain.clone(), &["secret"], "apiKey");
        check(plain, &["apiKey", "secret"], "secret");
        let other = serde_json::json!({"apiProvider": "Other", "apiUrl": url, "defaultModel": "m"});
        let certificate = ["certificateData", "privateKeyData"];
        check(other.clone(), &certificate, "");
        check(other, &certificate[..1], "privateKeyData");
    }

    #[test]
    fn an_adopted_id_is_one_plain_segment_of_a_path() {
        let check = |id: &str, is_good: bool| {
            let text = judge("default", |wish, _| id.clone_into(&mut wish.connector_id));
            assert_eq!(text.is_empty(), is_good, "{id:?}: {text}");
        };
        check("a", true);
        check("custom.ssl.noCustom", true);
        check("0A3c_b-1", true);
        check(&"a".repeat(255), true);
        check(&"a".repeat(256), false);
        for bad in [
            "", ".", "..", "a/b", "a%2fb", "a?b", "a b", "a\n", "\u{e4}", "\\",
        ] {
            check(bad, false);
        }
        assert!(judge("soc", |_, _| ()).contains("accept.spaces"));
    }

    fn accepts(url: &str, allowed: &[&str], accepted: &[&str]) -> bool {
        let config =
            serde_json::json!({"apiProvider": "OpenAI", "apiUrl": url, "defaultModel": "m"});
        let place = place("default");
        let deployment = DeploymentId::new(uuid::Uuid::nil());
        let id = BindingId {
            deployment,
            space: place.space.clone(),
            connector: place.connector.clone(),
        };
        let wish = Wish {
            connector_id: id.connector_id().to_string(),
            adopted: false,
            spec: Some(ConnectorSpec {
                connector_type: ".gen-ai".to_owned(),
                display_name: "OpenAI".to_owned(),
                config: config.to_string(),
                key: "openai".parse().unwrap(),
                if_supported: Vec::new(),
                probe: Probe::default(),
                replaces: None,
            }),
            goal: None,
            drift_policy: DriftPolicy::Correct,
            allowed_hosts: allowed.iter().map(|&host| host.to_owned()).collect(),
            probe_interval: None,
            key_parts: Vec::new(),
            after: None,
            references_agreed: 0,
            task: None,
        };
        let accept = Accept {
            connector_types: vec![".gen-ai".to_owned()],
            hosts: accepted.iter().map(|&host| host.to_owned()).collect(),
            spaces: vec!["*".to_owned()],
            adoption: true,
        };
        wish.check(&place, deployment, &accept).is_ok()
    }

    #[test]
    fn a_key_goes_where_both_the_key_and_the_host_allow_it() {
        let url = |host: &str| format!("https://{host}/v1/chat/completions");
        let check = |host: &str, allowed: &[&str], accepted: &[&str], expected: bool| {
            let got = accepts(&url(host), allowed, accepted);
            assert_eq!(got, expected, "{host} {allowed:?} {accepted:?}");
        };
        check(GOOD, &[GOOD], &[GOOD], true);
        check(GOOD, &[GOOD], &["*"], true);
        check(GOOD, &["*"], &["*"], false);
        check(GOOD, &[], &[GOOD], false);
        check(GOOD, &[GOOD], &[], false);
        check("GOOD.example:8443", &["Good.Example:443"], &[GOOD], true);
        check("good.example.", &[GOOD], &[GOOD], false);
        check(
            "a.good.example",
            &[GOOD, ".good.example", "*.good.example"],
            &["*"],
            false,
        );
        check("good.example@evil.example", &[GOOD], &["*"], false);
        check("[::1]:9100", &["[0:0::1]"], &["::1"], true);
        check("[::1]", &["::2"], &["::1"], false);
        check("127.0.0.1:9100", &["127.0.0.1:1"], &["127.0.0.1"], true);
    }

    /// Pieces of which hostile URLs are made.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "good.example",
            "evil.example",
            "GOOD.EXAMPLE",
            "good.example.",
            "@",
            ":",
            "/",
            "//",
            "\\",
            "?",
            "#",
            "%2e",
            "%40",
            "%2f",
            "%00",
            "\t",
            "\n",
            " ",
            "\u{3002}",
            "\u{ff0f}",
            "\u{200b}",
            "\u{ad}",
            "[",
            "]",
            "::1",
            "127.1",
            "0x7f000001",
            ".",
            "-",
            "443",
            "https:",
            "http://",
            "javascript:",
            ";",
            "&",
            "=",
            "|",
            "^",
            "xn--",
            "\u{430}",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_url_sends_a_key_anywhere_else(
            pieces in prop::collection::vec(piece(), 1..8),
            scheme in prop::sample::select(vec!["https://", "http://", "https:", "https:/", "HTTPS://", " https://", ""]),
        ) {
            let url = format!("{scheme}{}/v1/chat/completions", pieces.concat());
            if accepts(&url, &[GOOD], &["*"]) {
                // What Kibana is sent is this text. A careful and a careless reader find the same host in it.
                let careful = url::Url::parse(&url).unwrap();
                prop_assert_eq!(careful.host_str(), Some(GOOD), "{}", url);
                let (_, rest) = url.trim().split_once("://").unwrap();
                let authority = rest.split(['/', '?', '#', '\\']).next().unwrap();
                let careless = authority.split(':').next().unwrap();
                prop_assert!(careless.eq_ignore_ascii_case(GOOD), "{}", url);
                prop_assert!(!authority.contains('@'), "{}", url);
            }
        }
    }
}
