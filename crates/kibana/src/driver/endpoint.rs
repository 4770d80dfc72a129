//! Rules for the URL that a connector calls.

use serde_json::{Map, Value};
use url::Url;

use super::{InvalidConfig, is_plain_text};
use crate::text::one_line;

/// The path that Kibana's OpenAI connectors need: they post to the URL as it stands.
const COMPLETIONS: &str = "/chat/completions";
/// The most of a URL that is shown.
const SHOWN_CHARS_MAX: usize = 300;
/// Query parameters in which gateways take credentials. Config is readable by everyone who may read connectors.
const CREDENTIAL_PARAMETERS: [&str; 6] = [
    "api-key",
    "api_key",
    "apikey",
    "key",
    "token",
    "access_token",
];

/// A URL that Kibana can call and that carries no credential; or what to write instead.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let example = "write a whole URL, such as https://api.openai.com/v1/chat/completions";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("must begin with https:// or http://; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not hold a user or password: everyone who may read connectors sees it".to_owned(),
        );
    }
    check_authority(text, &url)?;
    if url.fragment().is_some() {
        return Err("must not have a part after `#`; remove it".to_owned());
    }
    let carries = |(name, _): (std::borrow::Cow<'_, str>, _)| {
        CREDENTIAL_PARAMETERS
            .iter()
            .any(|parameter| name.eq_ignore_ascii_case(parameter))
    };
    if url.query_pairs().any(carries) {
        return Err(
            "must not hold a key in its query: everyone who may read connectors sees it".to_owned(),
        );
    }
    Ok(url)
}

/// Readers of URLs differ in how they mend one: a backslash, a tab, a dot too many, letters beyond ASCII, an address as
/// one number. So the host must stand there as every reader writes it, and nobody can read another one.
fn check_authority(text: &str, url: &Url) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    let plain = format!("{}://{host}", url.scheme());
    let written = text.get(..plain.len()).unwrap_or_default();
    let rest = text.get(plain.len()..).unwrap_or_default();
    let after_port = rest.strip_prefix(':').map_or(rest, |port| {
        port.trim_start_matches(|c: char| c.is_ascii_digit())
    });
    let ends = after_port.is_empty() || after_port.starts_with(['/', '?', '#']);
    if !written.eq_ignore_ascii_case(&plain) || !ends {
        return Err(format!(
            "names its host in a way that not every reader understands alike; write {plain} and then the path"
        ));
    }
    if host.ends_with('.') {
        return Err("has a dot at the end of its host; remove it".to_owned());
    }
    if text.contains('\\') || !is_plain_text(text) {
        return Err("holds a backslash or a character that nobody sees; remove it".to_owned());
    }
    Ok(())
}

/// Holds a field to a rule of its type. Says nothing about a URL that the table of fields refuses already.
pub(super) fn check_field(
    path: &str,
    fields: &Map<String, Value>,
    name: &str,
    check: impl Fn(&Url) -> Result<(), String>,
) -> Vec<InvalidConfig> {
    let url = fields.get(name).and_then(Value::as_str);
    let url = url.and_then(|text| parse(text).ok());
    let problem = url.and_then(|url| check(&url).err());
    let invalid = problem.map(|problem| InvalidConfig::new(format!("{path}.{name}"), problem));
    invalid.into_iter().collect()
}

/// Kibana puts its own path behind the URL, so that nothing may stand there.
pub(super) fn check_bare(url: &Url) -> Result<(), String> {
    if url.path() == "/" && url.query().is_none() {
        return Ok(());
    }
    Err(format!(
        "Kibana puts the path of the call behind it, so that only the host may stand here; write {}",
        one_line(&url.origin().ascii_serialization(), SHOWN_CHARS_MAX)
    ))
}

/// Kibana takes any URL and only the first live call shows that the path is wrong; so it is checked here.
pub(super) fn check_completions(url: &Url) -> Result<(), String> {
    let path = url.path().trim_end_matches('/');
    if path.ends_with(COMPLETIONS) {
        return Ok(());
    }
    let base = path
        .strip_suffix("/responses")
        .or_else(|| path.strip_suffix("/completions"))
        .unwrap_or(path);
    let base = base
        .strip_suffix("/chat")
        .or_else(|| base.strip_suffix("/models"))
        .unwrap_or(base);
    let mut whole = url.clone();
    whole.set_path(&format!(
        "{}{COMPLETIONS}",
        if base.is_empty() { "/v1" } else { base }
    ));
    Err(format!(
        "Kibana posts to this URL as it stands, so it must end with {COMPLETIONS}; write {}",
        one_line(whole.as_str(), SHOWN_CHARS_MAX)
    ))
}

/// Azure has a URL for each deployment of a model, and takes no request without its `api-version`.
pub(super) fn check_azure(url: &Url) -> Result<(), String> {
    let example = "write the whole URL of the deployment, such as \
        https://RESOURCE.openai.azure.com/openai/deployments/DEPLOYMENT/chat/completions?api-version=VERSION";
    let path = url.path().trim_end_matches('/');
    let before = path.strip_suffix(COMPLETIONS);
    let deployment = before.and_then(|path| path.rsplit_once("/deployments/"));
    if !deployment.is_some_and(|(_, name)| !name.is_empty() && !name.contains('/')) {
        return Err(format!("must name the deployment of the model; {example}"));
    }
    let is_version = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        name == "api-version" && !value.is_empty()
    };
    if !url.query_pairs().any(is_version) {
        return Err(format!("must name the api-version; {example}"));
    }
    Ok(())
}

