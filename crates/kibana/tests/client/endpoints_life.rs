//! Inference endpoints from their creation to their end, on a simulated Elasticsearch of each version.

use keyfleet_core::connector::Probe;
use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{
    CheckName, CheckOutcome, Driver, Error, ProbeResult, Wanted, Write, driver, preflight,
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::support::*;

/// The versions at which something changed, and the tasks that each has.
const VERSIONS: [(&str, &[&str]); 5] = [
    ("8.17.0", &["completion"]),
    ("8.18.0", &["completion", "chat_completion"]),
    ("9.1.0", &["completion", "chat_completion"]),
    ("9.3.0", &["completion", "chat_completion"]),
    ("9.6.0-SNAPSHOT", &["completion", "chat_completion"]),
];

fn endpoint() -> &'static dyn Driver {
    driver("inference-endpoint").unwrap()
}

fn definition(task: &str) -> Value {
    json!({"service": "openai", "taskType": task, "modelId": "gpt-4.1"})
}

impl Kibana {
    fn endpoint(&self, task: &str, key: &str) -> Write {
        let secret = SecretString::from(key);
        let config = definition(task).to_string();
        endpoint()
            .render(&config, "OpenAI", &key_value(&secret), &self.version)
            .unwrap()
    }

    /// The class of what a live call found; `None`: it works.
    async fn try_out(&self, task: &str) -> Option<FailureClass> {
        let body = endpoint().probe(&definition(task).to_string(), &Probe::default());
        let execution = self.client.try_endpoint(task, ID, &body).await.unwrap();
        match endpoint().read_probe(&execution) {
            ProbeResult::Proven { .. } => None,
            ProbeResult::Failed { class, .. } => Some(class),
        }
    }
}

#[tokio::test]
async fn an_endpoint_lives_its_whole_life_on_every_version() {
    let openai = openai().await;
    for (version, tasks) in VERSIONS {
        for task in tasks {
            let kibana = Kibana::with_elasticsearch(version, &openai.url()).await;
            let client = &kibana.client;
            let (good, wrong) = (
                kibana.endpoint(task, GOOD_KEY),
                kibana.endpoint(task, "sk-wrong"),
            );
            assert_eq!(client.get_endpoint(task, ID).await.unwrap(), None);
            let error = client.create_endpoint(task, ID, &wrong).await.unwrap_err();
            assert!(matches!(error, Error::ProviderRefused { .. }), "{error}");
            assert_eq!(error.class(), FailureClass::Auth, "{version} {task}");
            assert_eq!(client.get_endpoint(task, ID).await.unwrap(), None);

            client.create_endpoint(task, ID, &good).await.unwrap();
            let observed = client.get_endpoint(task, ID).await.unwrap().unwrap();
            let config = definition(task).to_string();
            assert_eq!(endpoint().differences(&config, "OpenAI", &observed), []);
            assert_eq!(kibana.try_out(task).await, None, "{version} {task}");
            let twice = client.create_endpoint(task, ID, &good).await.unwrap_err();
            assert!(matches!(twice, Error::Conflict { .. }), "{twice}");

            match client.update_endpoint(task, ID, &wrong).await {
                // Older ones store a key without a look at it, and the live call tells.
                Ok(_) => assert_eq!(kibana.try_out(task).await, Some(FailureClass::Auth)),
                Err(error) => {
                    assert_eq!(error.class(), FailureClass::Auth, "{version}: {error}");
                    assert_eq!(
                        kibana.try_out(task).await,
                        None,
                        "the old key is still there"
                    );
                }
            }
            client.update_endpoint(task, ID, &good).await.unwrap();
            assert_eq!(kibana.try_out(task).await, None, "{version} {task}");

            assert!(client.delete_endpoint(task, ID).await.unwrap());
            assert!(!client.delete_endpoint(task, ID).await.unwrap());
            let gone = client.update_endpoint(task, ID, &good).await.unwrap_err();
            assert!(matches!(gone, Error::Gone { .. }), "{gone}");
        }
    }
}

#[tokio::test]
async fn a_live_call_tells_the_provider_from_elasticsearch() {
    let openai = openai().await;
    let kibana = Kibana::with_elasticsearch("9.4.0", &openai.url()).await;
    for task in ["completion", "chat_completion"] {
        let write = kibana.endpoint(task, GOOD_KEY);
        kibana
            .client
            .create_endpoint(task, ID, &write)
            .await
            .unwrap();
        for (mode, status, class) in [
            ("network", 0, FailureClass::Network),
            ("timeout", 0, FailureClass::Timeout),
            ("status", 401, FailureClass::Auth),
            ("status", 404, FailureClass::Model),
            ("status", 429, FailureClass::RateLimit),
            ("status", 500, FailureClass::Provider),
            ("status", 503, FailureClass::Provider),
        ] {
            let fault = json!({"mode": mode, "status": status, "delay_ms": 1});
            kibana.elastic_fault(json!({"provider": fault})).await;
            let found = kibana.try_out(task).await;
            assert_eq!(found, Some(class), "{task} {mode} {status}");
            // A create meets the same in the call by which Elasticsearch tries it.
            let id = "1d1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b11";
            let error = kibana.client.create_endpoint(task, id, &write).await;
            assert_eq!(error.unwrap_err().class(), class, "{task} {mode} {status}");
        }
        kibana.elastic_fault(json!({})).await;
        kibana.client.delete_endpoint(task, ID).await.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_of_another_task_is_somebody_elses() {
    let openai = openai().await;
    let kibana = Kibana::with_elasticsearch("9.4.0", &openai.url()).await;
    let write = kibana.endpoint("completion", GOOD_KEY);
    let client = &kibana.client;
    client
        .create_endpoint("completion", ID, &write)
        .await
        .unwrap();
    let error = client
        .get_endpoint("chat_completion", ID)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
}

#[tokio::test]
async fn lacking_rights_and_licence_have_a_class() {
    let openai = openai().await;
    let kibana = Kibana::with_elasticsearch("9.4.0", &openai.url()).await;
    let write = kibana.endpoint("completion", GOOD_KEY);
    let create = async || {
        let made = kibana
            .client
            .create_endpoint("completion", ID, &write)
            .await;
        made.unwrap_err().class()
    };
    kibana.fault(json!({"licence": "basic"})).await;
    assert_eq!(create().await, FailureClass::Licence);
    kibana.fault(json!({})).await;
    for (privilege, expected) in [
        ("none", CheckOutcome::Failed),
        ("monitor", CheckOutcome::Failed),
        ("manage", CheckOutcome::Ok),
    ] {
        kibana.elastic_fault(json!({"privilege": privilege})).await;
        let wanted = Wanted {
            types: &["inference-endpoint"],
            spaces: &[space("default")],
            privileges: true,
            now: jiff::Timestamp::now(),
        };
        let found = preflight(&kibana.client, &wanted).await;
        assert_eq!(found.problems, []);
        let mut checks = found.checks.iter();
        let check = checks.find(|check| check.name == CheckName::Elasticsearch);
        assert_eq!(check.unwrap().outcome, expected, "{check:?}");
        if expected == CheckOutcome::Failed {
            assert_eq!(create().await, FailureClass::KibanaAuth);
        }
    }
}
