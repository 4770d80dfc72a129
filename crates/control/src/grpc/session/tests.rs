//! A session that is begun without a stream: what it tells, refuses and writes down.

use super::*;

use keyfleet_core::audit::Outcome;
use keyfleet_core::id::{DeploymentId, EnrolmentId};
use keyfleet_proto::v1::DeploymentVerb;
use keyfleet_seal::SealingSecret;
use keyfleet_store::{EventScope, NewCertificate, NewEnrolment};

use crate::app::scenario::world::{World, ops, works};
use crate::clock;
use keyfleet_core::Timestamp;
use keyfleet_core::token::Role;

type Told = mpsc::Receiver<Result<v1::ControlMessage, Status>>;

/// A session of the agent of `soc`, begun as if it had said Hello, and what it is told.
async fn begin(world: &World, number: u64) -> (Session, Told) {
    let (session, told) = try_begin(world, number).await;
    (session.unwrap(), told)
}

async fn try_begin(world: &World, number: u64) -> (Result<Session, Error>, Told) {
    let id = *world.names.keys().next().unwrap();
    let enrolment = EnrolmentId::new(uuid::Uuid::from_u128(1));
    let caller = Caller {
        reporter: Reporter {
            deployment: id,
            enrolment,
            certificate_serial: "01".to_owned(),
            certificate_not_after: Timestamp::MAX,
        },
        number,
        is_cloned: false,
        hang_up: CancellationToken::new(),
    };
    let (outbox, told) = mpsc::channel(64);
    let entered = world
        .app
        .sessions
        .enter(id, "boot", false, &world.app.shutdown);
    let Entered::Seat(seat) = entered else {
        panic!("there is no place");
    };
    let hello = v1::Hello {
        boot_id: "boot".to_owned(),
        nonce: vec![7; 32].into(),
        ..v1::Hello::default()
    };
    let session = Session::begin(world.app.clone(), caller, seat, hello, outbox).await;
    (session, told)
}

/// One deployment that was told something, whose agent can be sealed to.
async fn world() -> World {
    let world = World::new(&["soc"]).await;
    let id = *world.names.keys().next().unwrap();
    let new = NewEnrolment {
        enrolment: EnrolmentId::new(uuid::Uuid::from_u128(1)),
        at: clock::now(),
        sealing_key: SealingSecret::generate().unwrap().public().to_vec(),
        agent_version: "test".to_owned(),
        certificate: NewCertificate {
            serial: "01".to_owned(),
            not_after: Timestamp::MAX,
            ca: world.app.authority.pin(),
        },
    };
    world.write(move |tx| Ok(tx.enrol_again(id, &new)?)).await;
    world.settle(works).await;
    world
}

/// What was told since the last look, by name.
fn told(receiver: &mut Told) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        names.push(match message.unwrap().message.unwrap() {
            ToAgent::Welcome(welcome) if welcome.andon => "welcome, andon",
            ToAgent::Welcome(_) => "welcome",
            ToAgent::Desired(_) => "desired",
            ToAgent::SealedKey(_) => "key",
            ToAgent::StatusAnswer(answer) if answer.report_full_state => "report everything",
            ToAgent::StatusAnswer(_) => "stored",
            ToAgent::GoAway(_) => "go away",
            ToAgent::Andon(andon) if andon.on => "andon",
            ToAgent::Andon(_) => "andon is over",
            ToAgent::KeyRefused(_) => "key refused",
            ToAgent::RenewNow(_) => "renew",
            ToAgent::ProbeGrant(_) => "probe grant",
            ToAgent::CheckNow(_) => "check now",
            ToAgent::ProveNow(_) => "prove now",
        });
    }
    names
}

async fn say(world: &World, verb: DeploymentVerb) {
    let admin = crate::app::Actor {
        role: Role::Admin,
        ..ops()
    };
    let request = v1::ChangeDeploymentRequest {
        name: "soc".to_owned(),
        verb: verb.into(),
        reason: "because".to_owned(),
    };
    world.app.change_deployment(&admin, request).await.unwrap();
}

