//! What the fake says of campaigns, and what a verb makes of one.

use keyfleet_proto::v1;
use tonic::Status;

use super::{State, before};

/// A campaign in this state, as control tells it.
pub(crate) fn campaign(state: v1::CampaignState, waits: &[&str]) -> v1::Campaign {
    let is_over = matches!(
        state,
        v1::CampaignState::Closed | v1::CampaignState::RolledBack | v1::CampaignState::Cancelled
    );
    v1::Campaign {
        id: "0192f3a4-5b6c-7d8e-9f00-0000000000aa".to_owned(),
        key: "openai-prod".to_owned(),
        state: state.into(),
        stopped: 0,
        course: v1::CampaignCourse::Forward.into(),
        old_version: 3,
        new_version: 4,
        cause: "key openai-prod has version 4 in Vault".to_owned(),
        actor: "keyfleet".to_owned(),
        started_at: before(7_200),
        state_since: before(600),
        ended_at: is_over.then(|| before(60)).flatten(),
        reason: String::new(),
        waits: waits.iter().map(|wait| (*wait).to_owned()).collect(),
        bindings: 50,
        bindings_proven: 12,
        rollout_ids: vec![super::ROLLOUT_IDS[0].to_owned()],
        approved_by: vec!["ana".to_owned()],
        approvals_needed: 2,
    }
}

/// The path of the fake's campaigns.
fn steps(campaign: &v1::Campaign) -> Vec<v1::CampaignStep> {
    let step = |state: v1::CampaignState, actor: &str, text: &str| v1::CampaignStep {
        at: before(3_600),
        actor: actor.to_owned(),
        state: state.into(),
        text: text.to_owned(),
    };
    vec![
        step(v1::CampaignState::Planned, "keyfleet", &campaign.cause),
        step(
            v1::CampaignState::Validating,
            "keyfleet",
            "v4 is in Vault already",
        ),
        step(v1::CampaignState::Rolling, "keyfleet", "v4 works from here"),
    ]
}

impl State {
    /// The campaign whose id begins so; the only active one where nothing is said.
    pub(super) fn campaign(&self, id: &str) -> Result<v1::Campaign, Status> {
        let is_it = |campaign: &&v1::Campaign| match id {
            "" => campaign.ended_at.is_none(),
            id => campaign.id.starts_with(id),
        };
        let found = self.campaigns.iter().find(is_it).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no campaign {id:?}")))
    }

    /// Those that are asked for.
    pub(super) fn list_campaigns(
        &self,
        request: &v1::ListCampaignsRequest,
    ) -> v1::ListCampaignsResponse {
        let is_asked = |campaign: &&v1::Campaign| {
            (!request.active_only || campaign.ended_at.is_none())
                && (request.key.is_empty() || campaign.key == request.key)
        };
        v1::ListCampaignsResponse {
            campaigns: self.campaigns.iter().filter(is_asked).cloned().collect(),
        }
    }

    /// One with its path.
    pub(super) fn get_campaign(&self, id: &str) -> Result<v1::GetCampaignResponse, Status> {
        let campaign = self.campaign(id)?;
        Ok(v1::GetCampaignResponse {
            steps: steps(&campaign),
            campaign: Some(campaign),
        })
    }

    /// A new one, where somebody agreed with what it breaks.
    pub(super) fn start_campaign(
        &mut self,
        request: &v1::StartCampaignRequest,
    ) -> Result<v1::Campaign, Status> {
        if request.revoke_first && !request.yes {
            return Err(Status::failed_precondition(
                "50 bindings on 50 deployments use key openai-prod v3 and stop working until another version is in Vault and proven: agree with `--yes`",
            ));
        }
        let mut started = campaign(
            v1::CampaignState::Minting,
            &["write the new version to Vault at secret/keyfleet/openai#api_key"],
        );
        started.key.clone_from(&request.key);
        started.cause.clone_from(&request.reason);
        self.campaigns.push(started.clone());
        Ok(started)
    }

    /// The campaign after this verb.
    pub(super) fn change_campaign(
        &self,
        request: &v1::ChangeCampaignRequest,
    ) -> Result<v1::Campaign, Status> {
        let mut campaign = self.campaign(&request.id)?;
        let state = match request.verb() {
            v1::CampaignVerb::Pause => v1::CampaignState::Halted,
            v1::CampaignVerb::Resume | v1::CampaignVerb::Approve => campaign.state(),
            v1::CampaignVerb::Rollback => v1::CampaignState::RollingBack,
            v1::CampaignVerb::Confirm => {
                let text = "a campaign that is ROLLING does not take confirm";
                return Err(Status::failed_precondition(text));
            }
            v1::CampaignVerb::Unspecified => {
                return Err(Status::invalid_argument("field `verb` is missing"));
            }
        };
        campaign.state = state.into();
        campaign.reason.clone_from(&request.reason);
        Ok(campaign)
    }
}
