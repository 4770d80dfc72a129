//! The calls of a good Kibana, and its refusals, by version.

use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{Credentials, Error, ProbeResult};
use secrecy::SecretString;
use serde_json::json;

use super::support::*;

/// One for each change in the API or the schema.
const VERSIONS: [&str; 11] = [
    "8.9.0",
    "8.11.0",
    "8.14.0",
    "8.17.0",
    "8.18.0",
    "9.0.0",
    "9.1.0",
    "9.2.0",
    "9.3.0",
    "9.4.0",
    "9.6.0-SNAPSHOT",
];

#[tokio::test]
async fn a_connector_lives_its_whole_life_on_every_version() {
    let (default, soc) = (space("default"), space("soc"));
    for version in VERSIONS {
        let mut options = options(version);
        options.spaces = vec!["default".to_owned(), "soc".to_owned()];
        let kibana = Kibana::with(options).await;
        let client = &kibana.client;
        assert_eq!(client.get(&default, ID).await.unwrap(), None, "{version}");

        let config = config("http://127.0.0.1:1");
        let write = kibana.write(" OpenAI ", &config, GOOD_KEY);
        client.create(&default, ID, &write).await.unwrap();
        let observed = client.get(&default, ID).await.unwrap().unwrap();
        assert_eq!(
            gen_ai().differences(&config.to_string(), "OpenAI", &observed),
            [],
            "{version}"
        );
        let twice = client.create(&default, ID, &write).await.unwrap_err();
        assert!(
            matches!(twice, Error::Conflict { .. }),
            "{version}: {twice}"
        );

        // Ids are global, reads are per space.
        assert_eq!(client.get(&soc, ID).await.unwrap(), None, "{version}");
        let elsewhere = client.create(&soc, ID, &write).await.unwrap_err();
        assert!(
            matches!(elsewhere, Error::Conflict { .. }),
            "{version}: {elsewhere}"
        );

        let renamed = kibana.write("OpenAI two", &config, GOOD_KEY);
        assert_eq!(
            client.update(&default, ID, &renamed).await.unwrap().name,
            "OpenAI two"
        );
        let listed = client.list(&default).await.unwrap();
        assert!(
            listed
                .iter()
                .any(|connector| connector.id == ID && connector.name == "OpenAI two"),
            "{version}"
        );
        assert!(client.delete(&default, ID).await.unwrap(), "{version}");
        assert!(!client.delete(&default, ID).await.unwrap(), "{version}");
        let gone = client.update(&default, ID, &renamed).await.unwrap_err();
        assert!(matches!(gone, Error::Gone { .. }), "{version}: {gone}");
        assert_eq!(gone.class(), FailureClass::Conflict);
    }
}

#[tokio::test]
async fn every_field_is_taken_by_the_version_that_it_needs() {
    for (version, field, value) in [
        ("8.11.0", "defaultModel", json!("gpt-4o")),
        ("8.14.0", "headers", json!({"X-Team": "soc"})),
        ("8.18.0", "organizationId", json!("org-1")),
        ("8.18.0", "projectId", json!("proj_1")),
        ("9.2.0", "contextWindowLength", json!(8000)),
        ("9.3.0", "temperature", json!(0.2)),
    ] {
        let kibana = Kibana::start(version).await;
        let mut config = config("http://127.0.0.1:1");
        config[field] = value;
        kibana.create(&config, GOOD_KEY).await;
        let observed = kibana
            .client
            .get(&space("default"), ID)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            gen_ai().differences(&config.to_string(), "OpenAI", &observed),
            [],
            "{version} {field}"
        );
    }
}

/// What the driver refuses is refused by Kibana too: the text is Kibana's, and it is kept.
#[tokio::test]
async fn kibanas_words_about_config_are_kept() {
    let newer = Kibana::start("9.3.0").await;
    let older = Kibana::start("8.18.0").await;
    let mut config = config("http://127.0.0.1:1");
    config["temperature"] = json!(0.2);
    let write = newer.write("OpenAI", &config, GOOD_KEY);
    let error = older
        .client
        .create(&space("default"), ID, &write)
        .await
        .unwrap_err();
    assert_eq!(error.class(), FailureClass::Rejected);
    assert!(error.to_string().contains("temperature"), "{error}");
}

