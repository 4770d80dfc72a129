//! Through an HTTP proxy, to control and to Kibana.

use keyfleet_agent::config::Config;
use keyfleet_agent::proxy::Proxy;
use keyfleet_proto::v1::BindingState;
use keyfleet_sim::{proxy, server::Server};
use serde_json::Value;

use crate::harness::{Harness, PLACE};

const USER: &str = "agent:c%40nary";

async fn start(user: Option<&str>, deny: Vec<String>) -> Server {
    let mut options = proxy::Options::new();
    options.user = user.map(str::to_owned);
    options.deny = deny;
    proxy::start(options).await.unwrap()
}

fn way(proxy: &str, destination: &str) -> Option<Proxy> {
    Proxy::choose(Some(proxy), &[], &destination.parse().unwrap()).unwrap()
}

/// Both ways lead through this proxy.
fn through(harness: &Harness, proxy: &str) -> Config {
    let mut config = harness.config();
    config.control.proxy = way(proxy, &format!("https://{}", harness.control.address));
    config.kibana.proxy = way(proxy, &harness.kibana.url());
    config
}

/// What a proxy was asked for: method, destination, status.
async fn seen(harness: &Harness, proxy: &Server) -> Vec<(String, String, u64)> {
    let url = format!("{}/_sim/requests", proxy.url());
    let answer: Value = harness
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let requests = answer["requests"].as_array().unwrap().iter();
    requests
        .map(|entry| {
            (
                text(&entry["method"]),
                text(&entry["target"]),
                entry["status"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn everything_works_through_a_proxy_that_wants_a_password() {
    let mut harness = Harness::start().await;
    let proxy = start(Some("agent:c@nary"), Vec::new()).await;
    let url = proxy.url().replace("http://", &format!("http://{USER}@"));
    let config = through(&harness, &url);
    assert!(!format!("{config:?}").contains("nary"));
    harness.run_with(config);
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness.stop().await;
    let seen = seen(&harness, &proxy).await;
    let control = harness.control.address.to_string();
    let kibana = harness.kibana.address().to_string();
    assert!(
        seen.contains(&("CONNECT".to_owned(), control, 200)),
        "{seen:?}"
    );
    assert!(seen.contains(&("POST".to_owned(), kibana, 200)), "{seen:?}");
    assert!(seen.iter().all(|(_, _, status)| *status == 200), "{seen:?}");
    assert!(!harness.on_disk().contains("nary"));
}

#[tokio::test]
async fn a_way_that_a_proxy_closes_is_waited_for() {
    let mut harness = Harness::start().await;
    let control = harness.control.address.to_string();
    let kibana = harness.kibana.address().to_string();
    let closed = start(None, vec![control.clone()]).await;
    harness.run_with(through(&harness, &closed.url()));
    while !seen(&harness, &closed)
        .await
        .contains(&("CONNECT".to_owned(), control.clone(), 403))
    {}
    harness.stop().await;
    assert!(harness.control.state().enrolled.is_empty());
    // The way to Kibana alone is closed: control hears why.
    let closed = start(None, vec![kibana]).await;
    harness.run_with(through(&harness, &closed.url()));
    harness
        .control
        .until("facts", |state| {
            let in_hello = state.hellos.last().and_then(|hello| hello.facts.as_ref());
            let facts = state.facts.as_ref().or(in_hello);
            facts.is_some_and(|facts| !facts.reachable)
        })
        .await;
    harness.stop().await;
    harness.run();
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    harness
        .control
        .until_state(PLACE, BindingState::Proven)
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn the_proxy_is_blamed_for_what_it_does() {
    let target = "127.0.0.1:9443";
    let (host, port) = ("127.0.0.1", 9443);
    let harness = Harness::start().await;
    let open = start(Some("a:b"), Vec::new()).await;
    let closed = start(None, vec![target.to_owned()]).await;
    let check = async |url: &str, parts: &[&str]| {
        let proxy = way(url, "https://127.0.0.1:9443").unwrap();
        let text = proxy.connect(host, port).await.unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("canary"), "{text}");
    };
    let with_user = open.url().replace("http://", "http://me:canary@");
    check(&with_user, &["407", &open.address().to_string()]).await;
    check(&open.url(), &["407"]).await;
    check(&closed.url(), &["403", target]).await;
    // A server that is no proxy answers in HTTP all the same; one that speaks TLS does not.
    check(&harness.kibana.url(), &["opens no way"]).await;
    let control = format!("http://me:canary@{}", harness.control.address);
    check(&control, &["does not answer as an HTTP proxy"]).await;
    check(
        "http://me:canary@127.0.0.1:1",
        &["cannot be reached", "127.0.0.1:1", "refused"],
    )
    .await;
}
