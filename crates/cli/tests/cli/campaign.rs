//! `keyfleet campaign`: what is shown of one, the verbs, and the watch.

use keyfleet_proto::v1;
use tonic::Status;
use v1::CampaignState as State;

use crate::fake::campaign;
use crate::harness::{Home, check, two_deployments};

const SPREAD: &str = "12 of 50 bindings have proven what they are to have";
const REVOKE: &str = "revoke v3 at the provider, then say `keyfleet campaign confirm`";

fn home(campaigns: Vec<v1::Campaign>, script: Vec<Result<v1::Campaign, Status>>) -> Home {
    let mut state = two_deployments();
    state.campaigns = campaigns;
    state.campaign_script = script;
    Home::new(state)
}

#[test]
fn campaigns_are_listed_shown_and_explained() {
    let rolling = campaign(State::Rolling, &[SPREAD]);
    let closed = v1::Campaign {
        id: "0192f3a4-1111-7d8e-9f00-0000000000ab".to_owned(),
        ..campaign(State::Closed, &[])
    };
    let home = home(vec![rolling, closed], vec![]);
    let text = [
        home.run(&["campaign", "list"]),
        home.run(&["get", "campaigns", "--active"]),
        home.run(&["campaign", "list", "--key", "other"]),
        home.run(&["campaign", "show"]),
        home.run(&["describe", "campaign", "0192f3a4-1"]),
        home.run(&["campaign", "explain", "0192f3a4-5"]),
        home.run(&["campaign", "explain", "0192f3a4-5", "-o", "json"]),
        home.run(&["campaign", "explain", "ffff"]),
    ];
    check("campaign_views", &text.join("\n"));
}

#[test]
fn each_course_is_drawn_as_its_path() {
    let courses = [
        (v1::CampaignCourse::Forward, State::Halted),
        (v1::CampaignCourse::RevokeFirst, State::Minting),
        (v1::CampaignCourse::Back, State::Draining),
        (v1::CampaignCourse::Cancel, State::Cancelled),
    ];
    let mut text = String::new();
    for (course, state) in courses {
        let seen = v1::Campaign {
            course: course.into(),
            stopped: State::Rolling.into(),
            ..campaign(state, &[])
        };
        let page = home(vec![seen], vec![]).run(&["campaign", "explain", "0192f3a4"]);
        let lines = page.lines().skip_while(|line| !line.starts_with("State:"));
        let lines = lines.take_while(|line| !line.starts_with("Cause:"));
        text.extend(lines.map(|line| format!("{line}\n")));
    }
    check("campaign_paths", &text);
}

#[test]
fn verbs_change_a_campaign_and_a_leak_asks_first() {
    let home = home(vec![campaign(State::Rolling, &[SPREAD])], vec![]);
    let text = [
        home.run(&["campaign", "pause", "0192f3a4", "--reason", "lunch"]),
        home.run(&["campaign", "resume", "0192f3a4"]),
        home.run(&[
            "campaign",
            "rollback",
            "0192f3a4",
            "--reason",
            "wrong project",
        ]),
        home.run(&["campaign", "approve", "0192f3a4"]),
        home.run(&["campaign", "confirm", "0192f3a4"]),
        home.run(&["campaign", "start", "openai-prod", "--leak"]),
        home.run(&["campaign", "start", "openai-prod", "--yes"]),
        home.run(&[
            "campaign",
            "start",
            "openai-prod",
            "--leak",
            "--yes",
            "--reason",
            "leaked",
        ]),
    ];
    check("campaign_verbs", &text.join("\n"));
}

#[test]
fn a_watch_says_each_change_and_ends_as_the_campaign_does() {
    let said = |state, waits: &[&str]| Ok(campaign(state, waits));
    let ready = || {
        let mut ready = campaign(
            State::RevokeReady,
            &["v3: 1 of 2 people have agreed that it is revoked"],
        );
        ready.bindings_proven = 50;
        ready
    };
    let mut text = String::new();
    for (args, end) in [
        (&["campaign", "watch"][..], campaign(State::Closed, &[])),
        (&["campaign", "watch"][..], campaign(State::RolledBack, &[])),
        (&["campaign", "watch"][..], campaign(State::Cancelled, &[])),
        (
            &["campaign", "watch", "--exit-on-halt"][..],
            campaign(State::Halted, &["it was paused"]),
        ),
        (&["campaign", "watch", "--exit-on-halt"][..], ready()),
        (
            &["campaign", "watch", "--exit-on-halt"][..],
            campaign(State::Revoking, &[REVOKE]),
        ),
    ] {
        let script = vec![
            said(State::Validating, &["the provider is asked about v4"]),
            said(State::Rolling, &[SPREAD]),
            Err(Status::unavailable("a restart")),
            said(State::Rolling, &[SPREAD]),
            Ok(end),
        ];
        let home = home(vec![campaign(State::Rolling, &[SPREAD])], script);
        text.push_str(&home.run(args));
        text.push('\n');
    }
    check("campaign_watch", &text);
}
