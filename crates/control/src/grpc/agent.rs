//! The agents' port: enrolment without, sessions with a client certificate.

use std::pin::Pin;

use futures_util::Stream;
use keyfleet_proto::v1::agent_service_server::AgentService;
use keyfleet_proto::{WireTime, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session;
use crate::app::App;
use crate::app::status::Reporter;
use crate::ca::{Identity, identity};
use crate::clock;
use crate::error::Error;

/// Messages on their way to one agent. Desired state and keys of one change fit many times over; a slow reader
/// holds its own session up and nobody else.
const OUTBOX_MAX: usize = 16;

/// Serves agents.
pub(crate) struct AgentApi {
    pub(crate) app: App,
}

#[tonic::async_trait]
impl AgentService for AgentApi {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let enrolled = self.app.enrol(request.into_inner()).await?;
        Ok(Response::new(v1::EnrollResponse {
            deployment_id: enrolled.deployment.to_string(),
            enrolment_id: enrolled.enrolment.to_string(),
            certificate_der: enrolled.issued.certificate.to_vec().into(),
            ca_certificate_der: self.app.authority.certificate().to_vec().into(),
            not_after: Some(WireTime(enrolled.issued.not_after).into()),
        }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::ControlMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = caller(&request)?;
        let reporter = self.known(&identity).await?;
        let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
        let task = session::run(self.app.clone(), reporter, request.into_inner(), outbox);
        // The stream owns its task: when the transport drops the one, the other is aborted.
        let task = tokio_util::task::AbortOnDropHandle::new(session::spawn(task));
        let stream = session::Owned {
            messages: ReceiverStream::new(messages),
            _task: task,
        };
        Ok(Response::new(Box::pin(stream)))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Identity, Error> {
    let refused = |why: &str| Error::Unauthenticated(format!("the client certificate is {why}"));
    let certificates = request.peer_certs().ok_or_else(|| refused("missing"))?;
    let certificate = certificates.first().ok_or_else(|| refused("missing"))?;
    identity(certificate, clock::now()).ok_or_else(|| refused("not an agent's, or out of date"))
}

impl AgentApi {
    /// The deployment of this identity, if it is the one that is enrolled now.
    async fn known(&self, identity: &Identity) -> Result<Reporter, Error> {
        let id = identity.deployment;
        let row = self
            .app
            .store
            .read(move |tx| Ok::<_, Error>(tx.deployment(id)?))
            .await?;
        let is_enrolled = row.is_some_and(|row| row.enrolment == identity.enrolment);
        if !is_enrolled {
            let text = format!(
                "deployment {id} is not enrolled with this certificate: enrol the agent again"
            );
            return Err(Error::Unauthenticated(text));
        }
        Ok(Reporter {
            deployment: id,
            enrolment: identity.enrolment,
            certificate_serial: identity.serial.clone(),
            certificate_not_after: identity.not_after,
        })
    }
}