async fn refusals(world: &World) -> usize {
    let entries = world.write(|tx| Ok(tx.audit(1, 1_000)?)).await;
    let is_refusal = |entry: &&keyfleet_store::AuditEntry| {
        entry.entry.action == "key.refuse" && entry.entry.outcome == Outcome::Refused
    };
    entries.iter().filter(is_refusal).count()
}

fn heartbeat() -> v1::AgentMessage {
    v1::AgentMessage {
        message: Some(FromAgent::Heartbeat(v1::Heartbeat {})),
    }
}

#[tokio::test]
async fn nothing_is_told_while_andon_is_on_and_everything_afterwards() {
    let world = world().await;
    let andon = Andon {
        by: "ada".to_owned(),
        reason: "smoke".to_owned(),
        at: clock::now(),
    };
    world.app.andon.send_replace(Some(andon));
    let (mut session, mut receiver) = begin(&world, 1).await;
    assert_eq!(told(&mut receiver), ["welcome, andon"]);
    session.on_changed().await.unwrap();
    assert_eq!(told(&mut receiver), [""; 0]);
    world.app.andon.send_replace(None);
    session.on_changed().await.unwrap();
    assert_eq!(told(&mut receiver), ["desired"]);
}

#[tokio::test]
async fn an_agent_hears_of_andon_while_its_session_waits_for_a_key() {
    let world = world().await;
    let (session, mut receiver) = begin(&world, 1).await;
    told(&mut receiver);
    let heard = async {
        let mut names = Vec::new();
        for by in [Some("ada"), None] {
            let andon = by.map(|by| Andon {
                by: by.to_owned(),
                reason: "smoke".to_owned(),
                at: clock::now(),
            });
            world.app.andon.send_replace(andon);
            let message = receiver.recv().await.unwrap().unwrap().message.unwrap();
            let ToAgent::Andon(andon) = message else {
                panic!("{message:?}");
            };
            names.push(andon.on);
        }
        names
    };
    // Vault does not answer.
    let work = std::future::pending();
    let andon = serve::say_andon(session.outbox.clone(), session.andon.clone());
    tokio::select! {
        ended = serve::attend(&session.seat.end, andon, work) => panic!("{ended:?}"),
        heard = heard => assert_eq!(heard, [true, false]),
    }
}

#[tokio::test]
async fn a_suspended_agent_is_told_nothing_and_asked_for_everything_when_it_is_resumed() {
    let world = world().await;
    say(&world, DeploymentVerb::Suspend).await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    assert_eq!(told(&mut receiver), ["welcome"]);
    let key = || ("openai".parse().unwrap(), KeyVersion(1));
    let (name, version) = key();
    session.on_key_request(name, version).await.unwrap();
    assert_eq!(told(&mut receiver), ["key refused"]);
    assert_eq!(refusals(&world).await, 1);
    say(&world, DeploymentVerb::Resume).await;
    session.on_changed().await.unwrap();
    assert_eq!(told(&mut receiver), ["report everything", "desired"]);
    assert!(
        session.told.asked.contains(&key()),
        "what it asked for is sent when it can be"
    );
    // What changes between a look and a send stops the send.
    let standings = session.seat.standings();
    let id = session.reporter.deployment;
    let desired = world.app.desired(id).await.unwrap();
    say(&world, DeploymentVerb::Suspend).await;
    session.told.told = None;
    session.tell(desired, standings).await.unwrap();
    assert_eq!(told(&mut receiver), [""; 0]);
}

#[tokio::test]
async fn refused_key_requests_are_written_down_once_each_and_so_many_in_all() {
    let world = world().await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    assert_eq!(told(&mut receiver), ["welcome", "desired"]);
    for version in [7, 7, 7, 8] {
        let name = "openai".parse().unwrap();
        session
            .on_key_request(name, KeyVersion(version))
            .await
            .unwrap();
    }
    assert_eq!(told(&mut receiver), ["key refused"; 4]);
    assert_eq!(refusals(&world).await, 2);
    for version in 9..60 {
        let name = "openai".parse().unwrap();
        session
            .on_key_request(name, KeyVersion(version))
            .await
            .unwrap();
        told(&mut receiver);
    }
    assert_eq!(refusals(&world).await, limits::REFUSALS_MAX);
}

