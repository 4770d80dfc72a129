//! Certificates, whom TLS lets in, and the replacement of the CA.

use super::*;

use keyfleet_core::id::{DeploymentId, EnrolmentId};
use rustls::pki_types::UnixTime;

const DAY: Duration = Duration::from_secs(86_400);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().unwrap()))
}

fn subject(number: u64) -> Subject {
    Subject {
        deployment: DeploymentId::new(uuid::Uuid::from_u128(1)),
        enrolment: EnrolmentId::new(uuid::Uuid::from_u128(2)),
        number,
    }
}

fn authority(now: Timestamp) -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path(), now).unwrap();
    let authority = Authority::load(dir.path()).unwrap();
    (dir, authority)
}

/// A certificate for a new key, by the CA that signs now.
fn issue(authority: &Authority, number: u64, now: Timestamp) -> Issued {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let request = Request::read(request.der()).unwrap();
    let cas = authority.cas();
    cas.signer()
        .sign(request, &subject(number), now, DAY * 14)
        .unwrap()
}

/// Whether TLS lets a certificate in.
fn passes(authority: &Authority, issued: &Issued, now: Timestamp) -> bool {
    let verifier = AgentVerifier::new(authority.clone());
    verifier
        .verify_client_cert(&issued.certificate, &[], unix(now))
        .is_ok()
}

#[test]
fn a_connection_that_is_older_than_the_end_of_a_rotation_is_trusted_no_more() {
    let now = crate::clock::now();
    let (_dir, authority) = authority(now);
    let (ended, old) = (
        issue(&authority, 1, at("2026-01-01T00:00:00Z")),
        issue(&authority, 1, now),
    );
    assert!(authority.trusts(&ended.certificate), "it may be renewed");
    authority.begin_rotation(now).unwrap();
    let new = issue(&authority, 2, now);
    let trusts = |issued: &Issued| authority.trusts(&issued.certificate);
    assert!(trusts(&old) && trusts(&new));
    authority.finish_rotation().unwrap();
    assert!(!trusts(&old) && !trusts(&ended) && trusts(&new));
}

#[test]
fn an_agents_certificate_says_who_it_is_and_when_it_ends() {
    let now = at("2026-11-23T12:00:00Z");
    let (_dir, authority) = authority(now);
    let issued = issue(&authority, 7, now);
    let found = identity(&issued.certificate).unwrap();
    assert_eq!(found.subject, subject(7));
    assert_eq!(found.serial, issued.serial);
    assert!(!found.is_ended(at("2026-12-07T11:59:59Z")));
    assert!(found.is_ended(at("2026-12-07T12:00:00Z")));
    assert!(matches!(Request::read(b"nonsense"), Err(Error::Request)));
    assert_eq!(authority.pin().len(), 64);
    assert_eq!(issued.ca, authority.pin());
}

#[test]
fn tls_lets_an_ended_certificate_in_but_none_of_another_ca_and_none_from_the_future() {
    let now = at("2026-11-23T12:00:00Z");
    let (_dir, ours) = authority(now);
    let (_other_dir, theirs) = authority(now);
    let issued = issue(&ours, 1, now);
    for (later, expected) in [
        ("2026-11-23T12:00:01Z", true),
        ("2026-12-07T12:00:01Z", true),
        ("2028-11-23T12:00:00Z", true),
        ("2026-11-23T10:00:00Z", false),
    ] {
        assert_eq!(passes(&ours, &issued, at(later)), expected, "{later}");
    }
    assert!(!passes(&theirs, &issued, now));
    // What a server presents is no agent's certificate, though the same CA signed it.
    let server = ours.cas().server(&["localhost".to_owned()], now).unwrap();
    let verifier = AgentVerifier::new(ours);
    let certificate = &server.cert[0];
    assert!(
        verifier
            .verify_client_cert(certificate, &[], unix(now))
            .is_err()
    );
}

#[test]
fn both_cas_are_trusted_until_the_rotation_ends_and_a_start_in_between_changes_nothing() {
    let now = at("2026-11-23T12:00:00Z");
    let (dir, authority) = authority(now);
    let (first_pin, old) = (authority.pin(), issue(&authority, 1, now));
    assert!(matches!(
        authority.finish_rotation(),
        Err(Error::Rotation(_))
    ));
    authority.begin_rotation(now).unwrap();
    assert!(matches!(
        authority.begin_rotation(now),
        Err(Error::Rotation(_))
    ));
    let new = issue(&authority, 2, now);
    assert_eq!(
        authority.pin(),
        first_pin,
        "servers present the older one until the end"
    );
    assert_ne!(new.ca, first_pin);
    assert_eq!(authority.cas().certificates().len(), 2);
    let again = Authority::load(dir.path()).unwrap();
    for authority in [&authority, &again] {
        assert!(passes(authority, &old, now) && passes(authority, &new, now));
        assert_eq!(authority.pin(), first_pin);
    }
    again.finish_rotation().unwrap();
    let after = Authority::load(dir.path()).unwrap();
    for authority in [&again, &after] {
        assert!(!passes(authority, &old, now) && passes(authority, &new, now));
        assert_eq!(authority.pin(), new.ca);
        assert_eq!(authority.cas().certificates().len(), 1);
    }
}
