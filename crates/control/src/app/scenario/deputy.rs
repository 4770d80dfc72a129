//! No manifest an operator can write makes a key travel anywhere its Key does not allow.
//!
//! Random Keys (an admin's) and settings, then random things an operator can say, in any order, to the real use cases on
//! a real database. What is checked after each of them does not ask the code that decides: it reads the composed
//! document as Kibana would.

use std::collections::BTreeMap;

use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::{Key, KeyLocation, KeyState};
use keyfleet_core::token::Role;
use keyfleet_core::travel::HostPattern;
use keyfleet_proto::v1;
use keyfleet_store::{KeyVersionRow, Tx};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::world::{World, works};
use crate::app::Actor;
use crate::app::apply::{Batch, Intent};
use crate::clock;

/// Hosts that Keys and settings may name, and that URLs point to in plain and in twisted ways.
const HOSTS: [&str; 5] = [
    "api.openai.com",
    "gw.example.org",
    "a.gw.example.org",
    "[::1]",
    "127.0.0.1",
];
const PATTERNS: [&str; 6] = [
    "api.openai.com",
    "*.example.org",
    "*.gw.example.org",
    "[::1]",
    "127.0.0.1",
    "http://gw.example.org",
];
const NAMES: [&str; 3] = ["canary", "b", "c"];
const SELECTORS: [&str; 6] = [
    "",
    "env=prod",
    "env=test",
    "env!=prod",
    "team in (a,b)",
    "!team",
];

/// What goes between `https://` and the path, where `@` stands for a host.
const TWISTS: [&str; 22] = [
    "@",
    "@",
    "@",
    "@",
    "@:8443",
    "@.",
    "x.@",
    "@.evil.example",
    "evil.example",
    "user@evil.example",
    "evil.example\\@",
    "evil.example\\.@",
    "evil.example#@",
    "evil.example?@",
    "evil.example/@",
    "@%2eevil.example",
    "\t@",
    "2130706433",
    "0x7f.1",
    "[::ffff:127.0.0.1]",
    "аpi.openai.com",
    "API.OpenAI.com",
];

#[derive(Debug, Clone)]
struct Lock {
    hosts: Vec<&'static str>,
    scope: &'static str,
}

/// Each case is a database of its own.
const CASES: u32 = 24;

