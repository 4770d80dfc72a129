//! Campaigns: the list, one in full with its path, and one in a sentence.

use keyfleet_core::campaign::{Course, State};
use keyfleet_proto::v1;

use super::rollout::short_id;
use super::{Page, words};
use crate::output::{Cell, Table, Tone, View, clean, paint, unique_len, when};

/// The table of campaigns.
pub(crate) fn table(campaigns: &[v1::Campaign], view: &View) -> String {
    let mut table = Table::new(&[
        "ID", "KEY", "STATE", "VERSIONS", "PROVEN", "STARTED", "ENDED", "CAUSE…", "WAITS…",
    ]);
    let id_len = unique_len(campaigns.iter().map(|campaign| campaign.id.as_str()));
    for campaign in campaigns {
        let id: String = if view.wide {
            campaign.id.clone()
        } else {
            campaign.id.chars().take(id_len).collect()
        };
        let waits = campaign.waits.first().cloned().unwrap_or_default();
        table.row(vec![
            id.into(),
            (&campaign.key).into(),
            words::campaign_state_cell(campaign.state),
            versions(campaign).into(),
            proven(campaign).into(),
            when(campaign.started_at, view).into(),
            when(campaign.ended_at, view).into(),
            (&campaign.cause).into(),
            Cell::toned(waits, Tone::Between),
        ]);
    }
    table.without_empty_columns().to_string()
}

/// One campaign with the path it took.
pub(crate) fn page(response: &v1::GetCampaignResponse, view: &View) -> String {
    let mut page = Page::default();
    let campaign = response.campaign.clone().unwrap_or_default();
    facts(&mut page, &campaign, view);
    page.sentences("Waits", Tone::Between, &campaign.waits);
    let mut table = Table::new(&["AT", "STATE", "BY", "WHAT HAPPENED…"]);
    for step in &response.steps {
        table.row(vec![
            when(step.at, view).into(),
            words::campaign_state_cell(step.state),
            (&step.actor).into(),
            (&step.text).into(),
        ]);
    }
    page.table("Path", &table);
    page.finish()
}

/// Why a campaign does not go on.
pub(crate) fn explained(campaign: &v1::Campaign, view: &View) -> String {
    let mut page = Page::default();
    facts(&mut page, campaign, view);
    page.sentences("Waits", Tone::Between, &campaign.waits);
    page.finish()
}

fn facts(page: &mut Page, campaign: &v1::Campaign, view: &View) {
    page.fact("Campaign", &campaign.id);
    page.fact("Key", &campaign.key);
    let (word, tone) = words::campaign_state_word(campaign.state);
    page.fact("State", paint(word, tone));
    page.fact("Path", path(campaign));
    page.fact("Reason", clean(&campaign.reason));
    page.fact("Cause", clean(&campaign.cause));
    page.fact("By", clean(&campaign.actor));
    page.fact("Versions", versions(campaign));
    page.fact("Proven", proven(campaign));
    let rollouts = campaign.rollout_ids.iter().map(|id| short_id(id));
    page.fact("Rollouts", rollouts.collect::<Vec<_>>().join(", "));
    page.fact("Approvals", approvals(campaign));
    page.fact("Started", when(campaign.started_at, view));
    page.fact("In its state", when(campaign.state_since, view));
    page.fact("Ended", when(campaign.ended_at, view));
}

/// A campaign in a sentence, after a verb and at its end.
pub(crate) fn sentence(campaign: &v1::Campaign) -> String {
    let (word, _) = words::campaign_state_word(campaign.state);
    let (id, key) = (short_id(&campaign.id), &campaign.key);
    let mut text = format!("campaign {id} of key {key} is {word}");
    if let Some(wait) = campaign.waits.first() {
        text.push_str(": ");
        text.push_str(&clean(wait));
    } else if !campaign.reason.is_empty() {
        text.push_str(": ");
        text.push_str(&clean(&campaign.reason));
    }
    text
}

/// True where nothing but a person's word brings it further.
pub(crate) fn waits_for_person(campaign: &v1::Campaign) -> bool {
    let lacks =
        u32::try_from(campaign.approved_by.len()).unwrap_or(u32::MAX) < campaign.approvals_needed;
    match words::campaign_state(campaign.state) {
        Some(State::RevokeReady) => lacks && campaign.waits.len() == 1,
        Some(State::Revoking) => campaign
            .waits
            .iter()
            .any(|wait| wait.starts_with("revoke ")),
        _ => false,
    }
}

fn versions(campaign: &v1::Campaign) -> String {
    let version = |number| match number {
        0 => "?".to_owned(),
        number => format!("v{number}"),
    };
    let (old, new) = (version(campaign.old_version), version(campaign.new_version));
    format!("{old} -> {new}")
}

/// How many bindings have proven what they are to have; empty where the fleet is not concerned.
pub(crate) fn proven(campaign: &v1::Campaign) -> String {
    match campaign.bindings {
        0 => String::new(),
        all => format!("{}/{all}", campaign.bindings_proven),
    }
}

fn approvals(campaign: &v1::Campaign) -> String {
    let (given, needed) = (campaign.approved_by.len(), campaign.approvals_needed);
    match campaign.approved_by.as_slice() {
        [] => format!("0 of {needed}"),
        names => format!("{given} of {needed}: {}", clean(&names.join(", "))),
    }
}

/// The states it passes, the present one in brackets: words alone say it, colour only helps.
fn path(campaign: &v1::Campaign) -> String {
    let course = words::campaign_course(campaign.course).unwrap_or(Course::Forward);
    let now = words::campaign_state(campaign.state);
    let at = match now {
        Some(State::Halted) => words::campaign_state(campaign.stopped),
        now => now,
    };
    let states = states(course);
    let words = states.iter().map(|state| {
        let word = state.as_str();
        match Some(*state) == at {
            true => paint(&format!("[{word}]"), Tone::Good),
            false => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" > ")
}

fn states(course: Course) -> &'static [State] {
    match course {
        Course::Forward => &[
            State::Planned,
            State::Minting,
            State::Validating,
            State::Rolling,
            State::Converged,
            State::Draining,
            State::RevokeReady,
            State::Revoking,
            State::VerifyingDead,
            State::Closed,
        ],
        Course::RevokeFirst => &[
            State::Planned,
            State::Revoking,
            State::VerifyingDead,
            State::Minting,
            State::Validating,
            State::Rolling,
            State::Closed,
        ],
        Course::Back => &[
            State::RollingBack,
            State::Draining,
            State::RevokeReady,
            State::Revoking,
            State::VerifyingDead,
            State::RolledBack,
        ],
        Course::Cancel => &[
            State::Draining,
            State::RevokeReady,
            State::Revoking,
            State::VerifyingDead,
            State::Cancelled,
        ],
    }
}
