//! Control with a real database, and agents that only say what they are told to say.

use std::collections::BTreeMap;
use std::path::Path;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{
    ConnectorName, DeploymentId, EnrolmentId, Generation, KeyVersion, Revision, RolloutId,
};
use keyfleet_core::key::{Key, KeyLocation, KeyState};
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::invariants::violations;
use keyfleet_core::rollout::{Amount, Plan, PlanInput, Verb, default_strategy};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_seal::FingerprintKey;
use keyfleet_store::{Binding, Deployment, KeyVersionRow, Restore, Rollout, Store, Tx, Why};
use tokio_util::sync::CancellationToken;

use crate::app::start::{Spread, refresh_goals, start_rollouts};
use crate::app::status::Reporter;
use crate::app::step::{Outcome, Surroundings, begin_anew, step_all};
use crate::app::{Actor, App, KEYFLEET};
use crate::ca::{self, Authority};
use crate::config::Config;
use crate::error::Error;
use crate::keyring::KeyRing;
use crate::tasks::planner::cut_off;
use crate::{clock, config};

/// What every agent answers to what it is told.
pub(crate) type Answer = fn(&str, &v1::DesiredBinding) -> Option<FailureClass>;

pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) names: BTreeMap<DeploymentId, String>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn works(_: &str, _: &v1::DesiredBinding) -> Option<FailureClass> {
    None
}

impl World {
    /// Control with one Key (version 1), one connector and a placement everywhere: a strict canary by the
    /// label `tier`, then the rest, without soak.
    pub(crate) async fn new(deployments: &[&str]) -> Self {
        Self::with(deployments, |_| {}).await
    }

    /// As [`World::new`], with other settings.
    pub(crate) async fn with(deployments: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        ca::create(dir.path(), clock::now()).unwrap();
        let app = start(dir.path(), change);
        let mut world = Self {
            app,
            names: BTreeMap::new(),
            dir,
        };
        world.app.settle_outbound().await.unwrap();
        for name in deployments {
            world.enrol(name).await;
        }
        world
            .write(|tx| {
                let mut strategy = default_strategy("default".parse().unwrap());
                strategy.waves.remove(1);
                strategy.waves[0].selector = Selector::from_labels(&Labels::from([(
                    "tier".to_owned(),
                    "canary".to_owned(),
                )]));
                strategy.waves[0].soak = std::time::Duration::ZERO;
                strategy.waves[1].concurrency = Amount::Count(10);
                tx.put_strategy(&strategy)?;
                tx.put_key(&Key {
                    name: "openai".parse().unwrap(),
                    location: KeyLocation {
                        mount: "secret".to_owned(),
                        path: "keyfleet/openai".to_owned(),
                        field: "api_key".into(),
                    },
                    allowed_hosts: vec!["api.openai.com".to_owned()],
                    scope: Selector::default(),
                    rotation: keyfleet_core::key::Rotation::default(),
                })?;
                tx.put_placement(&placement(DriftPolicy::Correct))?;
                Ok(())
            })
            .await;
        world.new_key_version(1).await;
        world.new_revision(1).await;
        world
    }

    /// Control after a backup of this moment was restored in its place, and after somebody has looked: andon is off.
    pub(crate) async fn restored(self) -> Self {
        let Self { app, names, dir } = self;
        let (database, file) = (dir.path().join("keyfleet.db"), dir.path().join("backup.db"));
        keyfleet_store::backup(&database, &file, true, clock::now()).unwrap();
        app.store.close().await;
        drop(app);
        let why = Why {
            principal: "ops".to_owned(),
            reason: "test".to_owned(),
            at: clock::now(),
        };
        let restore = Restore::prepare(&database, &file).unwrap();
        restore.carry_out(&why).unwrap();
        let app = start(dir.path(), |_| {});
        let world = Self { app, names, dir };
        world.write(|tx| Ok(tx.set_andon(None)?)).await;
        world
    }

