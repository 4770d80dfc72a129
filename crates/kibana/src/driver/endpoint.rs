//! Rules for the URL that a connector calls.

use url::Url;

/// The path that Kibana's OpenAI connectors need: they post to the URL as it stands.
const COMPLETIONS: &str = "/chat/completions";
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
        "Kibana posts to this URL as it stands, so it must end with {COMPLETIONS}; write {whole}"
    ))
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
    if hidden {
        format!("{url} (with a user or query that is not shown)")
    } else {
        url.to_string()
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
    fn a_foreign_url_is_shown_without_what_may_be_a_credential() {
        let shown = shown("https://user:canary@h.example/v1?key=canary#canary");
        assert!(
            shown.starts_with("https://h.example/v1 ") && !shown.contains("canary"),
            "{shown}"
        );
        assert_eq!(super::shown("canary"), "not a URL");
    }
}