#[tokio::test]
async fn a_certificate_is_seen_when_its_agent_has_heard_the_welcome() {
    let world = world().await;
    let (mut session, _receiver) = begin(&world, 1).await;
    let id = session.reporter.deployment;
    let seen = async || {
        let row = world.write(move |tx| Ok(tx.deployment(id)?)).await;
        row.unwrap().certificate_seen
    };
    assert_eq!(seen().await, 0);
    session.on_message(heartbeat()).await.unwrap();
    assert_eq!(seen().await, 1);
}

#[tokio::test]
async fn a_certificate_that_was_superseded_before_its_hello_is_a_clone() {
    let world = world().await;
    let id = *world.names.keys().next().unwrap();
    world.write(move |tx| Ok(tx.see_certificate(id, 2)?)).await;
    let (refused, _told) = try_begin(&world, 1).await;
    assert!(matches!(refused.err(), Some(Error::Precondition(_))));
    let row = world.write(move |tx| Ok(tx.deployment(id)?)).await.unwrap();
    assert_eq!(row.standing, Standing::Cloned);
}

#[tokio::test]
async fn an_agent_whose_place_another_has_taken_gets_nothing_though_nobody_ended_its_session() {
    let world = world().await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    told(&mut receiver);
    let id = session.reporter.deployment;
    let new = NewEnrolment {
        enrolment: EnrolmentId::new(uuid::Uuid::from_u128(2)),
        at: clock::now(),
        sealing_key: vec![9; 32],
        agent_version: "test".to_owned(),
        certificate: NewCertificate {
            serial: "02".to_owned(),
            not_after: Timestamp::MAX,
            ca: world.app.authority.pin(),
        },
    };
    world.write(move |tx| Ok(tx.enrol_again(id, &new)?)).await;
    session.told.told = None;
    assert!(session.on_changed().await.is_err());
    let key = "openai".parse().unwrap();
    assert!(session.on_key_request(key, KeyVersion(1)).await.is_err());
    assert_eq!(told(&mut receiver), [""; 0]);
}

#[tokio::test]
async fn what_waited_for_a_place_is_not_sent_once_the_agent_is_suspended() {
    let world = world().await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    let go_away = || Ok(wire(ToAgent::GoAway(v1::GoAway::default())));
    while session.outbox.try_send(go_away()).is_ok() {}
    session.told.told = None;
    let (desired, standings) = (
        world
            .app
            .desired(session.reporter.deployment)
            .await
            .unwrap(),
        session.seat.standings(),
    );
    let suspend = async {
        say(&world, DeploymentVerb::Suspend).await;
        told(&mut receiver);
    };
    let (sent, ()) = tokio::join!(session.tell(desired, standings), suspend);
    sent.unwrap();
    assert_eq!(told(&mut receiver), [""; 0]);
}