/// A URL found in Kibana, for people: what may be a credential is left out.
pub(super) fn shown(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return "not a URL".to_owned();
    };
    let hidden = !url.username().is_empty() || url.password().is_some() || url.query().is_some();
    // Both fail only for URLs that have no user at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    let shown = one_line(url.as_str(), SHOWN_CHARS_MAX);
    if hidden {
        format!("{shown} (with a user or query that is not shown)")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, says: &str) {
        let outcome = parse(text).and_then(|url| check_completions(&url));
        match outcome {
            Ok(()) => assert_eq!(says, "", "{text}"),
            Err(problem) => assert!(
                !says.is_empty() && problem.contains(says),
                "{text}: {problem}"
            ),
        }
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_with_the_one_that_can() {
        check("https://api.openai.com/v1/chat/completions", "");
        check("https://api.openai.com/v1/chat/completions/", "");
        check("http://127.0.0.1:9100/v1/chat/completions", "");
        check(
            "https://gateway.example.com/openai/chat/completions?tenant=a",
            "",
        );
        check(
            "https://api.openai.com/v1",
            "write https://api.openai.com/v1/chat/completions",
        );
        check(
            "https://api.openai.com/v1/",
            "write https://api.openai.com/v1/chat/completions",
        );
        check(
            "https://api.openai.com",
            "write https://api.openai.com/v1/chat/completions",
        );
        check(
            "https://api.openai.com/v1/chat",
            "write https://api.openai.com/v1/chat/completions",
        );
        check(
            "https://api.openai.com/v1/completions",
            "write https://api.openai.com/v1/chat/completions",
        );
        check(
            "https://api.openai.com/v1/responses",
            "write https://api.openai.com/v1/chat/completions",
        );
        check("api.openai.com/v1/chat/completions", "is not a URL");
        check("localhost:9100/v1/chat/completions", "must begin with");
        check(
            "ftp://api.openai.com/v1/chat/completions",
            "must begin with",
        );
        check("https://u:p@h/v1/chat/completions", "user or password");
        check("https://h/v1/chat/completions#x", "#");
        check(
            "https://h/v1/chat/completions?API-Key=x",
            "key in its query",
        );
        check("", "is not a URL");
    }

    #[test]
    fn azure_needs_deployment_and_api_version() {
        for (text, says) in [
            (
                "https://r.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
                "",
            ),
            (
                "https://gateway.example/team/deployments/gpt/chat/completions/?api-version=2024-10-21&tenant=a",
                "",
            ),
            (
                "https://r.openai.azure.com/openai/deployments/gpt/chat/completions",
                "api-version",
            ),
            (
                "https://r.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=",
                "api-version",
            ),
            (
                "https://r.openai.azure.com/openai/deployments//chat/completions?api-version=1",
                "deployment",
            ),
            (
                "https://r.openai.azure.com/openai/deployments/a/b/chat/completions?api-version=1",
                "deployment",
            ),
            (
                "https://r.openai.azure.com/openai/v1/chat/completions",
                "deployment",
            ),
            ("https://r.openai.azure.com", "deployment"),
        ] {
            let problem = check_azure(&parse(text).unwrap()).err().unwrap_or_default();
            assert_eq!(problem.is_empty(), says.is_empty(), "{text}: {problem}");
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn a_host_stands_there_as_every_reader_reads_it() {
        let with = |authority: &str| format!("https://{authority}/v1/chat/completions");
        for good in [
            "api.openai.com",
            "API.OpenAI.com:443",
            "[::1]:9100",
            "10.0.0.1",
            "xn--pi-xqa.example",
        ] {
            check(&with(good), "");
        }
        let alike = "not every reader understands alike";
        for bad in [
            "аpi.openai.com",
            "api。openai。com",
            "api.openai%2ecom",
            "2130706433",
            "0x7f.1",
            "127.1",
            "[0:0:0:0:0:0:0:1]",
            "api.openai.com\\@evil.example",
            "evil.example\\.api.openai.com",
            "/api.openai.com",
        ] {
            check(&with(bad), alike);
        }
        check(&with("api.openai.com."), "dot at the end");
        check(&with("api.openai.com@evil.example"), "user or password");
        check("https:api.openai.com/v1/chat/completions", alike);
        check("https:\\\\api.openai.com/v1/chat/completions", alike);
        check("https://api.op\tenai.com/v1/chat/completions", alike);
        check("\thttps://api.openai.com/v1/chat/completions", alike);
        check("https://api.openai.com/v1\\chat/completions", "backslash");
        check(
            "https://api.openai.com/\u{202e}v1/chat/completions",
            "nobody sees",
        );
    }

    #[test]
    fn a_foreign_url_is_shown_without_what_may_be_a_credential() {
        let shown = shown("https://user:canary@h.example/v1?key=canary#canary");
        assert!(
            shown.starts_with("https://h.example/v1 ") && !shown.contains("canary"),
            "{shown}"
        );
        assert_eq!(super::shown("canary"), "not a URL");
    }
}
