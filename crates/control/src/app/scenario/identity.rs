//! Who an agent is, and whether it is trusted: enrolment, renewal, standing, and the CA behind them.

use std::time::Duration;

use keyfleet_core::audit::Outcome;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::Phase;
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::Deployment;
use rcgen::{CertificateParams, KeyPair};
use secrecy::ExposeSecret as _;

use super::world::{World, works};
use crate::app::enrol::{Enrolled, Issuing};
use crate::app::{Actor, tokens};
use crate::ca::{Identity, Issued, identity};
use crate::clock;
use crate::error::Error;

pub(super) fn admin(scope: &str) -> Actor {
    Actor {
        principal: "ada".to_owned(),
        token: None,
        role: Role::Admin,
        scope: scope.parse().unwrap(),
    }
}

/// An agent's own keys, and what it asks for with them.
pub(super) struct Agent {
    key: KeyPair,
    sealing_key: Vec<u8>,
    name: &'static str,
}

impl Agent {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            key: KeyPair::generate().unwrap(),
            sealing_key: uuid::Uuid::new_v4().as_bytes().repeat(2),
            name,
        }
    }

    fn request(&self) -> bytes::Bytes {
        let request = CertificateParams::default().serialize_request(&self.key);
        request.unwrap().der().to_vec().into()
    }

    pub(super) async fn enrol(&self, world: &World, token: &str) -> Result<Enrolled, Error> {
        let request = v1::EnrollRequest {
            join_token: token.to_owned(),
            deployment_name: self.name.to_owned(),
            certificate_request_der: self.request(),
            sealing_public_key: self.sealing_key.clone().into(),
            ..v1::EnrollRequest::default()
        };
        world.app.enrol(request, &Issuing::default()).await
    }

    pub(super) async fn renew(&self, world: &World, with: &Identity) -> Result<Issued, Error> {
        let request = v1::RenewRequest {
            certificate_request_der: self.request(),
            agent_version: String::new(),
        };
        world.app.renew(with, request, &Issuing::default()).await
    }
}

pub(super) fn who(issued: &Issued) -> Identity {
    identity(&issued.certificate).unwrap()
}

pub(super) async fn join_token(world: &World, uses: u32) -> String {
    let new = tokens::join(Labels::new(), uses, "ada", None);
    let made = world.app.create_token(&admin(""), new, "").await;
    made.unwrap().1.expose_secret().to_owned()
}

pub(super) async fn row(world: &World, id: DeploymentId) -> Deployment {
    world.write(move |tx| Ok(tx.deployment(id)?.unwrap())).await
}

async fn named(world: &World, name: &str) -> Deployment {
    let name = name.parse().unwrap();
    world
        .write(move |tx| Ok(tx.deployment_named(&name)?.unwrap()))
        .await
}

pub(super) async fn see(world: &World, id: DeploymentId, number: u64) {
    world
        .write(move |tx| Ok(tx.see_certificate(id, number)?))
        .await;
}

pub(super) async fn say(
    world: &World,
    name: &str,
    verb: v1::DeploymentVerb,
) -> Result<v1::ChangeDeploymentResponse, Error> {
    let request = v1::ChangeDeploymentRequest {
        name: name.to_owned(),
        verb: verb.into(),
        reason: "because".to_owned(),
    };
    world.app.change_deployment(&admin(""), request).await
}

/// Actions of the audit log, the oldest first.
pub(super) async fn audited(world: &World) -> Vec<(String, Outcome)> {
    let entries = world.write(|tx| Ok(tx.audit(1, 1_000)?)).await.into_iter();
    entries
        .map(|entry| (entry.entry.action, entry.entry.outcome))
        .collect()
}

async fn evidence(world: &World) -> usize {
    let all = world.write(|tx| Ok(tx.evidence(&"openai".parse().unwrap())?));
    all.await.len()
}

pub(super) fn text<T>(answer: Result<T, Error>) -> String {
    answer.err().unwrap().to_string()
}