#[tokio::test]
async fn a_suspended_agent_fails_nothing_and_a_number_that_cannot_be_is_refused() {
    let world = world().await;
    let (mut session, _receiver) = begin(&world, 1).await;
    let id = session.reporter.deployment;
    let desired = world.app.desired(id).await.unwrap().document;
    say(&world, DeploymentVerb::Suspend).await;
    let before = world.bindings().await;
    let answer = v1::DesiredAnswer {
        generation: desired.generation,
        digest: desired.digest.clone(),
        rejected: "no".to_owned(),
    };
    let answer = v1::AgentMessage {
        message: Some(FromAgent::DesiredAnswer(answer)),
    };
    session.on_message(answer).await.unwrap();
    assert_eq!(world.bindings().await, before);

    for (revision, key_version) in [(u64::MAX, 1), (1, 1 << 63)] {
        let status = v1::BindingStatus {
            binding: desired.bindings[0].binding.clone(),
            generation: desired.generation,
            state: v1::BindingState::Applied.into(),
            running: Some(v1::Assignment {
                revision,
                key_version,
            }),
            ..v1::BindingStatus::default()
        };
        let report = v1::StatusReport {
            sequence: 1,
            bindings: vec![status],
            ..v1::StatusReport::default()
        };
        let refused = session.on_report(report).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn the_agent_is_told_to_renew_when_the_ca_is_replaced() {
    let world = world().await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    told(&mut receiver);
    world.app.authority.begin_rotation(clock::now()).unwrap();
    session.on_changed().await.unwrap();
    session.on_changed().await.unwrap();
    session.on_message(heartbeat()).await.unwrap();
    assert_eq!(told(&mut receiver), ["renew"], "once is enough for now");
}

#[tokio::test]
async fn a_flood_ends_the_session_and_stands_in_the_history_once() {
    let world = world().await;
    for _ in 0..2 {
        let (mut session, mut receiver) = begin(&world, 1).await;
        let mut sent = 0;
        let err = loop {
            match session.on_message(heartbeat()).await {
                Ok(()) => sent += 1,
                Err(err) => break err,
            }
            told(&mut receiver);
        };
        assert!((1_000..5_000).contains(&sent), "{sent}");
        assert!(err.to_string().contains("messages at once"), "{err}");
    }
    let id: DeploymentId = *world.names.keys().next().unwrap();
    let history = world
        .write(move |tx| Ok(tx.events(EventScope::Deployment(id), 100)?))
        .await;
    let floods = history
        .iter()
        .filter(|event| event.text.contains("messages at once"));
    assert_eq!(floods.count(), 1);
}

#[tokio::test]
async fn an_agent_waits_in_line_once_however_often_it_asks() {
    let world = world().await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    let welcome = receiver.recv().await.unwrap().unwrap().message.unwrap();
    assert!(matches!(welcome, ToAgent::Welcome(welcome) if welcome.probe_grants));
    told(&mut receiver);
    let ask = |count| v1::AgentMessage {
        message: Some(FromAgent::ProbeRequest(v1::ProbeRequest { count })),
    };
    session.on_message(ask(0)).await.unwrap();
    assert!(session.turn.is_none());
    let mut granted = Vec::new();
    for count in [3, 4_000_000_000] {
        for _ in 0..5 {
            session.on_message(ask(count)).await.unwrap();
        }
        let count = serve::turn(&mut session.turn).await;
        session.on_turn(count).await.unwrap();
        granted.push(count);
    }
    assert_eq!(granted, [3, 7], "a new control service lets ten through");
    assert_eq!(told(&mut receiver), ["probe grant", "probe grant"]);
}

#[tokio::test]
async fn an_agent_looks_when_somebody_waits_for_it() {
    let world = world().await;
    let (mut session, mut receiver) = begin(&world, 1).await;
    told(&mut receiver);
    let asked = world
        .app
        .sessions
        .look(session.reporter.deployment)
        .unwrap();
    session.seat.looks.wanted.notified().await;
    session.say_check_now().await.unwrap();
    assert_eq!(told(&mut receiver), ["check now"]);
    let at = prost_types::Timestamp {
        seconds: 1_800_000_000,
        nanos: 0,
    };
    for sequence in 1..=2 {
        // The second time nothing is new but the time.
        let report = v1::StatusReport {
            sequence,
            facts: Some(v1::KibanaFacts {
                observed_at: Some(prost_types::Timestamp {
                    seconds: at.seconds + i64::try_from(sequence).unwrap(),
                    ..at
                }),
                ..v1::KibanaFacts::default()
            }),
            ..v1::StatusReport::default()
        };
        session.on_report(report).await.unwrap();
    }
    let found = asked.found().await.unwrap();
    assert_eq!(found.as_second(), at.seconds + 2);
    let id = session.reporter.deployment;
    drop(session);
    assert!(world.app.sessions.look(id).is_none(), "nobody is there");
}