    /// Control after a start on the same database, as `serve` and the planner begin.
    pub(crate) async fn restarted(self) -> Self {
        let Self { app, names, dir } = self;
        app.store.close().await;
        drop(app);
        let app = start(dir.path(), |_| {});
        app.load_andon().await.unwrap();
        let world = Self { app, names, dir };
        world.write(|tx| begin_anew(tx, clock::now())).await;
        world
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> T {
        self.app.store.write(work).await.unwrap()
    }

    /// The canary is the one whose name says so.
    pub(crate) async fn enrol(&mut self, name: &str) {
        let now = clock::now();
        let id = DeploymentId::new(uuid::Uuid::now_v7());
        let tier = if name == "canary" { "canary" } else { "other" };
        let row = Deployment {
            id,
            name: name.parse().unwrap(),
            labels: Labels::from([("tier".to_owned(), tier.to_owned())]),
            enrolment: enrolment(),
            enrolled_at: now,
            sealing_key: vec![0; 32],
            certificate_serial: "01".to_owned(),
            certificate_not_after: now,
            agent_version: "test".to_owned(),
            facts: None,
            last_seen: None,
            generation: Generation::default(),
            standing: Standing::Active,
            standing_reason: String::new(),
            standing_at: None,
            certificate_given: 1,
            certificate_seen: 0,
            certificate_ca: String::new(),
            renewal_allowed: false,
        };
        self.names.insert(id, name.to_owned());
        self.write(move |tx| {
            tx.insert_deployment(&row)?;
            refresh_goals(tx, now)?;
            start_rollouts(
                tx,
                &Spread::default(),
                "a deployment enrolled",
                KEYFLEET,
                now,
            )?;
            Ok(())
        })
        .await;
    }

    pub(crate) async fn new_key_version(&self, version: u64) {
        self.write(move |tx| {
            let row = KeyVersionRow {
                version: KeyVersion(version),
                state: KeyState::Pending,
                fingerprint: format!("f{version}"),
                shown: "sk-proj-…".to_owned(),
                first_seen: clock::now(),
                readable: true,
                released: true,
            };
            tx.insert_key_version(&"openai".parse().unwrap(), &row)?;
            spread(tx, "a new key version")
        })
        .await;
    }

    pub(crate) async fn new_revision(&self, revision: u64) {
        self.write(move |tx| {
            let new = ConnectorRevision {
                connector: assistant(),
                revision: Revision(revision),
                spec: ConnectorSpec {
                    connector_type: ".gen-ai".to_owned(),
                    display_name: format!("revision {revision}"),
                    config: r#"{"apiProvider":"OpenAI","apiUrl":"https://api.openai.com/v1/chat/completions"}"#
                        .to_owned(),
                    key: "openai".parse().unwrap(),
                    if_supported: Vec::new(),
                    probe: Probe::default(),
                    replaces: None,
                },
            };
            tx.insert_connector(&new, clock::now())?;
            spread(tx, "a new revision")
        })
        .await;
    }

    /// The planner acts, and publishes why it waits; no agent answers.
    pub(crate) async fn offer(&self) {
        self.offer_at(clock::now()).await;
    }

    /// The same at another time.
    pub(crate) async fn offer_at(&self, now: Timestamp) {
        let around = Surroundings {
            turns: BTreeMap::new(),
            watch: breaks_no_rule,
            now,
            epoch: self.app.store.epoch(),
            online: self.names.keys().copied().collect(),
        };
        let outcomes = self.write(move |tx| plan(tx, around)).await;
        let waiting = outcomes.into_iter().map(|(id, done)| (id, done.waiting));
        self.app.set_waiting(waiting.collect());
    }

    /// One turn: the planner acts, then every agent that is online answers what it was told.
    pub(crate) async fn turn(&self, answer: Answer) {
        self.turn_without("", answer).await;
    }

    /// One turn while the agent of one deployment is away.
    pub(crate) async fn turn_without(&self, away: &str, answer: Answer) {
        let online = || self.names.iter().filter(|(_, name)| *name != away);
        let around = Surroundings {
            turns: BTreeMap::new(),
            watch: breaks_no_rule,
            now: clock::now(),
            epoch: self.app.store.epoch(),
            online: online().map(|(id, _)| *id).collect(),
        };
        self.write(move |tx| plan(tx, around)).await;
        self.answer_without(away, answer).await;
    }

    /// Every agent answers what it was told.
    pub(crate) async fn answer(&self, answer: Answer) {
        self.answer_without("", answer).await;
    }

    async fn answer_without(&self, away: &str, answer: Answer) {
        for (id, name) in self.names.iter().filter(|(_, name)| *name != away) {
            let desired = self.app.desired(*id).await.unwrap().document;
            let generation = desired.generation.unwrap_or_default();
            if generation == v1::Generation::default() {
                continue;
            }
            let answers = desired.bindings.iter();
            let answers: Vec<_> = answers.map(|b| (b, answer(name, b))).collect();
            let bindings = answers.iter();
            let bindings = bindings
                .map(|(b, failure)| match waits(b, &answers) {
                    true => received(b, generation),
                    false => status(b, generation, *failure),
                })
                .collect();
            let report = v1::StatusReport {
                sequence: 1,
                full: true,
                bindings,
                facts: None,
            };
            let from = reporter(*id);
            self.app.report(&from, report, "test").await.unwrap();
        }
    }

    /// Turns until nothing is left to do.
    pub(crate) async fn settle(&self, answer: Answer) {
        for _ in 0..20 {
            self.turn(answer).await;
        }
    }

    /// The id of a deployment.
    pub(crate) fn id(&self, name: &str) -> DeploymentId {
        let named = self.names.iter().find(|(_, known)| *known == name);
        *named.unwrap().0
    }

    /// An agent says something of its Kibana.
    pub(crate) async fn sees(&self, name: &str, facts: v1::KibanaFacts) {
        let report = v1::StatusReport {
            sequence: 1,
            facts: Some(facts),
            ..v1::StatusReport::default()
        };
        let from = reporter(self.id(name));
        self.app.report(&from, report, "test").await.unwrap();
    }

    pub(crate) async fn bindings(&self) -> BTreeMap<String, Binding> {
        let all = self.write(|tx| Ok(tx.bindings()?)).await;
        all.into_iter()
            .map(|b| (self.names[&b.id.deployment].clone(), b))
            .collect()
    }

    pub(crate) async fn newest(&self) -> Rollout {
        self.write(|tx| Ok(tx.rollouts(1)?.remove(0))).await
    }

    pub(crate) async fn key_states(&self) -> Vec<(u64, KeyState)> {
        let rows = self
            .write(|tx| Ok(tx.key_versions(&"openai".parse().unwrap())?))
            .await;
        rows.into_iter()
            .map(|row| (row.version.0, row.state))
            .collect()
    }

    /// Open holdings by version.
    pub(crate) async fn holdings(&self) -> BTreeMap<u64, usize> {
        let rows = self
            .write(|tx| Ok(tx.holdings(&"openai".parse().unwrap())?))
            .await;
        let mut open = BTreeMap::new();
        for row in rows.into_iter().filter(|row| row.closed_at.is_none()) {
            *open.entry(row.version.0).or_default() += 1;
        }
        open
    }

    pub(crate) async fn say(&self, verb: Verb) -> Result<(), Error> {
        let actor = ops();
        let id = self.newest().await.id.to_string();
        self.app
            .change_rollout(&actor, &id, verb, "", "because")
            .await
            .map(drop)
    }
}

fn start(dir: &Path, change: impl FnOnce(&mut Config)) -> App {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = config::load(None, Some(dir.to_owned())).unwrap();
    config.verify = None;
    change(&mut config);
    let store = Store::open(&dir.join("keyfleet.db")).unwrap();
    let vault = keyfleet_vault::Vault::new(&config.vault).unwrap();
    App::new(
        config,
        store,
        Authority::load(dir).unwrap(),
        FingerprintKey::generate().unwrap(),
        KeyRing::new(vault),
        CancellationToken::new(),
    )
}

/// The agent of a deployment.
pub(crate) fn reporter(deployment: DeploymentId) -> Reporter {
    Reporter {
        deployment,
        enrolment: enrolment(),
        certificate_serial: "01".to_owned(),
        certificate_not_after: Timestamp::MAX,
    }
}

/// No plan breaks a rule, in whatever scenario it is made.
fn breaks_no_rule(input: &PlanInput<'_>, plan: &Plan) {
    assert_eq!(violations(input, plan), Vec::<String>::new());
}

/// What the planner does about the agents that are online.
fn plan(tx: &Tx<'_>, mut around: Surroundings) -> Result<BTreeMap<RolloutId, Outcome>, Error> {
    let cut_off = cut_off(tx)?;
    around.online.retain(|id| !cut_off.contains_key(id));
    step_all(tx, &around)
}

/// An operator of the whole fleet.
pub(crate) fn ops() -> Actor {
    Actor {
        principal: "ops".to_owned(),
        token: None,
        role: Role::Operator,
        scope: Selector::default(),
    }
}

pub(crate) fn placement(drift_policy: DriftPolicy) -> Placement {
    Placement {
        name: "everywhere".parse().unwrap(),
        selector: Selector::default(),
        connectors: vec![assistant()],
        spaces: vec!["default".parse().unwrap()],
        except_spaces: Vec::new(),
        adopt: Vec::new(),
        drift_policy,
        strategy: "default".parse().unwrap(),
        task: None,
    }
}

pub(crate) fn assistant() -> ConnectorName {
    "assistant".parse().unwrap()
}

pub(crate) fn enrolment() -> EnrolmentId {
    EnrolmentId::new(uuid::Uuid::from_u128(1))
}

pub(crate) fn spread(tx: &Tx<'_>, cause: &str) -> Result<(), Error> {
    let now = clock::now();
    let goals = refresh_goals(tx, now)?;
    start_rollouts(tx, &goals.spread(), cause, "ops", now)?;
    Ok(())
}

/// True where an agent does not remove a connector yet, because what takes its place fails.
fn waits(
    told: &v1::DesiredBinding,
    answers: &[(&v1::DesiredBinding, Option<FailureClass>)],
) -> bool {
    let is_it = |b: &v1::DesiredBinding| {
        let connector = b.binding.as_ref().map(|binding| binding.connector.as_str());
        connector == Some(told.after_connector.as_str())
    };
    let mut after = answers.iter().filter(|(b, _)| is_it(b));
    told.remove && !told.after_connector.is_empty() && after.any(|(_, failure)| failure.is_some())
}

/// What an agent says that has read of a removal and waits with it.
pub(crate) fn received(told: &v1::DesiredBinding, generation: v1::Generation) -> v1::BindingStatus {
    v1::BindingStatus {
        state: v1::BindingState::Received.into(),
        running: Some(v1::Assignment {
            revision: 1,
            key_version: 1,
        }),
        removed: false,
        ..status(told, generation, None)
    }
}

pub(crate) fn status(
    told: &v1::DesiredBinding,
    generation: v1::Generation,
    failure: Option<FailureClass>,
) -> v1::BindingStatus {
    let state = match failure {
        Some(_) => BindingState::Failed,
        None => BindingState::Proven,
    };
    v1::BindingStatus {
        binding: told.binding.clone(),
        running: told.assignment,
        attempted: told.assignment,
        attempt: told.attempt,
        generation: Some(generation),
        state: v1::BindingState::from(state).into(),
        failure_class: failure
            .map(v1::FailureClass::from)
            .unwrap_or_default()
            .into(),
        text: "as told".to_owned(),
        removed: told.remove && failure.is_none(),
        ..v1::BindingStatus::default()
    }
}