#[tokio::test]
async fn the_same_enrolment_again_gives_the_same_identity_until_the_first_session() {
    let world = World::new(&[]).await;
    let token = join_token(&world, 1).await;
    let (agent, thief) = (Agent::new("soc"), Agent::new("soc"));
    let first = agent.enrol(&world, &token).await.unwrap();
    let again = agent.enrol(&world, &token).await.unwrap();
    assert_eq!(first.deployment, again.deployment);
    assert_eq!(first.enrolment, again.enrolment);
    assert_eq!(who(&again.issued).subject.number, 2);
    assert!(text(thief.enrol(&world, &token).await).contains("used up"));
    see(&world, first.deployment, 2).await;
    assert!(text(agent.enrol(&world, &token).await).contains("used up"));
    let other = join_token(&world, 2).await;
    assert!(text(agent.enrol(&world, &other).await).contains("enrolled already"));
    assert!(text(agent.enrol(&world, "kfj_nonsense").await).contains("unknown"));
    let enrolments = audited(&world).await.into_iter();
    let enrolments: Vec<Outcome> = enrolments
        .filter(|(action, _)| action == "deployment.enrol")
        .map(|(_, outcome)| outcome)
        .collect();
    assert_eq!(
        enrolments,
        [Outcome::Done, Outcome::Refused],
        "and no more of strangers than one a minute"
    );
}

#[tokio::test]
async fn what_is_under_way_ends_although_its_caller_has_gone() {
    let world = World::new(&[]).await;
    let (go, wait) = tokio::sync::oneshot::channel();
    let andon = keyfleet_store::Andon {
        by: "ada".to_owned(),
        reason: "smoke".to_owned(),
        at: clock::now(),
    };
    let app = world.app.clone();
    let call = world.app.to_its_end(async move {
        let _ = wait.await;
        app.andon.send_replace(Some(andon));
        Ok(())
    });
    tokio::select! {
        biased;
        _ = call => panic!("nobody let it go on"),
        () = std::future::ready(()) => {}
    }
    go.send(()).unwrap();
    assert!(world.app.finish(Duration::from_secs(60)).await);
    assert!(world.app.andon.borrow().is_some());
}

#[tokio::test]
async fn refused_enrolments_are_answered_so_often_and_hold_no_good_token_up() {
    let world = World::new(&[]).await;
    let (issuing, token) = (Issuing::default(), join_token(&world, 1).await);
    let ask = async |token: &str| {
        let agent = Agent::new("soc");
        let request = v1::EnrollRequest {
            join_token: token.to_owned(),
            deployment_name: "soc".to_owned(),
            certificate_request_der: agent.request(),
            sealing_public_key: agent.sealing_key.into(),
            ..v1::EnrollRequest::default()
        };
        world.app.enrol(request, &issuing).await
    };
    let mut refused = Vec::new();
    for _ in 0..60 {
        refused.push(ask("kfj_nonsense").await.err().unwrap());
    }
    assert!(matches!(refused.first(), Some(Error::Forbidden(_))));
    assert!(
        refused
            .iter()
            .any(|err| matches!(err, Error::Unavailable(_)))
    );
    ask(&token).await.unwrap();
}

