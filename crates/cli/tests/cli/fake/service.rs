//! The calls of the fake, over its state.

use std::sync::{Arc, Mutex, MutexGuard};

use keyfleet_proto::v1;
use keyfleet_proto::v1::operator_service_server::OperatorService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::objects::{connector, count};
use super::plan::parse;
use super::{ADMIN, ROLLOUT_IDS, State, Step, VIEWER, before};

pub(super) struct Service(pub(super) Arc<Mutex<State>>);

impl Service {
    fn state<Q>(
        &self,
        request: &Request<Q>,
        writes: bool,
    ) -> Result<MutexGuard<'_, State>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        match token.and_then(|token| token.strip_prefix("Bearer ")) {
            Some(ADMIN) => {}
            Some(VIEWER) if !writes => {}
            Some(VIEWER) => {
                return Err(Status::permission_denied(
                    "this needs the role operator; the token of vera has viewer",
                ));
            }
            _ => return Err(Status::unauthenticated("the token is not known")),
        }
        Ok(self.0.lock().unwrap())
    }
}

fn ok<R>(response: R) -> Result<Response<R>, Status> {
    Ok(Response::new(response))
}

#[tonic::async_trait]
impl OperatorService for Service {
    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let result = self
            .state(&request, false)?
            .plan(&request.get_ref().files)?;
        ok(v1::PlanResponse {
            result: Some(result),
        })
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let request = request.into_inner();
        let result = state.plan(&request.files)?;
        state.applied.push(request.clone());
        let removes = result
            .objects
            .iter()
            .any(|object| object.change() == v1::ChangeKind::Remove);
        if removes && !request.yes {
            return Err(Status::failed_precondition(
                "this removes 2 bindings on 2 deployments and was not agreed to",
            ));
        }
        for line in request.files.iter().flat_map(|file| file.text.lines()) {
            let (key, text) = parse(line);
            state.objects.insert(key, text);
        }
        let rollout_ids = result
            .rollouts
            .iter()
            .zip(ROLLOUT_IDS)
            .map(|(_, id)| id.to_owned())
            .collect();
        ok(v1::ApplyResponse {
            result: Some(result),
            rollout_ids,
        })
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let state = self.state(&request, false)?;
        let active = |rollout: &&v1::Rollout| rollout.ended_at.is_none();
        let waiting = state
            .deployments
            .iter()
            .filter(|deployment| !deployment.waiting.is_empty());
        ok(v1::GetStatusResponse {
            deployments: u32::try_from(state.deployments.len()).unwrap(),
            deployments_connected: u32::try_from(
                state.deployments.iter().filter(|d| d.connected).count(),
            )
            .unwrap(),
            bindings: count(&state.bindings),
            active_rollouts: state.rollouts.iter().filter(active).cloned().collect(),
            problems: state.problems.clone(),
            andon: state.andon.is_some(),
            andon_state: state.andon.clone(),
            control_version: "0.1.0".into(),
            waiting: waiting
                .map(|d| v1::Waiting {
                    deployment: d.name.clone(),
                    sentence: d.waiting.clone(),
                })
                .collect(),
        })
    }

    async fn list_deployments(
        &self,
        request: Request<v1::ListDeploymentsRequest>,
    ) -> Result<Response<v1::ListDeploymentsResponse>, Status> {
        let state = self.state(&request, false)?;
        let selector = &request.get_ref().selector;
        let matches = |d: &&v1::Deployment| match selector.split_once('=') {
            Some((key, value)) => d.labels.get(key).is_some_and(|found| found == value),
            None => true,
        };
        if selector.contains("((") {
            return Err(Status::invalid_argument(
                "selector \"((\" is not valid: unexpected `(` at character 1",
            ));
        }
        ok(v1::ListDeploymentsResponse {
            deployments: state.deployments.iter().filter(matches).cloned().collect(),
        })
    }

    async fn get_deployment(
        &self,
        request: Request<v1::GetDeploymentRequest>,
    ) -> Result<Response<v1::GetDeploymentResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(state.described(&request.get_ref().name)?)
    }

    async fn preflight_deployment(
        &self,
        request: Request<v1::PreflightDeploymentRequest>,
    ) -> Result<Response<v1::PreflightDeploymentResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(state.preflight(request.get_ref())?)
    }

    async fn list_connectors(
        &self,
        request: Request<v1::ListConnectorsRequest>,
    ) -> Result<Response<v1::ListConnectorsResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(v1::ListConnectorsResponse {
            connectors: vec![state.shown_connector()],
        })
    }

    async fn get_connector(
        &self,
        request: Request<v1::GetConnectorRequest>,
    ) -> Result<Response<v1::GetConnectorResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(v1::GetConnectorResponse {
            connector: Some(state.shown_connector()),
            revisions: vec![connector(2, &[]), connector(1, &[])],
            bindings: state.bindings.clone(),
        })
    }

    async fn list_placements(
        &self,
        request: Request<v1::ListPlacementsRequest>,
    ) -> Result<Response<v1::ListPlacementsResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(v1::ListPlacementsResponse {
            placements: state.placements(),
        })
    }

    async fn list_strategies(
        &self,
        request: Request<v1::ListStrategiesRequest>,
    ) -> Result<Response<v1::ListStrategiesResponse>, Status> {
        let state = self.state(&request, false)?;
        let waves = vec![
            "canary: 1 deployment, one at a time, strict".into(),
            "rest: 2 at a time, soak 5m".into(),
        ];
        ok(v1::ListStrategiesResponse {
            strategies: vec![v1::Strategy {
                name: "careful".into(),
                waves,
                set: state.set.clone(),
                rules: state.rules(),
            }],
        })
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(v1::ListKeysResponse { keys: state.keys() })
    }

    async fn get_key(
        &self,
        request: Request<v1::GetKeyRequest>,
    ) -> Result<Response<v1::GetKeyResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(state.key(&request.get_ref().name)?)
    }

    async fn list_bindings(
        &self,
        request: Request<v1::ListBindingsRequest>,
    ) -> Result<Response<v1::ListBindingsResponse>, Status> {
        let state = self.state(&request, false)?;
        let wanted = &request.get_ref().deployment;
        let matches = |binding: &&v1::Binding| wanted.is_empty() || binding.deployment == *wanted;
        ok(v1::ListBindingsResponse {
            bindings: state.bindings.iter().filter(matches).cloned().collect(),
        })
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let state = self.state(&request, false)?;
        let active_only = request.get_ref().active_only;
        let matches = |rollout: &&v1::Rollout| !active_only || rollout.ended_at.is_none();
        ok(v1::ListRolloutsResponse {
            rollouts: state.rollouts.iter().filter(matches).cloned().collect(),
        })
    }

    async fn get_rollout(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Result<Response<v1::GetRolloutResponse>, Status> {
        let state = self.state(&request, false)?;
        let rollout = Some(state.rollout(&request.get_ref().id)?);
        let event = v1::Event {
            at: before(65),
            actor: "ada".into(),
            text: "applied assistant.yaml".into(),
        };
        ok(v1::GetRolloutResponse {
            rollout,
            targets: state.targets.clone(),
            events: vec![event],
        })
    }

    type WatchRolloutStream = ReceiverStream<Result<v1::WatchRolloutResponse, Status>>;

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let mut state = self.state(&request, false)?;
        state.n_watches += 1;
        let id = &request.get_ref().id;
        let n_steps = state
            .script
            .iter()
            .take_while(|step| matches!(step, Step::Now(_)))
            .count();
        let (sender, receiver) = tokio::sync::mpsc::channel(n_steps + 1);
        let mut opened = Ok(());
        for _ in 0..=n_steps {
            if state.script.is_empty() {
                break;
            }
            match state.script.remove(0) {
                Step::Now(rollout) => {
                    let rollout = v1::Rollout {
                        id: id.clone(),
                        ..*rollout
                    };
                    state.rollouts.retain(|known| known.id != *id);
                    state.rollouts.push(rollout.clone());
                    sender
                        .try_send(Ok(v1::WatchRolloutResponse {
                            rollout: Some(rollout),
                        }))
                        .unwrap();
                }
                // Nothing was said yet: the call itself fails.
                Step::Break(status) if n_steps == 0 => opened = Err(status),
                Step::Break(status) => sender.try_send(Err(status)).unwrap(),
                Step::End => {}
            }
        }
        opened?;
        if state.script.is_empty()
            && state.n_watches > 0
            && !state.rollouts.iter().any(|known| known.id == *id)
        {
            return Err(Status::not_found(format!("there is no rollout {id}")));
        }
        ok(ReceiverStream::new(receiver))
    }

    async fn explain_rollout(
        &self,
        request: Request<v1::ExplainRolloutRequest>,
    ) -> Result<Response<v1::ExplainRolloutResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(state.explain(request.get_ref())?)
    }

    type SimulateRolloutStream = ReceiverStream<Result<v1::SimulateRolloutResponse, Status>>;

    async fn simulate_rollout(
        &self,
        request: Request<v1::SimulateRolloutRequest>,
    ) -> Result<Response<Self::SimulateRolloutStream>, Status> {
        let mut state = self.state(&request, false)?;
        let request = request.into_inner();
        state.plan(&request.files)?;
        state.simulated.push(request);
        let parts = state.simulation.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(parts.len().max(1));
        for part in parts {
            sender.try_send(Ok(part)).unwrap();
        }
        ok(ReceiverStream::new(receiver))
    }

    async fn change_rollout(
        &self,
        request: Request<v1::ChangeRolloutRequest>,
    ) -> Result<Response<v1::ChangeRolloutResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let request = request.into_inner();
        let rollout = state.change_rollout(&request)?;
        state.changes.push(request);
        ok(v1::ChangeRolloutResponse {
            rollout: Some(rollout),
        })
    }

    async fn start_campaign(
        &self,
        request: Request<v1::StartCampaignRequest>,
    ) -> Result<Response<v1::StartCampaignResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let campaign = state.start_campaign(request.get_ref())?;
        ok(v1::StartCampaignResponse {
            campaign: Some(campaign),
        })
    }

    async fn list_campaigns(
        &self,
        request: Request<v1::ListCampaignsRequest>,
    ) -> Result<Response<v1::ListCampaignsResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(state.list_campaigns(request.get_ref()))
    }

    async fn get_campaign(
        &self,
        request: Request<v1::GetCampaignRequest>,
    ) -> Result<Response<v1::GetCampaignResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(state.get_campaign(&request.get_ref().id)?)
    }

    type WatchCampaignStream = ReceiverStream<Result<v1::WatchCampaignResponse, Status>>;

    async fn watch_campaign(
        &self,
        request: Request<v1::WatchCampaignRequest>,
    ) -> Result<Response<Self::WatchCampaignStream>, Status> {
        let mut state = self.state(&request, false)?;
        state.campaign(&request.get_ref().id)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        while !state.campaign_script.is_empty() {
            let said = state.campaign_script.remove(0);
            let is_end = said.is_err();
            let said = said.map(|campaign| v1::WatchCampaignResponse {
                campaign: Some(campaign),
            });
            sender.try_send(said).unwrap();
            if is_end {
                break;
            }
        }
        ok(ReceiverStream::new(receiver))
    }

    async fn change_campaign(
        &self,
        request: Request<v1::ChangeCampaignRequest>,
    ) -> Result<Response<v1::ChangeCampaignResponse>, Status> {
        let state = self.state(&request, true)?;
        let campaign = state.change_campaign(request.get_ref())?;
        ok(v1::ChangeCampaignResponse {
            campaign: Some(campaign),
        })
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let request = request.into_inner();
        let token = v1::Token {
            id: format!("0192f3a4-0000-7000-8000-{:012}", state.created.len()),
            kind: request.kind,
            principal: request.principal.clone(),
            role: request.role,
            labels: request.labels.clone(),
            uses_left: request.uses,
            expires_at: before(-i64::from(request.ttl_secs) - 30),
            created_at: before(0),
            created_by: "ada".into(),
            revoked: false,
            scope: request.scope.clone(),
            deployment: String::new(),
        };
        state.tokens.push(token.clone());
        state.created.push(request);
        ok(v1::CreateTokenResponse {
            token: Some(token),
            value: "kfj_shown-this-once".into(),
        })
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let state = self.state(&request, false)?;
        ok(v1::ListTokensResponse {
            tokens: state.tokens.clone(),
        })
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let id = &request.get_ref().id;
        let found = state.tokens.iter_mut().find(|token| token.id == *id);
        found
            .ok_or_else(|| Status::not_found(format!("there is no token {id:?}")))?
            .revoked = true;
        ok(v1::RevokeTokenResponse {})
    }

    async fn delete_object(
        &self,
        request: Request<v1::DeleteObjectRequest>,
    ) -> Result<Response<v1::DeleteObjectResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let request = request.into_inner();
        let result = state.delete(&request)?;
        let starts = !request.plan && !result.deployments.is_empty();
        ok(v1::DeleteObjectResponse {
            rollout_ids: starts
                .then(|| ROLLOUT_IDS[0].to_owned())
                .into_iter()
                .collect(),
            result: Some(result),
        })
    }

    async fn change_deployment(
        &self,
        request: Request<v1::ChangeDeploymentRequest>,
    ) -> Result<Response<v1::ChangeDeploymentResponse>, Status> {
        let mut state = self.state(&request, true)?;
        ok(state.change_deployment(&request.into_inner())?)
    }

    async fn replace_deployment(
        &self,
        request: Request<v1::ReplaceDeploymentRequest>,
    ) -> Result<Response<v1::ReplaceDeploymentResponse>, Status> {
        let mut state = self.state(&request, true)?;
        ok(state.replace_deployment(request.into_inner())?)
    }

    async fn remove_deployment(
        &self,
        request: Request<v1::RemoveDeploymentRequest>,
    ) -> Result<Response<v1::RemoveDeploymentResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let request = request.into_inner();
        assert!(request.yes);
        let n_before = state.deployments.len();
        state.deployments.retain(|d| d.name != request.name);
        if state.deployments.len() == n_before {
            let text = format!("there is no deployment {:?}", request.name);
            return Err(Status::not_found(text));
        }
        ok(v1::RemoveDeploymentResponse {
            held: state.held.clone(),
            bindings: 1,
        })
    }

    async fn label_deployment(
        &self,
        request: Request<v1::LabelDeploymentRequest>,
    ) -> Result<Response<v1::LabelDeploymentResponse>, Status> {
        let mut state = self.state(&request, true)?;
        ok(v1::LabelDeploymentResponse {
            result: Some(state.label(request.get_ref())?),
            rollout_ids: vec![],
        })
    }

    async fn get_ca(
        &self,
        request: Request<v1::GetCaRequest>,
    ) -> Result<Response<v1::GetCaResponse>, Status> {
        ok(self.state(&request, false)?.ca())
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::RotateCaResponse>, Status> {
        let mut state = self.state(&request, true)?;
        state.ca_rotation = Some(false);
        state.act("ca.rotate", "ca", &request.get_ref().reason);
        ok(v1::RotateCaResponse {
            ca: Some(state.ca()),
        })
    }

    async fn finish_ca_rotation(
        &self,
        request: Request<v1::FinishCaRotationRequest>,
    ) -> Result<Response<v1::FinishCaRotationResponse>, Status> {
        let mut state = self.state(&request, true)?;
        state.finish_ca(request.get_ref().yes)?;
        ok(v1::FinishCaRotationResponse {
            ca: Some(state.ca()),
        })
    }

    type ReadAuditStream = ReceiverStream<Result<v1::AuditEntry, Status>>;

    async fn read_audit(
        &self,
        request: Request<v1::ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        let mut state = self.state(&request, false)?;
        let entries = state.read_audit(request.into_inner());
        let (sender, receiver) = tokio::sync::mpsc::channel(entries.len().max(1));
        for entry in entries {
            sender.try_send(Ok(entry)).unwrap();
        }
        ok(ReceiverStream::new(receiver))
    }

    async fn set_andon(
        &self,
        request: Request<v1::SetAndonRequest>,
    ) -> Result<Response<v1::SetAndonResponse>, Status> {
        let mut state = self.state(&request, true)?;
        let request = request.into_inner();
        state.andon = request.on.then(|| v1::AndonState {
            by: "ada".into(),
            reason: request.reason,
            at: before(0),
        });
        ok(v1::SetAndonResponse {
            andon: state.andon.clone(),
        })
    }
}
