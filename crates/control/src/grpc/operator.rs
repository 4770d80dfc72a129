//! The operators' API: each call through the gate, then its use case.

mod calls;
mod gate;
mod preflight;
mod streams;
mod tokens;

#[cfg(test)]
mod tests;

use keyfleet_core::campaign;
use keyfleet_core::fleet::Selector;
use keyfleet_core::rollout::Verb;
use keyfleet_proto::v1::operator_service_server::OperatorService;
use keyfleet_proto::{Invalid, v1};
use secrecy::ExposeSecret as _;
use tonic::{Request, Response, Status};

use crate::app::apply::{Batch, Intent};
use crate::app::audit::Since;
use crate::app::campaign::verbs::Wanted;
use crate::app::rollout::find;
use crate::app::{App, view};
use streams::Answers;

/// Serves operators.
pub(crate) struct OperatorApi {
    pub(crate) app: App,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OperatorService for OperatorApi {
    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanResponse> {
        self.act(request, |app, actor, call| async move {
            let batch = Batch {
                files: call.files,
                set: call.set,
                prune: call.prune,
                reason: String::new(),
            };
            let applied = app.apply(&actor, batch, Intent::Plan).await?;
            Ok(v1::PlanResponse {
                result: Some(applied.result),
            })
        })
        .await
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Answer<v1::ApplyResponse> {
        self.act(request, |app, actor, call| async move {
            let intent = Intent::Apply { yes: call.yes };
            let batch = Batch {
                files: call.files,
                set: call.set,
                prune: call.prune,
                reason: call.reason,
            };
            let applied = app.apply(&actor, batch, intent).await?;
            Ok(v1::ApplyResponse {
                result: Some(applied.result),
                rollout_ids: applied.rollouts.iter().map(ToString::to_string).collect(),
            })
        })
        .await
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Answer<v1::GetStatusResponse> {
        let held_up = self.app.sessions.pace.clone();
        self.look(request, move |_, sight| {
            let mut status = view::status(sight)?;
            status
                .problems
                .extend(preflight::probes_held_up(&held_up, sight));
            Ok(status)
        })
        .await
    }

    async fn list_deployments(
        &self,
        request: Request<v1::ListDeploymentsRequest>,
    ) -> Answer<v1::ListDeploymentsResponse> {
        self.look(request, |call, sight| {
            let selector: Selector = Invalid::parse("selector", &call.selector)?;
            let deployments = view::deployments(sight, &selector)?;
            Ok(v1::ListDeploymentsResponse { deployments })
        })
        .await
    }

    async fn get_deployment(
        &self,
        request: Request<v1::GetDeploymentRequest>,
    ) -> Answer<v1::GetDeploymentResponse> {
        self.look(request, |call, sight| view::deployment(sight, &call.name))
            .await
    }

    async fn preflight_deployment(
        &self,
        request: Request<v1::PreflightDeploymentRequest>,
    ) -> Answer<v1::PreflightDeploymentResponse> {
        let (actor, call) = self.admit(request).await?;
        let answer = preflight::run(&self.app, &actor, &call).await?;
        Ok(Response::new(answer))
    }

    async fn list_connectors(
        &self,
        request: Request<v1::ListConnectorsRequest>,
    ) -> Answer<v1::ListConnectorsResponse> {
        self.look(request, |_, sight| {
            let connectors = view::connectors(sight)?;
            Ok(v1::ListConnectorsResponse { connectors })
        })
        .await
    }

    async fn get_connector(
        &self,
        request: Request<v1::GetConnectorRequest>,
    ) -> Answer<v1::GetConnectorResponse> {
        self.look(request, |call, sight| view::connector(sight, &call.name))
            .await
    }

    async fn list_placements(
        &self,
        request: Request<v1::ListPlacementsRequest>,
    ) -> Answer<v1::ListPlacementsResponse> {
        self.look(request, |_, sight| {
            let placements = view::placements(sight)?;
            Ok(v1::ListPlacementsResponse { placements })
        })
        .await
    }

    async fn list_strategies(
        &self,
        request: Request<v1::ListStrategiesRequest>,
    ) -> Answer<v1::ListStrategiesResponse> {
        self.look(request, |_, sight| {
            let strategies = view::strategies(sight)?;
            Ok(v1::ListStrategiesResponse { strategies })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Answer<v1::ListKeysResponse> {
        self.look(request, |_, sight| {
            let keys = view::keys(sight)?;
            Ok(v1::ListKeysResponse { keys })
        })
        .await
    }

    async fn get_key(&self, request: Request<v1::GetKeyRequest>) -> Answer<v1::GetKeyResponse> {
        self.look(request, |call, sight| view::key(sight, &call.name))
            .await
    }

    async fn list_bindings(
        &self,
        request: Request<v1::ListBindingsRequest>,
    ) -> Answer<v1::ListBindingsResponse> {
        self.look(request, |call, sight| {
            let bindings = view::binding_views(sight, &call.deployment, &call.connector)?;
            Ok(v1::ListBindingsResponse { bindings })
        })
        .await
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Answer<v1::ListRolloutsResponse> {
        self.look(request, |call, sight| {
            let rollouts = view::rollouts(sight, call.active_only)?;
            Ok(v1::ListRolloutsResponse { rollouts })
        })
        .await
    }

    async fn get_rollout(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Answer<v1::GetRolloutResponse> {
        self.look(request, |call, sight| {
            view::rollout_detail(sight, find(sight, &call.id)?)
        })
        .await
    }

    type WatchRolloutStream = Answers<v1::WatchRolloutResponse>;

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Answer<Self::WatchRolloutStream> {
        self.act(request, |app, actor, call| async move {
            Ok(streams::rollout(app, actor, call.id))
        })
        .await
    }

    async fn change_rollout(
        &self,
        request: Request<v1::ChangeRolloutRequest>,
    ) -> Answer<v1::ChangeRolloutResponse> {
        self.act(request, |app, actor, call| async move {
            let verb = Verb::try_from(call.verb())?;
            let id = app
                .change_rollout(&actor, &call.id, verb, &call.wave, &call.reason)
                .await?;
            let rollout = streams::snapshot(&app, &actor, id.to_string()).await?;
            Ok(v1::ChangeRolloutResponse {
                rollout: Some(rollout),
            })
        })
        .await
    }

    async fn explain_rollout(
        &self,
        request: Request<v1::ExplainRolloutRequest>,
    ) -> Answer<v1::ExplainRolloutResponse> {
        self.act(request, |app, actor, call| async move {
            app.explain_rollout(&actor, call).await
        })
        .await
    }

    async fn start_campaign(
        &self,
        request: Request<v1::StartCampaignRequest>,
    ) -> Answer<v1::StartCampaignResponse> {
        self.act(request, |app, actor, call| async move {
            let wanted = Wanted {
                key: call.key,
                reason: call.reason,
                revoke_first: call.revoke_first,
                yes: call.yes,
            };
            let id = app.start_campaign(&actor, wanted).await?;
            let campaign = streams::campaign_now(&app, &actor, id.to_string()).await?;
            Ok(v1::StartCampaignResponse {
                campaign: Some(campaign),
            })
        })
        .await
    }

    async fn list_campaigns(
        &self,
        request: Request<v1::ListCampaignsRequest>,
    ) -> Answer<v1::ListCampaignsResponse> {
        self.look(request, |call, sight| {
            let campaigns = view::campaigns(sight, &call)?;
            Ok(v1::ListCampaignsResponse { campaigns })
        })
        .await
    }

    async fn get_campaign(
        &self,
        request: Request<v1::GetCampaignRequest>,
    ) -> Answer<v1::GetCampaignResponse> {
        self.look(request, |call, sight| view::campaign(sight, &call.id))
            .await
    }

    type WatchCampaignStream = Answers<v1::WatchCampaignResponse>;

    async fn watch_campaign(
        &self,
        request: Request<v1::WatchCampaignRequest>,
    ) -> Answer<Self::WatchCampaignStream> {
        self.act(request, |app, actor, call| async move {
            Ok(streams::campaign(app, actor, call.id))
        })
        .await
    }

    async fn change_campaign(
        &self,
        request: Request<v1::ChangeCampaignRequest>,
    ) -> Answer<v1::ChangeCampaignResponse> {
        self.act(request, |app, actor, call| async move {
            let verb = campaign::Verb::try_from(call.verb())?;
            let id = app
                .change_campaign(&actor, &call.id, verb, &call.reason)
                .await?;
            let campaign = streams::campaign_now(&app, &actor, id.to_string()).await?;
            Ok(v1::ChangeCampaignResponse {
                campaign: Some(campaign),
            })
        })
        .await
    }

    type SimulateRolloutStream = Answers<v1::SimulateRolloutResponse>;

    async fn simulate_rollout(
        &self,
        request: Request<v1::SimulateRolloutRequest>,
    ) -> Answer<Self::SimulateRolloutStream> {
        self.act(request, |app, actor, call| async move {
            streams::simulation(app, actor, call, streams::SIMULATION_DEADLINE)
        })
        .await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        self.act(request, |app, actor, call| async move {
            let reason = call.reason.clone();
            let new = tokens::new_token(call, &actor)?;
            let (token, value) = app.create_token(&actor, new, &reason).await?;
            Ok(v1::CreateTokenResponse {
                token: Some(tokens::wire_token(token, None)),
                value: value.expose_secret().to_owned(),
            })
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Answer<v1::ListTokensResponse> {
        self.act(request, |app, actor, _| async move {
            let tokens = app.tokens(&actor).await?.into_iter();
            Ok(v1::ListTokensResponse {
                tokens: tokens
                    .map(|(token, bound)| tokens::wire_token(token, bound))
                    .collect(),
            })
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Answer<v1::RevokeTokenResponse> {
        self.act(request, |app, actor, call| async move {
            let id = Invalid::parse("id", &call.id)?;
            app.revoke_token(&actor, id, &call.reason).await?;
            Ok(v1::RevokeTokenResponse {})
        })
        .await
    }

    async fn delete_object(
        &self,
        request: Request<v1::DeleteObjectRequest>,
    ) -> Answer<v1::DeleteObjectResponse> {
        self.act(request, |app, actor, call| async move {
            app.delete_object(&actor, call).await
        })
        .await
    }

    async fn change_deployment(
        &self,
        request: Request<v1::ChangeDeploymentRequest>,
    ) -> Answer<v1::ChangeDeploymentResponse> {
        self.act(request, |app, actor, call| async move {
            app.change_deployment(&actor, call).await
        })
        .await
    }

    async fn replace_deployment(
        &self,
        request: Request<v1::ReplaceDeploymentRequest>,
    ) -> Answer<v1::ReplaceDeploymentResponse> {
        self.act(request, |app, actor, call| async move {
            let made = app.replace_deployment(&actor, call).await?;
            Ok(v1::ReplaceDeploymentResponse {
                token: Some(tokens::wire_token(made.token, Some(made.name))),
                value: made.value.expose_secret().to_owned(),
                held: made.held,
            })
        })
        .await
    }

    async fn remove_deployment(
        &self,
        request: Request<v1::RemoveDeploymentRequest>,
    ) -> Answer<v1::RemoveDeploymentResponse> {
        self.act(request, |app, actor, call| async move {
            app.remove_deployment(&actor, call).await
        })
        .await
    }

    async fn label_deployment(
        &self,
        request: Request<v1::LabelDeploymentRequest>,
    ) -> Answer<v1::LabelDeploymentResponse> {
        self.act(request, |app, actor, call| async move {
            app.label_deployment(&actor, call).await
        })
        .await
    }

    async fn get_ca(&self, request: Request<v1::GetCaRequest>) -> Answer<v1::GetCaResponse> {
        self.act(request, |app, actor, _| async move { app.ca(&actor).await })
            .await
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Answer<v1::RotateCaResponse> {
        self.act(request, |app, actor, call| async move {
            let ca = app.rotate_ca(&actor, &call.reason).await?;
            Ok(v1::RotateCaResponse { ca: Some(ca) })
        })
        .await
    }

    async fn finish_ca_rotation(
        &self,
        request: Request<v1::FinishCaRotationRequest>,
    ) -> Answer<v1::FinishCaRotationResponse> {
        self.act(request, |app, actor, call| async move {
            let ca = app
                .finish_ca_rotation(&actor, &call.reason, call.yes)
                .await?;
            Ok(v1::FinishCaRotationResponse { ca: Some(ca) })
        })
        .await
    }

    type ReadAuditStream = Answers<v1::AuditEntry>;

    async fn read_audit(
        &self,
        request: Request<v1::ReadAuditRequest>,
    ) -> Answer<Self::ReadAuditStream> {
        self.act(request, |app, actor, call| async move {
            let from = Since::new(call.from, call.last)?;
            Ok(streams::audit(app, actor, from, call.follow))
        })
        .await
    }

    async fn set_andon(
        &self,
        request: Request<v1::SetAndonRequest>,
    ) -> Answer<v1::SetAndonResponse> {
        self.act(request, |app, actor, call| async move {
            app.set_andon(&actor, call).await
        })
        .await
    }
}