/// What somebody says.
#[derive(Debug, Clone)]
enum Word {
    Connector {
        name: usize,
        url: String,
        key: usize,
    },
    Placement {
        name: usize,
        selector: &'static str,
        connectors: Vec<usize>,
        spaces: Vec<&'static str>,
    },
    Delete {
        kind: &'static str,
        name: usize,
    },
    Prune,
    Label {
        deployment: usize,
        key: &'static str,
        value: &'static str,
        role: Role,
    },
    /// The settings were changed and control was started again.
    Settings(Vec<&'static str>),
    /// An admin changes a Key.
    Lock(usize, Lock),
}

fn lock() -> impl Strategy<Value = Lock> {
    (
        prop::collection::vec(select(&HOSTS[..]), 1..3),
        select(&SELECTORS[..]),
    )
        .prop_map(|(hosts, scope)| Lock { hosts, scope })
}

fn url() -> impl Strategy<Value = String> {
    let scheme = select(
        &[
            "https://",
            "https://",
            "https://",
            "http://",
            "https:",
            "https:\\\\",
        ][..],
    );
    (scheme, select(&TWISTS[..]), select(&HOSTS[..])).prop_map(|(scheme, twist, host)| {
        format!("{scheme}{}/v1/chat/completions", twist.replace('@', host))
    })
}

fn word() -> impl Strategy<Value = Word> {
    let connector = (0..3_usize, url(), 0..2_usize).prop_map(|(name, url, key)| Word::Connector {
        name,
        url,
        key,
    });
    let placement = (
        0..3_usize,
        select(&SELECTORS[..]),
        prop::collection::vec(0..3_usize, 1..3),
        prop::collection::vec(select(&["default", "soc"][..]), 1..3),
    )
        .prop_map(|(name, selector, connectors, spaces)| Word::Placement {
            name,
            selector,
            connectors,
            spaces,
        });
    let delete = (select(&["Placement", "Connector", "Key"][..]), 0..3_usize)
        .prop_map(|(kind, name)| Word::Delete { kind, name });
    let label = (
        0..3_usize,
        select(
            &[
                ("env", "prod"),
                ("env", "test"),
                ("team", "a"),
                ("team", ""),
            ][..],
        ),
        select(&[Role::Operator, Role::Admin][..]),
    )
        .prop_map(|(deployment, (key, value), role)| Word::Label {
            deployment,
            key,
            value,
            role,
        });
    let settings = prop::collection::vec(select(&PATTERNS[..]), 1..4).prop_map(Word::Settings);
    prop_oneof![
        4 => connector,
        4 => placement,
        1 => delete,
        1 => Just(Word::Prune),
        2 => label,
        1 => settings,
        1 => (0..2_usize, lock()).prop_map(|(name, lock)| Word::Lock(name, lock)),
    ]
}

fn key(name: usize, lock: &Lock) -> Key {
    Key {
        name: format!("key-{name}").parse().unwrap(),
        location: KeyLocation {
            mount: "secret".to_owned(),
            path: format!("keyfleet/key-{name}"),
            field: "api_key".into(),
        },
        allowed_hosts: lock.hosts.iter().map(|host| (*host).to_owned()).collect(),
        scope: lock.scope.parse().unwrap(),
        rotation: keyfleet_core::key::Rotation::default(),
    }
}

fn patterns(texts: &[&str]) -> Vec<HostPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn actor(role: Role) -> Actor {
    Actor {
        principal: "pat".to_owned(),
        token: None,
        role,
        scope: Selector::default(),
    }
}

/// Writes the selector as a manifest does.
fn yaml(selector: &str) -> String {
    let expression = match selector {
        "" => return "{}".to_owned(),
        "!team" => "{key: team, operator: DoesNotExist}".to_owned(),
        "env!=prod" => "{key: env, operator: NotIn, values: [prod]}".to_owned(),
        "team in (a,b)" => "{key: team, operator: In, values: [a, b]}".to_owned(),
        other => format!("{{key: env, operator: In, values: [{}]}}", &other[4..]),
    };
    format!("{{matchExpressions: [{expression}]}}")
}

fn manifest(word: &Word) -> Option<String> {
    match word {
        Word::Connector { name, url, key } => Some(format!(
            "apiVersion: keyfleet/v1\nkind: Connector\nmetadata: {{name: c{name}}}\nspec:\n  type: .gen-ai\n  displayName: Assistant\n  key: key-{key}\n  config: {{apiProvider: OpenAI, apiUrl: {}}}\n",
            serde_json::Value::String(url.clone())
        )),
        Word::Placement {
            name,
            selector,
            connectors,
            spaces,
        } => {
            let connectors: Vec<String> = connectors.iter().map(|c| format!("c{c}")).collect();
            Some(format!(
                "apiVersion: keyfleet/v1\nkind: Placement\nmetadata: {{name: p{name}}}\nspec:\n  selector: {}\n  connectors: [{}]\n  spaces: [{}]\n",
                yaml(selector),
                connectors.join(", "),
                spaces.join(", ")
            ))
        }
        Word::Delete { .. }
        | Word::Prune
        | Word::Label { .. }
        | Word::Settings(_)
        | Word::Lock(..) => None,
    }
}

fn relabel(deployment: usize, key: &str, value: &str) -> v1::LabelDeploymentRequest {
    let (mut set, mut unset) = (BTreeMap::new(), Vec::new());
    if value.is_empty() {
        unset.push(key.to_owned());
    } else {
        set.insert(key.to_owned(), value.to_owned());
    }
    v1::LabelDeploymentRequest {
        name: NAMES[deployment].to_owned(),
        set,
        unset,
        reason: "because".to_owned(),
        yes: true,
        plan: false,
    }
}

/// Says one thing; whether it is taken is control's business.
async fn say(world: &World, word: &Word) -> bool {
    let app = &world.app;
    let intent = Intent::Apply { yes: true };
    let operator = actor(Role::Operator);
    match word {
        Word::Connector { .. } | Word::Placement { .. } | Word::Prune => {
            let text = manifest(word).unwrap_or_default();
            let file = v1::ManifestFile {
                name: "f.yaml".to_owned(),
                text,
            };
            let is_prune = matches!(word, Word::Prune);
            let batch = Batch {
                files: vec![file],
                set: "all".to_owned(),
                prune: is_prune,
                reason: String::new(),
            };
            app.apply(&operator, batch, intent).await.is_ok()
        }
        Word::Delete { kind, name } => {
            let prefix = match *kind {
                "Placement" => "p",
                "Connector" => "c",
                _ => "key-",
            };
            let request = v1::DeleteObjectRequest {
                kind: (*kind).to_owned(),
                name: format!("{prefix}{name}"),
                reason: "because".to_owned(),
                yes: true,
                plan: false,
            };
            app.delete_object(&actor(Role::Admin), request)
                .await
                .is_ok()
        }
        Word::Label {
            deployment,
            key,
            value,
            role,
        } => {
            let request = relabel(*deployment, key, value);
            app.label_deployment(&actor(*role), request).await.is_ok()
        }
        Word::Settings(texts) => {
            let hosts = patterns(texts);
            world.write(move |tx| Ok(tx.set_outbound(&hosts)?)).await;
            true
        }
        Word::Lock(name, lock) => {
            let key = key(*name, lock);
            world.write(move |tx| Ok(tx.put_key(&key)?)).await;
            true
        }
    }
}

/// Reads what every agent would be told, as Kibana reads it: how many keys it names.
async fn inspect(world: &World) -> usize {
    let (keys, outbound, fleet) = world
        .write(|tx: &Tx<'_>| Ok((tx.keys()?, tx.outbound()?, tx.deployments()?)))
        .await;
    let mut named = 0;
    for deployment in fleet {
        let desired = world.app.desired(deployment.id).await.unwrap();
        let mut names = Vec::new();
        for binding in desired.document.bindings.iter().filter(|b| !b.remove) {
            let row = keys
                .iter()
                .find(|row| row.key.name.as_str() == binding.key)
                .unwrap();
            let config: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(&binding.config_json).unwrap();
            let url = url::Url::parse(config["apiUrl"].as_str().unwrap()).unwrap();
            let host = url.host_str().unwrap();
            let about = format!("{url} for {} on {:?}", binding.key, deployment.labels);
            assert!(
                row.key.allowed_hosts.iter().any(|own| own == host),
                "{about}: {:?}",
                row.key.allowed_hosts
            );
            assert!(
                outbound
                    .iter()
                    .any(|pattern| covers(&pattern.to_string(), host)),
                "{about}: {outbound:?}"
            );
            assert!(
                row.key.scope.matches(&deployment.labels),
                "{about}: {}",
                row.key.scope
            );
            names.push(binding.key.clone());
        }
        for (key, _) in desired.keys.keys() {
            assert!(
                names.contains(&key.to_string()),
                "{key} is given and not named"
            );
        }
        named += names.len();
    }
    named
}

/// What the documentation of the setting says, once more.
fn covers(pattern: &str, host: &str) -> bool {
    let pattern = pattern.trim_start_matches("http://");
    match pattern.strip_prefix('*') {
        Some(domain) => host.ends_with(domain) && host.len() > domain.len(),
        None => pattern == host,
    }
}

/// What may well be allowed, so that there is something to twist.
fn good(locks: &[Lock], settings: &[&'static str]) -> Vec<Word> {
    let mut wide = settings.to_vec();
    wide.extend(locks.iter().flat_map(|lock| lock.hosts.clone()));
    let mut words = vec![Word::Settings(wide)];
    for (name, lock) in locks.iter().enumerate() {
        words.push(Word::Connector {
            name,
            url: format!("https://{}/v1/chat/completions", lock.hosts[0]),
            key: name,
        });
        words.push(Word::Placement {
            name,
            selector: lock.scope,
            connectors: vec![name],
            spaces: vec!["default"],
        });
    }
    words
}

async fn play(locks: Vec<Lock>, settings: Vec<&'static str>, words: Vec<Word>) -> usize {
    let world = World::new(&NAMES).await;
    let ids: Vec<_> = world.names.keys().copied().collect();
    let good = good(&locks, &settings);
    world
        .write(move |tx| {
            tx.set_outbound(&patterns(&settings))?;
            tx.delete_placement(&"everywhere".parse().unwrap(), clock::now())?;
            for (id, env) in ids.into_iter().zip(["prod", "test", "prod"]) {
                tx.set_labels(id, &Labels::from([("env".to_owned(), env.to_owned())]))?;
            }
            for (name, lock) in locks.iter().enumerate() {
                let key = key(name, lock);
                tx.put_key(&key)?;
                let row = KeyVersionRow {
                    version: KeyVersion(1),
                    state: KeyState::Current,
                    fingerprint: format!("f{name}"),
                    shown: String::new(),
                    first_seen: clock::now(),
                    readable: true,
                    released: true,
                };
                tx.insert_key_version(&key.name, &row)?;
            }
            Ok(())
        })
        .await;
    let mut named = 0;
    for word in good.iter().chain(&words) {
        if say(&world, word).await {
            named += inspect(&world).await;
            world.turn(works).await;
            named += inspect(&world).await;
        }
    }
    named
}

#[test]
fn no_manifest_of_an_operator_makes_a_key_travel_where_its_key_does_not_allow() {
    // Keys were named at all: a fleet that gets nothing proves nothing.
    let named = std::cell::Cell::new(0);
    let cases = (
        prop::collection::vec(lock(), 2),
        prop::collection::vec(select(&PATTERNS[..]), 1..4),
        prop::collection::vec(word(), 8..20),
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = runner.run(&cases, |(locks, settings, words)| {
        named.set(named.get() + runtime.block_on(play(locks, settings, words)));
        Ok(())
    });
    done.unwrap();
    assert!(named.get() > 100, "{}", named.get());
}
