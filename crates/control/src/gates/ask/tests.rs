//! Questions to a server on loopback that holds state.

use keyfleet_core::rollout::{Action, Verdict};
use keyfleet_sim::gate::{self, GateServer, Says};

use super::*;

/// Shorter than in service: a server that never answers is waited for this long.
const SHORT: Duration = Duration::from_millis(300);

fn asker(allowed: &[&str], deadline: Duration) -> Asker {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Gates {
        allowed_hosts: allowed.iter().map(|host| host.parse().unwrap()).collect(),
        ..Gates::default()
    };
    Asker::with_deadline(&settings, deadline).unwrap()
}

/// The server's host and port, as the setting names them.
fn host(server: &GateServer) -> String {
    server.url().replace("http://", "")
}

fn gate(check: GateCheck) -> Gate {
    Gate {
        name: "gate".to_owned(),
        check,
        interval: Duration::from_secs(10),
        action: Action::Halt,
        fail_after: 1,
        inconclusive_after: 1,
    }
}

fn page(url: &str) -> Gate {
    gate(GateCheck::Http {
        url: url.parse().unwrap(),
    })
}

fn query(url: &str) -> Gate {
    gate(GateCheck::Prometheus {
        url: url.parse().unwrap(),
        query: "sum(rate(errors[5m])) / 2 > bool 1 # &?ü".to_owned(),
        fail_if: "> 0.02".parse().unwrap(),
    })
}

#[track_caller]
fn check(answer: &Answer, verdict: Verdict, text: &str) {
    assert_eq!(answer.verdict, verdict, "{}", answer.text);
    assert!(answer.text.contains(text), "{}", answer.text);
}

#[tokio::test]
async fn a_page_and_a_query_are_asked_as_they_are_written() {
    let server = gate::start().await.unwrap();
    let asker = asker(&[&host(&server)], DEADLINE);
    let page = page(&format!("{}/health?deep=1", server.url()));
    check(&asker.ask(&page).await, Verdict::Pass, "200 OK");
    server.say(Says::Fail("the budget is spent".to_owned()));
    let answer = asker.ask(&page).await;
    check(&answer, Verdict::Fail, "409 Conflict: the budget is spent");

    for path in ["", "/", "/prometheus", "/prometheus/?tenant=a"] {
        let query = query(&format!("{}{path}", server.url()));
        server.measure(&["0.01"]);
        let answer = asker.ask(&query).await;
        check(&answer, Verdict::Pass, "0.01 (fails if > 0.02)");
        server.measure(&["0.01", "0.03"]);
        check(&asker.ask(&query).await, Verdict::Fail, "0.03");
        let asked = server.query().unwrap();
        assert_eq!(asked, "sum(rate(errors[5m])) / 2 > bool 1 # &?ü");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_well_says_nothing() {
    let server = gate::start().await.unwrap();
    let other = gate::start().await.unwrap();
    let asker = asker(&[&host(&server)], SHORT);
    let (page, query) = (page(&server.url()), query(&server.url()));
    let check_both = async |says: Says, of_page: (Verdict, &str), of_query: &str| {
        server.say(says);
        check(&asker.ask(&page).await, of_page.0, of_page.1);
        check(&asker.ask(&query).await, Verdict::Inconclusive, of_query);
    };
    let nothing = |text| (Verdict::Inconclusive, text);
    let busy = nothing("503 Service Unavailable: not now");
    check_both(Says::Inconclusive, busy, "query timed out").await;
    let late = "no answer within 300ms";
    check_both(Says::Hang, nothing(late), late).await;
    check_both(Says::Slow(SHORT * 4), nothing(late), late).await;
    let broken = "cannot be reached";
    check_both(Says::Close, nothing(broken), broken).await;
    let moved = "redirects are not followed";
    check_both(Says::Redirect(other.url()), nothing(moved), moved).await;
    assert_eq!(other.asked(), 0);
    // A page answers by its status; what comes after it does not matter.
    let passes = (Verdict::Pass, "200 OK");
    check_both(Says::Half, passes, broken).await;
    check_both(Says::Html, passes, "not one of Prometheus").await;
    check_both(Says::Long, passes, "longer than 1 MiB").await;
}

#[tokio::test]
async fn nobody_is_asked_who_is_not_allowed() {
    let server = gate::start().await.unwrap();
    let asker = asker(&["other.example", "*.example.org"], SHORT);
    let answer = asker.ask(&page(&server.url())).await;
    let says = "may not be asked: add it to the setting gates.allowed_hosts";
    check(&answer, Verdict::Inconclusive, says);
    assert!(answer.text.starts_with(&host(&server)), "{}", answer.text);
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn this_machine_is_not_asked_through_a_proxy() {
    let (server, through) = (gate::start().await.unwrap(), gate::start().await.unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hosts = [
        host(&server),
        host(&server).replace("127.0.0.1", "localhost"),
    ];
    for no_proxy in [None, Some("elsewhere.example".to_owned())] {
        let settings = Gates {
            allowed_hosts: hosts.each_ref().map(|host| host.parse().unwrap()).into(),
            proxy: Some(keyfleet_vault::Proxy {
                url: through.url().parse().unwrap(),
                no_proxy,
            }),
            ..Gates::default()
        };
        let asker = Asker::new(&settings).unwrap();
        for url in [server.url(), server.url().replace("127.0.0.1", "localhost")] {
            check(&asker.ask(&page(&url)).await, Verdict::Pass, "200 OK");
        }
    }
    assert_eq!((server.asked(), through.asked()), (4, 0));
}

#[tokio::test]
async fn an_error_shows_nothing_of_the_url() {
    let url = closed(gate::start().await.unwrap()).await;
    let page = page(&format!("{url}/?token=canary"));
    let answer = asker(&[&url.replace("http://", "")], SHORT)
        .ask(&page)
        .await;
    check(&answer, Verdict::Inconclusive, "it cannot be reached");
    assert!(!answer.text.contains("canary"), "{}", answer.text);
}

/// An address where nobody listens.
async fn closed(server: GateServer) -> String {
    let url = server.url();
    server.shutdown().await;
    url
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let with = |path: &std::path::Path| {
        let settings = Gates {
            ca_file: Some(path.to_owned()),
            ..Gates::default()
        };
        Asker::new(&settings).unwrap_err().to_string()
    };
    assert!(with(file.path()).contains("holds no PEM certificate (setting gates.ca_file)"));
    assert!(with("/nowhere".as_ref()).contains("cannot read /nowhere"));
}
