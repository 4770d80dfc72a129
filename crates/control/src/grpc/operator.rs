//! The operators' API.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use keyfleet_core::fleet::Selector;
use keyfleet_core::rollout::Verb;
use keyfleet_core::token::Role;
use keyfleet_proto::v1::operator_service_server::OperatorService;
use keyfleet_proto::{Invalid, WireTime, labels, v1};
use keyfleet_store::{Token, TokenUse};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::app::apply::Intent;
use crate::app::rollout::find;
use crate::app::tokens::NewToken;
use crate::app::{Actor, App, view};
use crate::error::Error;

/// Changes that come faster than this are shown as one.
const WATCH_COALESCE: Duration = Duration::from_millis(100);

/// Snapshots on their way to one watcher: the next waits until the last was taken.
const WATCH_MAX: usize = 1;

/// Serves operators.
pub(crate) struct OperatorApi {
    pub(crate) app: App,
}

type Answer<T> = Result<Response<T>, Status>;

impl OperatorApi {
    async fn actor<T>(&self, request: &Request<T>) -> Result<Actor, Error> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let missing = || Error::Unauthenticated("there is no bearer token".to_owned());
        self.app.authenticate(token.ok_or_else(missing)?).await
    }

    /// Reads for anybody who may look.
    async fn look<Q, T: Send + 'static>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(Q, &keyfleet_store::Tx<'_>, &view::Scene) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T>
    where
        Q: Send + 'static,
    {
        self.actor(&request).await?.must_be(Role::Viewer)?;
        let question = request.into_inner();
        Ok(Response::new(
            self.app
                .view(move |tx, scene| work(question, tx, scene))
                .await?,
        ))
    }
}

