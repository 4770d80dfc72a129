//! A whole campaign with real processes: while somebody calls every connector all the time, a key is rotated until the
//! provider refuses the old one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::ask::THREE;
use crate::kit::{FIVE, Fleet, KEY};

const SECOND: &str = "sk-proj-e2e-4444444444444444444444444444444444t7Wq";
const THIRD: &str = "sk-proj-e2e-5555555555555555555555555555555555c2Mx";

/// The old key need not be kept.
fn at_once(fleet: &Fleet) {
    let rotation = "spec:\n  rotation: {overlap: 0s}";
    fleet.manifests.edit("key.yaml", "spec:", rotation).unwrap();
}

impl Fleet {
    fn campaign(&self) -> Result<Value> {
        let answer = self.stack.json(&["campaign", "list"])?;
        Ok(answer["campaigns"].get(0).context("no campaign")?.clone())
    }

    /// Waits until the newest campaign is in this state.
    pub(crate) fn wait_for_campaign(&self, state: &str) -> Result<Value> {
        self.wait_until(&format!("the campaign is {state}"), || {
            let campaign = self.campaign().ok()?;
            (campaign["state"] == format!("CAMPAIGN_STATE_{state}")).then_some(campaign)
        })
    }

    fn say_to_campaign(&self, verb: &str) -> Result<()> {
        let id = self.campaign()?["id"].as_str().context("no id")?.to_owned();
        let done = self.keyfleet(&["campaign", verb, &id, "--reason", "test"])?;
        done.must_succeed().map(drop)
    }

    fn revoke_at_provider(&self, key: &str) -> Result<()> {
        self.sim(&["keys", "--url", &self.openai.url, "revoke", key])
            .map(drop)
    }
}

/// Somebody who calls every connector again and again.
struct Callers {
    ends: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Callers {
    /// One caller a Kibana.
    fn start(fleet: &Fleet) -> Result<Self> {
        let (ends, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut threads = Vec::new();
        for (name, kibana) in &fleet.kibanas {
            let mut urls = Vec::new();
            for connector in fleet.connectors(name)?.as_array().context("no list")? {
                let id = connector["id"].as_str().context("no id")?;
                let space = match connector["space"].as_str() {
                    None | Some("default") => String::new(),
                    Some(space) => format!("/s/{space}"),
                };
                urls.push(format!(
                    "{}{space}/api/actions/connector/{id}/_execute",
                    kibana.url
                ));
            }
            let (ends, calls) = (ends.clone(), calls.clone());
            let key = format!("ApiKey kibana-key-of-{name}");
            threads.push(std::thread::spawn(move || {
                call_until(&urls, &key, &ends, &calls)
            }));
        }
        Ok(Self {
            ends,
            calls,
            threads,
        })
    }

    /// How many calls there were, all of them good.
    fn end(self) -> Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a caller panicked"),
            }
        }
        Ok(self.calls.load(Ordering::Relaxed))
    }
}

fn call_until(urls: &[String], key: &str, ends: &AtomicBool, calls: &AtomicU64) -> Result<()> {
    // A second installation is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let body = json!({"params": {"subAction": "test", "subActionParams": {
        "body": r#"{"messages":[{"role":"user","content":"ping"}]}"#}}});
    while !ends.load(Ordering::Relaxed) {
        for url in urls {
            let answer: Value = runtime.block_on(async {
                let call = client
                    .post(url)
                    .header("authorization", key)
                    .header("kbn-xsrf", "test")
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .timeout(crate::kit::PATIENCE)
                    .send();
                Ok::<_, anyhow::Error>(serde_json::from_str(&call.await?.text().await?)?)
            })?;
            if answer["status"] != "ok" {
                bail!("a call failed: {url} answered {answer}");
            }
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[test]
fn a_key_is_rotated_to_the_death_of_the_old_one_and_no_call_fails() {
    let fleet = Fleet::start("campaign", &FIVE).unwrap();
    at_once(&fleet);
    fleet.apply().unwrap().must_succeed().unwrap();
    let callers = Callers::start(&fleet).unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();

    let ready = fleet.wait_for_campaign("REVOKE_READY").unwrap();
    assert_eq!(
        (&ready["bindings"], &ready["bindingsProven"]),
        (&json!(7), &json!(7))
    );
    assert_eq!(
        ready["waits"],
        json!(["v1: 0 of 1 people have agreed that it is revoked"])
    );
    fleet.say_to_campaign("approve").unwrap();
    fleet.wait_for_campaign("REVOKING").unwrap();
    assert_eq!(fleet.key_version(1).unwrap().0, "KEY_STATE_RETIRING");

    // It is said to be revoked, and is not: the provider knows better.
    fleet.say_to_campaign("confirm").unwrap();
    fleet
        .wait_until("the provider is heard", || {
            let waits = fleet.campaign().ok()?["waits"].to_string();
            waits.contains("still accepts v1").then_some(())
        })
        .unwrap();
    fleet.revoke_at_provider(KEY).unwrap();
    fleet.wait_for_campaign("CLOSED").unwrap();
    let n_calls = callers.end().unwrap();
    assert!(n_calls > 100, "only {n_calls} calls");
    assert_eq!(fleet.key_version(1).unwrap().0, "KEY_STATE_REVOKED");
    assert_eq!(fleet.key_version(2).unwrap().0, "KEY_STATE_CURRENT");
    let path = fleet.keyfleet(&["campaign", "show"]).unwrap();
    assert!(path.code != 0, "none is active");
}

#[test]
fn a_key_that_the_provider_refuses_reaches_no_kibana() {
    let fleet = Fleet::start_applied("refused-key", &THREE).unwrap();
    let writes = fleet.writes().unwrap();
    fleet.write_key(SECOND).unwrap();
    let campaign = fleet.wait_for_campaign("CANCELLED").unwrap();
    let reason = campaign["reason"].as_str().unwrap();
    assert!(reason.contains("refuses v2"), "{reason}");
    // The next one is a good one.
    fleet.accept_key(THIRD).unwrap();
    fleet.write_key(THIRD).unwrap();
    fleet.wait_until_proven("3").unwrap();
    assert_eq!(fleet.writes().unwrap(), writes + 3, "one update each");
    assert_eq!(fleet.key_version(2).unwrap().0, "KEY_STATE_ABANDONED");
}

#[test]
fn a_leaked_key_dies_first_and_a_new_one_heals_the_fleet() {
    let fleet = Fleet::start_applied("leaked", &THREE).unwrap();
    let start = |more: &[&str]| {
        let arguments = [&["campaign", "start", "openai", "--leak"], more].concat();
        fleet.keyfleet(&arguments).unwrap()
    };
    let asked = start(&[]);
    assert!(asked.code != 0);
    assert!(
        asked.err.contains("3 bindings on 3 deployments"),
        "{}",
        asked.err
    );
    start(&["--yes"]).must_succeed().unwrap();
    fleet.wait_for_campaign("REVOKING").unwrap();
    fleet.revoke_at_provider(KEY).unwrap();
    fleet.say_to_campaign("confirm").unwrap();
    fleet.wait_for_campaign("MINTING").unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet.wait_for_campaign("CLOSED").unwrap();
    assert!(fleet.is_proven("2").unwrap());
}