#[tokio::test]
async fn certificates_follow_each_other_and_a_superseded_one_is_a_clone() {
    let world = World::new(&[]).await;
    let token = join_token(&world, 1).await;
    let agent = Agent::new("soc");
    let enrolled = agent.enrol(&world, &token).await.unwrap();
    let (id, first) = (enrolled.deployment, who(&enrolled.issued));
    let second = who(&agent.renew(&world, &first).await.unwrap());
    // The answer was lost: the old one stays good until a session with a newer one was opened.
    let third = who(&agent.renew(&world, &first).await.unwrap());
    assert_eq!((second.subject.number, third.subject.number), (2, 3));
    assert_eq!(row(&world, id).await.certificate_given, 3);
    see(&world, id, 3).await;
    assert!(text(agent.renew(&world, &first).await).contains("an operator must decide"));
    let cloned = row(&world, id).await;
    assert_eq!(cloned.standing, Standing::Cloned);
    assert!(
        cloned.standing_reason.contains("certificate 1"),
        "{}",
        cloned.standing_reason
    );
    assert!(text(agent.renew(&world, &third).await).contains("an operator must decide"));
    assert!(
        audited(&world)
            .await
            .contains(&("deployment.clone".to_owned(), Outcome::Done))
    );
    // A host restored from a snapshot: its older certificate is good again.
    say(&world, "soc", v1::DeploymentVerb::Resume)
        .await
        .unwrap();
    let fourth = who(&agent.renew(&world, &first).await.unwrap());
    assert_eq!(fourth.subject.number, 4);
    assert_eq!(row(&world, id).await.standing, Standing::Active);
    // A restored database knows less than the agents do: numbers go on behind what they show.
    let ahead = Identity {
        subject: crate::ca::Subject {
            number: 9,
            ..first.subject
        },
        ..first
    };
    assert_eq!(
        who(&agent.renew(&world, &ahead).await.unwrap())
            .subject
            .number,
        10
    );
}

#[tokio::test]
async fn an_ended_certificate_is_renewed_in_time_and_with_a_word_where_one_is_asked_for() {
    for needs_approval in [false, true] {
        let world = World::with(&[], |config| {
            config.agents.renew_ended_needs_approval = needs_approval;
        });
        let world = world.await;
        let token = join_token(&world, 1).await;
        let agent = Agent::new("soc");
        let enrolled = agent.enrol(&world, &token).await.unwrap();
        let ended = |days: i64| {
            let not_after = clock::now() - jiff::SignedDuration::from_hours(24 * days);
            Identity {
                not_after,
                ..who(&enrolled.issued)
            }
        };
        let late = text(agent.renew(&world, &ended(91)).await);
        assert!(late.contains("keyfleet deployment replace soc"), "{late}");
        let in_time = agent.renew(&world, &ended(89)).await;
        if !needs_approval {
            in_time.unwrap();
            continue;
        }
        let asks = text(in_time);
        assert!(
            asks.contains("keyfleet deployment allow-renewal soc"),
            "{asks}"
        );
        say(&world, "soc", v1::DeploymentVerb::AllowRenewal)
            .await
            .unwrap();
        agent.renew(&world, &ended(1)).await.unwrap();
        let again = text(agent.renew(&world, &ended(1)).await);
        assert!(
            again.contains("an operator must allow"),
            "a word is for once: {again}"
        );
    }
}

#[tokio::test]
async fn a_suspended_agent_proves_nothing_closes_nothing_and_is_believed_again_when_resumed() {
    let world = World::new(&["canary", "soc"]).await;
    world.settle(works).await;
    assert_eq!(evidence(&world).await, 2);
    let changed = say(&world, "soc", v1::DeploymentVerb::Suspend)
        .await
        .unwrap();
    let shown = changed.deployment.unwrap();
    assert_eq!(shown.standing(), v1::Standing::Suspended);
    assert_eq!(shown.standing_reason, "suspended by ada: because");
    assert!(
        shown
            .waiting
            .contains("suspended by ada: because; `keyfleet deployment resume soc`")
    );
    let held: Vec<_> = changed
        .held
        .iter()
        .map(|key| (key.version, key.open))
        .collect();
    assert_eq!(held, [(1, true)]);
    assert_eq!(evidence(&world).await, 1);
    assert_eq!(world.holdings().await[&1], 2, "nothing was closed");
    // The next version goes to everybody else; what the suspended agent says of it does not count.
    world.new_key_version(2).await;
    world.settle(works).await;
    assert_eq!(world.holdings().await[&1], 1);
    assert_eq!(
        world.bindings().await["soc"]
            .last_proven
            .unwrap()
            .key_version
            .0,
        1
    );
    say(&world, "soc", v1::DeploymentVerb::Resume)
        .await
        .unwrap();
    world.settle(works).await;
    assert_eq!(
        world.bindings().await["soc"]
            .last_proven
            .unwrap()
            .key_version
            .0,
        2
    );
    assert_eq!(world.holdings().await.get(&1), None);
}