#[tonic::async_trait]
impl OperatorService for OperatorApi {
    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanResponse> {
        let actor = self.actor(&request).await?;
        let applied = self
            .app
            .apply(&actor, &request.into_inner().files, Intent::Plan)
            .await?;
        Ok(Response::new(v1::PlanResponse {
            result: Some(applied.result),
        }))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Answer<v1::ApplyResponse> {
        let actor = self.actor(&request).await?;
        let request = request.into_inner();
        let intent = Intent::Apply { yes: request.yes };
        let applied = self.app.apply(&actor, &request.files, intent).await?;
        Ok(Response::new(v1::ApplyResponse {
            result: Some(applied.result),
            rollout_ids: applied.rollouts.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Answer<v1::GetStatusResponse> {
        self.look(request, |_, tx, scene| view::status(tx, scene))
            .await
    }

    async fn list_deployments(
        &self,
        request: Request<v1::ListDeploymentsRequest>,
    ) -> Answer<v1::ListDeploymentsResponse> {
        self.look(request, |question, tx, scene| {
            let selector: Selector = Invalid::parse("selector", &question.selector)?;
            let deployments = view::deployments(tx, scene, &selector)?;
            Ok(v1::ListDeploymentsResponse { deployments })
        })
        .await
    }

    async fn get_deployment(
        &self,
        request: Request<v1::GetDeploymentRequest>,
    ) -> Answer<v1::GetDeploymentResponse> {
        self.look(request, |question, tx, scene| {
            view::deployment(tx, scene, &question.name)
        })
        .await
    }

    async fn list_connectors(
        &self,
        request: Request<v1::ListConnectorsRequest>,
    ) -> Answer<v1::ListConnectorsResponse> {
        self.look(request, |_, tx, scene| {
            Ok(v1::ListConnectorsResponse {
                connectors: view::connectors(tx, scene)?,
            })
        })
        .await
    }

    async fn get_connector(
        &self,
        request: Request<v1::GetConnectorRequest>,
    ) -> Answer<v1::GetConnectorResponse> {
        self.look(request, |question, tx, scene| {
            view::connector(tx, scene, &question.name)
        })
        .await
    }

    async fn list_placements(
        &self,
        request: Request<v1::ListPlacementsRequest>,
    ) -> Answer<v1::ListPlacementsResponse> {
        self.look(request, |_, tx, _| {
            Ok(v1::ListPlacementsResponse {
                placements: view::placements(tx)?,
            })
        })
        .await
    }

    async fn list_strategies(
        &self,
        request: Request<v1::ListStrategiesRequest>,
    ) -> Answer<v1::ListStrategiesResponse> {
        self.look(request, |_, tx, _| {
            Ok(v1::ListStrategiesResponse {
                strategies: view::strategies(tx)?,
            })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Answer<v1::ListKeysResponse> {
        self.look(request, |_, tx, _| {
            Ok(v1::ListKeysResponse {
                keys: view::keys(tx)?,
            })
        })
        .await
    }

    async fn get_key(&self, request: Request<v1::GetKeyRequest>) -> Answer<v1::GetKeyResponse> {
        self.look(request, |question, tx, _| view::key(tx, &question.name))
            .await
    }

    async fn list_bindings(
        &self,
        request: Request<v1::ListBindingsRequest>,
    ) -> Answer<v1::ListBindingsResponse> {
        self.look(request, |question, tx, scene| {
            let bindings =
                view::binding_views(tx, scene, &question.deployment, &question.connector)?;
            Ok(v1::ListBindingsResponse { bindings })
        })
        .await
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Answer<v1::ListRolloutsResponse> {
        self.look(request, |question, tx, scene| {
            let rollouts = view::rollouts(tx, scene, question.active_only)?;
            Ok(v1::ListRolloutsResponse { rollouts })
        })
        .await
    }

    async fn get_rollout(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Answer<v1::GetRolloutResponse> {
        self.look(request, |question, tx, scene| {
            view::rollout_detail(tx, scene, find(tx, &question.id)?)
        })
        .await
    }

    type WatchRolloutStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchRolloutResponse, Status>> + Send>>;

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Answer<Self::WatchRolloutStream> {
        self.actor(&request).await?.must_be(Role::Viewer)?;
        let (sender, receiver) = mpsc::channel(WATCH_MAX);
        let task = watch(self.app.clone(), request.into_inner().id, sender);
        let task = tokio_util::task::AbortOnDropHandle::new(super::session::spawn(task));
        let stream = Watched {
            snapshots: ReceiverStream::new(receiver),
            _task: task,
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn change_rollout(
        &self,
        request: Request<v1::ChangeRolloutRequest>,
    ) -> Answer<v1::ChangeRolloutResponse> {
        let actor = self.actor(&request).await?;
        let request = request.into_inner();
        let verb = Verb::try_from(request.verb()).map_err(Error::from)?;
        let id = self
            .app
            .change_rollout(&actor, &request.id, verb, &request.reason)
            .await?;
        let rollout = snapshot(&self.app, id.to_string()).await?;
        Ok(Response::new(v1::ChangeRolloutResponse {
            rollout: Some(rollout),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let actor = self.actor(&request).await?;
        let new = new_token(request.into_inner(), &actor).map_err(Error::from)?;
        let (token, value) = self.app.create_token(&actor, new).await?;
        let value = value.expose_secret().to_owned();
        Ok(Response::new(v1::CreateTokenResponse {
            token: Some(wire_token(token)),
            value,
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Answer<v1::ListTokensResponse> {
        let actor = self.actor(&request).await?;
        let tokens = self
            .app
            .tokens(&actor)
            .await?
            .into_iter()
            .map(wire_token)
            .collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Answer<v1::RevokeTokenResponse> {
        let actor = self.actor(&request).await?;
        let id = Invalid::parse("id", &request.into_inner().id).map_err(Error::from)?;
        self.app.revoke_token(&actor, id).await?;
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }
}

fn new_token(wire: v1::CreateTokenRequest, actor: &Actor) -> Result<NewToken, Invalid> {
    let ttl = (wire.ttl_secs > 0).then(|| Duration::from_secs(u64::from(wire.ttl_secs)));
    match wire.kind() {
        v1::TokenKind::Join => {
            let labels = labels("labels", wire.labels)?;
            Ok(crate::app::tokens::join(
                labels,
                wire.uses,
                &actor.principal,
                ttl,
            ))
        }
        v1::TokenKind::Operator => {
            let role = Role::try_from(wire.role())?;
            let principal = wire.principal.trim().to_owned();
            if principal.is_empty() {
                return Err(Invalid::new(
                    "principal",
                    "is empty: name who will act with this token",
                ));
            }
            Ok(NewToken {
                usage: TokenUse::Operator { role },
                principal,
                ttl,
            })
        }
        v1::TokenKind::Unspecified => Err(Invalid::missing("kind")),
    }
}

fn wire_token(token: Token) -> v1::Token {
    let mut wire = v1::Token {
        id: token.id.to_string(),
        principal: token.principal,
        expires_at: Some(WireTime(token.expires_at).into()),
        created_at: Some(WireTime(token.created_at).into()),
        created_by: token.created_by,
        revoked: token.revoked,
        ..v1::Token::default()
    };
    match token.usage {
        TokenUse::Join { labels, uses_left } => {
            wire.kind = v1::TokenKind::Join.into();
            wire.labels = labels;
            wire.uses_left = uses_left;
        }
        TokenUse::Operator { role } => {
            wire.kind = v1::TokenKind::Operator.into();
            wire.role = v1::Role::from(role).into();
        }
    }
    wire
}

async fn snapshot(app: &App, id: String) -> Result<v1::Rollout, Error> {
    app.view(move |tx, scene| view::rollout(tx, scene, find(tx, &id)?))
        .await
}

/// The stream to a watcher, with the task that feeds it.
struct Watched {
    snapshots: ReceiverStream<Result<v1::WatchRolloutResponse, Status>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Stream for Watched {
    type Item = Result<v1::WatchRolloutResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        Pin::new(&mut self.snapshots).poll_next(context)
    }
}

/// Sends the rollout as it is and after every change, until it has ended.
async fn watch(
    app: App,
    id: String,
    sender: mpsc::Sender<Result<v1::WatchRolloutResponse, Status>>,
) {
    let mut changes = app.watch();
    let mut last = None;
    loop {
        changes.mark_unchanged();
        let rollout = match snapshot(&app, id.clone()).await {
            Ok(rollout) => rollout,
            Err(err) => {
                let _ = sender.send(Err(err.into())).await;
                return;
            }
        };
        let is_over = rollout.ended_at.is_some();
        if last.as_ref() != Some(&rollout) {
            let message = v1::WatchRolloutResponse {
                rollout: Some(rollout.clone()),
            };
            if sender.send(Ok(message)).await.is_err() || is_over {
                return;
            }
            last = Some(rollout);
        }
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = app.shutdown.cancelled() => return,
            // Cancel-safe: a change stays seen until it is marked.
            _ = changes.changed() => tokio::time::sleep(WATCH_COALESCE).await,
        }
    }
}