#[tokio::test]
async fn a_live_call_proves_a_good_key_and_classifies_the_rest() {
    let openai = openai().await;
    for version in ["8.11.0", "8.18.0", "9.1.0", "9.4.0", "9.6.0"] {
        let kibana = Kibana::start(version).await;
        let try_out = async |model: &str, key: &str, faults: serde_json::Value| {
            let config = config_with_model(&openai.url(), model);
            let write = kibana.write("OpenAI", &config, key);
            let default = space("default");
            kibana.client.delete(&default, ID).await.unwrap();
            kibana.client.create(&default, ID, &write).await.unwrap();
            kibana.fault(faults).await;
            let params = probe(&config);
            let execution = kibana.client.execute(&default, ID, &params).await.unwrap();
            kibana.fault(json!({})).await;
            match gen_ai().read_probe(&execution) {
                ProbeResult::Proven { .. } => None,
                ProbeResult::Failed { class, .. } => Some(class),
            }
        };
        let provider = |mode: &str, status: u16| json!({"provider": {"mode": mode, "status": status, "delay_ms": 1}});
        assert_eq!(
            try_out("gpt-4.1", GOOD_KEY, json!({})).await,
            None,
            "{version}"
        );
        assert_eq!(
            try_out("gpt-4.1", "sk-wrong", json!({})).await,
            Some(FailureClass::Auth),
            "{version}"
        );
        assert_eq!(
            try_out("gpt-none", GOOD_KEY, json!({})).await,
            Some(FailureClass::Model),
            "{version}"
        );
        for (mode, status, class) in [
            ("network", 0, FailureClass::Network),
            ("timeout", 0, FailureClass::Timeout),
            ("status", 401, FailureClass::Auth),
            ("status", 500, FailureClass::Provider),
            ("status", 503, FailureClass::Provider),
        ] {
            let found = try_out("gpt-4.1", GOOD_KEY, provider(mode, status)).await;
            assert_eq!(found, Some(class), "{version} {mode} {status}");
        }
    }
}

#[tokio::test]
async fn status_spaces_and_types_are_read() {
    let mut options = options("9.4.1");
    options.name = "soc-kibana".to_owned();
    options.spaces = vec!["soc".to_owned()];
    let kibana = Kibana::with(options).await;
    let status = kibana.client.status().await.unwrap();
    assert_eq!(
        (status.version.to_string().as_str(), status.name.as_str()),
        ("9.4.1", "soc-kibana")
    );
    assert!(status.available && !status.uuid.is_empty() && status.flavor == "traditional");
    let spaces = kibana.client.spaces().await.unwrap();
    assert!(
        spaces
            .iter()
            .any(|found| found.id == space("soc") && found.actions_enabled)
    );
    let types = kibana.client.connector_types().await.unwrap();
    let gen_ai = types.iter().find(|info| info.id == ".gen-ai").unwrap();
    assert!(gen_ai.enabled_in_config && gen_ai.enabled_in_license && !gen_ai.is_deprecated);
    assert_eq!(gen_ai.minimum_license_required, "enterprise");
    kibana.fault(json!({"status_level": "critical"})).await;
    assert!(
        !kibana.client.status().await.unwrap().available,
        "answered with 503"
    );
}

#[tokio::test]
async fn credentials_are_checked() {
    let kibana = Kibana::start("9.4.0").await;
    for credentials in [
        Credentials::ApiKey(SecretString::from("wrong")),
        Credentials::Basic {
            user: "elastic".to_owned(),
            password: SecretString::from("wrong"),
        },
    ] {
        let error = kibana.client_with(credentials).status().await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(!error.is_retryable());
    }
    let plain = kibana.client_with(Credentials::ApiKey(SecretString::from("id:key")));
    assert!(
        plain.status().await.is_ok(),
        "the unencoded form is encoded"
    );
}

