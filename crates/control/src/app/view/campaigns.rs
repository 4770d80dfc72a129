//! Campaigns: where each stands, why it waits, and the path it took.

use keyfleet_core::campaign::trial_waits;
use keyfleet_core::id::KeyName;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{CampaignRow, CampaignStep};

use super::{Sight, wire_time};
use crate::error::Error;

/// Most campaigns of a list.
const LIST_MAX: u32 = 100;

/// The campaigns, the newest first.
pub(crate) fn campaigns(
    sight: &Sight<'_>,
    call: &v1::ListCampaignsRequest,
) -> Result<Vec<v1::Campaign>, Error> {
    let key: Option<KeyName> = match call.key.as_str() {
        "" => None,
        key => Some(Invalid::parse("key", key)?),
    };
    let is_asked = |row: &CampaignRow| {
        (!call.active_only || row.ended_at.is_none())
            && key.as_ref().is_none_or(|key| row.key == *key)
    };
    let rows = sight.campaigns(LIST_MAX)?.into_iter().filter(is_asked);
    rows.map(|row| wire(sight, row)).collect()
}

/// One campaign with its path.
pub(crate) fn campaign(sight: &Sight<'_>, id: &str) -> Result<v1::GetCampaignResponse, Error> {
    let row = sight.campaign(id)?;
    let steps = sight.campaign_steps(row.id)?;
    Ok(v1::GetCampaignResponse {
        steps: steps.into_iter().map(wire_step).collect(),
        campaign: Some(wire(sight, row)?),
    })
}

/// One campaign.
pub(crate) fn only_campaign(sight: &Sight<'_>, id: &str) -> Result<v1::Campaign, Error> {
    let row = sight.campaign(id)?;
    wire(sight, row)
}

fn wire(sight: &Sight<'_>, row: CampaignRow) -> Result<v1::Campaign, Error> {
    let (found, rollouts) = sight.found(&row)?;
    let name = sight.name();
    let waits = trial_waits(&row.campaign, &found);
    let waits = waits.iter().map(|wait| wait.sentence(&name)).collect();
    let approved_by = sight.campaign_approvals(row.id)?;
    let campaign = row.campaign;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(v1::Campaign {
        id: row.id.to_string(),
        key: row.key.to_string(),
        state: v1::CampaignState::from(campaign.state).into(),
        stopped: campaign
            .stopped
            .map_or(0, |at| v1::CampaignState::from(at).into()),
        course: v1::CampaignCourse::from(campaign.course).into(),
        old_version: campaign.old.map_or(0, |version| version.0),
        new_version: campaign.new.map_or(0, |version| version.0),
        cause: row.cause,
        actor: row.actor,
        started_at: wire_time(row.started_at),
        state_since: wire_time(row.state_since),
        ended_at: row.ended_at.and_then(wire_time),
        reason: campaign.reason,
        waits,
        bindings: count(found.users),
        bindings_proven: count(found.proven),
        rollout_ids: rollouts.iter().map(|row| row.id.to_string()).collect(),
        approved_by,
        approvals_needed: row.rotation.approvals,
    })
}

fn wire_step(step: CampaignStep) -> v1::CampaignStep {
    v1::CampaignStep {
        at: wire_time(step.at),
        actor: step.actor,
        state: v1::CampaignState::from(step.state).into(),
        text: step.text,
    }
}