#[tokio::test]
async fn each_verb_fits_some_standings_and_says_what_to_do_at_the_others() {
    use v1::DeploymentVerb::{AllowRenewal, Resume, Revoke, Suspend};
    let world = World::new(&["soc"]).await;
    let id = named(&world, "soc").await.id;
    for (standing, verb, expected) in [
        (Standing::Active, Suspend, Ok(Standing::Suspended)),
        (Standing::Active, Resume, Ok(Standing::Active)),
        (Standing::Active, Revoke, Ok(Standing::Revoked)),
        (Standing::Active, AllowRenewal, Ok(Standing::Active)),
        (Standing::Suspended, Suspend, Ok(Standing::Suspended)),
        (Standing::Suspended, Resume, Ok(Standing::Active)),
        (Standing::Suspended, Revoke, Ok(Standing::Revoked)),
        (
            Standing::Cloned,
            Suspend,
            Err("keyfleet deployment resume soc"),
        ),
        (Standing::Cloned, Resume, Ok(Standing::Active)),
        (Standing::Cloned, Revoke, Ok(Standing::Revoked)),
        (
            Standing::Revoked,
            Suspend,
            Err("keyfleet deployment replace soc"),
        ),
        (
            Standing::Revoked,
            Resume,
            Err("keyfleet deployment replace soc"),
        ),
        (Standing::Revoked, Revoke, Ok(Standing::Revoked)),
        (
            Standing::Revoked,
            AllowRenewal,
            Err("keyfleet deployment replace soc"),
        ),
    ] {
        let now = clock::now();
        world
            .write(move |tx| Ok(tx.set_standing(id, standing, "so it is", now)?))
            .await;
        let said = say(&world, "soc", verb).await;
        match expected {
            Ok(after) => {
                said.unwrap();
                assert_eq!(row(&world, id).await.standing, after, "{standing} {verb:?}");
            }
            Err(words) => {
                let said = text(said);
                assert!(said.contains(words), "{standing} {verb:?}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn verbs_ask_for_a_reason_an_admin_and_a_deployment_within_the_scope() {
    let world = World::new(&["canary", "soc"]).await;
    let say = async |actor: &Actor, name: &str, reason: &str| {
        let request = v1::ChangeDeploymentRequest {
            name: name.to_owned(),
            verb: v1::DeploymentVerb::Suspend.into(),
            reason: reason.to_owned(),
        };
        world.app.change_deployment(actor, request).await
    };
    let operator = Actor {
        role: Role::Operator,
        ..admin("")
    };
    assert!(matches!(
        say(&operator, "soc", "x").await,
        Err(Error::Forbidden(_))
    ));
    assert!(text(say(&admin(""), "soc", " ").await).contains("say why"));
    assert!(matches!(
        say(&admin(""), "nobody", "x").await,
        Err(Error::NotFound { .. })
    ));
    let scoped = admin("tier=canary");
    assert!(matches!(
        say(&scoped, "soc", "x").await,
        Err(Error::Forbidden(_))
    ));
    say(&scoped, "canary", "x").await.unwrap();
    say(&scoped, "canary", "x").await.unwrap();
    let suspended = audited(&world).await;
    let suspended = suspended
        .iter()
        .filter(|(action, _)| action == "deployment.suspend");
    assert_eq!(suspended.count(), 1, "said twice it is no news");
    assert!(matches!(
        world.app.rotate_ca(&scoped, "x").await,
        Err(Error::Forbidden(_))
    ));
}

#[tokio::test]
async fn a_new_agent_takes_the_place_of_the_lost_one_with_its_name_and_labels() {
    let world = World::new(&[]).await;
    let token = join_token(&world, 1).await;
    let lost = Agent::new("soc");
    let enrolled = lost.enrol(&world, &token).await.unwrap();
    let (id, old) = (enrolled.deployment, who(&enrolled.issued));
    let request = |name: &str| v1::ReplaceDeploymentRequest {
        name: name.to_owned(),
        reason: "the host burnt down".to_owned(),
        ttl_secs: 0,
    };
    let first = world
        .app
        .replace_deployment(&admin(""), request("soc"))
        .await
        .unwrap();
    let made = world
        .app
        .replace_deployment(&admin(""), request("soc"))
        .await
        .unwrap();
    let refused = text(lost.renew(&world, &old).await);
    assert!(
        refused.contains("replaced by ada: the host burnt down"),
        "{refused}"
    );
    let again = text(lost.enrol(&world, &token).await);
    assert!(
        again.contains("used up"),
        "a void identity is not given again: {again}"
    );
    let (new, stranger) = (Agent::new("soc"), Agent::new("other"));
    let older = text(new.enrol(&world, first.value.expose_secret()).await);
    assert!(
        older.contains("revoked"),
        "only the newest word counts: {older}"
    );
    let listed = world.app.tokens(&admin("")).await.unwrap();
    let bound = listed.iter().find(|(token, _)| token.id == made.token.id);
    let bound = bound.and_then(|(_, name)| name.as_ref());
    assert_eq!(bound.map(|name| name.as_str()), Some("soc"));
    let value = made.value.expose_secret();
    assert!(text(stranger.enrol(&world, value).await).contains("new agent of deployment soc"));
    let replaced = new.enrol(&world, value).await.unwrap();
    assert_eq!(replaced.deployment, id);
    let again = new.enrol(&world, value).await.unwrap();
    assert_eq!(again.enrolment, replaced.enrolment, "the answer was lost");
    assert_ne!(replaced.enrolment, enrolled.enrolment);
    let after = row(&world, id).await;
    assert_eq!(
        (after.standing, after.certificate_given),
        (Standing::Active, 2)
    );
    assert_eq!(after.sealing_key, new.sealing_key);
    assert!(text(lost.renew(&world, &old).await).contains("enrol the agent again"));
    assert!(text(Agent::new("soc").enrol(&world, value).await).contains("used up"));
}

#[tokio::test]
async fn removing_a_deployment_closes_its_holdings_and_its_rollout_goes_on() {
    let world = World::new(&["canary", "soc"]).await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world.turn(works).await;
    let remove = async |yes| {
        let request = v1::RemoveDeploymentRequest {
            name: "canary".to_owned(),
            reason: "scrapped".to_owned(),
            yes,
        };
        world.app.remove_deployment(&admin(""), request).await
    };
    let asks = text(remove(false).await);
    assert!(
        asks.contains("1 bindings") && asks.contains("--yes"),
        "{asks}"
    );
    let removed = remove(true).await.unwrap();
    assert_eq!(removed.bindings, 1);
    let open = world
        .write(|tx| Ok(tx.holdings(&"openai".parse().unwrap())?))
        .await;
    let canary = |holding: &keyfleet_store::Holding| {
        let by = holding.closed_by.as_deref();
        by.is_some_and(|by| by.contains("removed by ada: scrapped"))
    };
    assert!(open.iter().any(canary), "{open:?}");
    let mut world = world;
    world.names.retain(|_, name| name == "soc");
    world.settle(works).await;
    assert_eq!(world.newest().await.run.phase, Phase::Completed);
    assert_eq!(world.bindings().await.len(), 1);
    assert!(
        audited(&world)
            .await
            .contains(&("deployment.remove".to_owned(), Outcome::Done))
    );
    // The last one too, in the middle of a rollout that has nobody left then.
    world.new_key_version(3).await;
    world.turn(works).await;
    let request = v1::RemoveDeploymentRequest {
        name: "soc".to_owned(),
        reason: "scrapped".to_owned(),
        yes: true,
    };
    let ada = admin("");
    world.app.remove_deployment(&ada, request).await.unwrap();
    world.names.clear();
    world.settle(works).await;
    let last = world.newest().await.run.phase;
    assert!(last.is_terminal(), "{last}");
}