#[tokio::test]
async fn refusals_of_a_write_have_a_class() {
    for (faults, class) in [
        (json!({"privilege": "read"}), FailureClass::KibanaAuth),
        (json!({"licence": "basic"}), FailureClass::Licence),
        (json!({"type_disabled": true}), FailureClass::Rejected),
        (
            json!({"encryption_key_missing": true}),
            FailureClass::Encryption,
        ),
    ] {
        for version in ["8.11.0", "9.4.0"] {
            let kibana = Kibana::start(version).await;
            kibana.fault(faults.clone()).await;
            let write = kibana.write("OpenAI", &config("http://127.0.0.1:1"), GOOD_KEY);
            let error = kibana
                .client
                .create(&space("default"), ID, &write)
                .await
                .unwrap_err();
            assert_eq!(error.class(), class, "{version} {faults}: {error}");
            assert!(!error.is_retryable(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_host_that_kibana_may_not_call_is_not_the_definitions_fault() {
    let mut options = options("9.1.0");
    options.allowed_hosts = vec!["api.openai.com".to_owned()];
    let kibana = Kibana::with(options).await;
    let write = kibana.write("OpenAI", &config("http://127.0.0.1:1"), GOOD_KEY);
    let error = kibana
        .client
        .create(&space("default"), ID, &write)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::HostNotAllowed { .. }), "{error}");
    assert_eq!(error.class(), FailureClass::Egress);
}

#[tokio::test]
async fn a_preconfigured_connector_is_not_fought() {
    let mut options = options("9.4.0");
    options.preconfigured = vec![(ID.to_owned(), "From kibana.yml".to_owned())];
    let kibana = Kibana::with(options).await;
    let default = space("default");
    let observed = kibana.client.get(&default, ID).await.unwrap().unwrap();
    assert!(observed.is_preconfigured && observed.config.is_empty());
    let write = kibana.write("OpenAI", &config("http://127.0.0.1:1"), GOOD_KEY);
    for outcome in [
        kibana.client.create(&default, ID, &write).await.map(|_| ()),
        kibana.client.update(&default, ID, &write).await.map(|_| ()),
        kibana.client.delete(&default, ID).await.map(|_| ()),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    }
}

#[tokio::test]
async fn lost_secrets_are_seen_and_a_write_repairs_them() {
    let openai = openai().await;
    let kibana = Kibana::start("9.4.0").await;
    let (client, default) = (&kibana.client, space("default"));
    let config = config_with_model(&openai.url(), "gpt-4.1");
    kibana.create(&config, GOOD_KEY).await;
    let write = kibana.write("OpenAI", &config, GOOD_KEY);
    let params = probe(&config);

    kibana.fault(json!({"undecryptable": true})).await;
    let error = client.execute(&default, ID, &params).await.unwrap_err();
    assert!(matches!(error, Error::Undecryptable { .. }), "{error}");
    client.update(&default, ID, &write).await.unwrap();
    assert!(client.execute(&default, ID, &params).await.unwrap().ok);

    kibana.fault(json!({"secrets_missing": true})).await;
    let observed = client.get(&default, ID).await.unwrap().unwrap();
    let differences = gen_ai().differences(&config.to_string(), "OpenAI", &observed);
    assert_eq!(
        differences
            .iter()
            .map(|d| d.field.as_str())
            .collect::<Vec<_>>(),
        ["secrets"]
    );
    let execution = client.execute(&default, ID, &params).await.unwrap();
    assert!(
        matches!(
            gen_ai().read_probe(&execution),
            ProbeResult::Failed {
                class: FailureClass::Encryption,
                ..
            }
        ),
        "{}",
        execution.message
    );
    client.update(&default, ID, &write).await.unwrap();
    let observed = client.get(&default, ID).await.unwrap().unwrap();
    assert_eq!(
        gen_ai().differences(&config.to_string(), "OpenAI", &observed),
        []
    );
}

#[tokio::test]
async fn a_request_carries_the_headers_of_the_public_api_and_no_others() {
    let (default, soc) = (space("default"), space("soc"));
    let raw = Raw::listen().await;
    let based = client(&format!("{}/base/", raw.url()));
    let (request, _) = tokio::join!(raw.answer(http("200 OK", "", "{}")), based.get(&soc, ID));
    assert!(
        request.starts_with(&format!(
            "get /base/s/soc/api/actions/connector/{ID} http/1.1\r\n"
        )),
        "{request}"
    );
    assert!(
        request.contains("elastic-api-version: 2023-10-31")
            && request.contains("authorization: apikey ")
    );
    assert!(!request.contains("kbn-xsrf"), "{request}");
    let (request, deleted) = tokio::join!(
        raw.answer(b"HTTP/1.1 204 No Content\r\n\r\n"),
        based.delete(&default, ID)
    );
    assert!(deleted.unwrap());
    assert!(
        request.starts_with(&format!("delete /base/api/actions/connector/{ID} ")),
        "{request}"
    );
    assert!(request.contains("kbn-xsrf: keyfleet"), "{request}");
    assert!(
        !request.contains("kbn-version") && !request.contains("internal-origin"),
        "{request}"
    );
}

#[tokio::test]
async fn an_odd_id_stays_inside_its_path() {
    let default = space("default");
    let raw = Raw::listen().await;
    let client = client(&raw.url());
    let answer = http(
        "404 Not Found",
        "",
        r#"{"statusCode":404,"message":"Saved object [action/x] not found"}"#,
    );
    let (request, found) = tokio::join!(raw.answer(&answer), client.get(&default, "a/../b?c#d e"));
    assert!(
        request.starts_with("get /api/actions/connector/a%2f..%2fb%3fc%23d%20e http"),
        "{request}"
    );
    assert_eq!(found.unwrap(), None);
}

#[tokio::test]
async fn a_configured_proxy_is_used() {
    let raw = Raw::listen().await;
    install_tls();
    let mut settings = settings("http://kibana.invalid:5601");
    settings.proxy = Some(raw.url().parse().unwrap());
    let client = keyfleet_kibana::Client::new(settings).unwrap();
    let (request, _) = tokio::join!(raw.answer(http("503 Down", "", "")), client.status());
    assert!(
        request.starts_with("get http://kibana.invalid:5601/api/status "),
        "{request}"
    );
}
