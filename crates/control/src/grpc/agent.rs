//! The agents' port: enrolment without, everything else with a client certificate.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use keyfleet_core::standing::Standing;
use keyfleet_proto::v1::agent_service_server::AgentService;
use keyfleet_proto::{WireTime, v1};
use keyfleet_store::Tx;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session;
use crate::app::App;
use crate::app::enrol::Issuing;
use crate::app::renew::enrolled;
use crate::app::status::Reporter;
use crate::ca::{Identity, identity};
use crate::clock;
use crate::error::Error;
use crate::tls::Peer;

/// Messages on their way to one agent. Desired state and keys of one change fit many times over; a slow reader
/// holds its own session up and nobody else.
const OUTBOX_MAX: usize = 16;

/// Serves agents.
pub(crate) struct AgentApi {
    pub(crate) app: App,
    pub(crate) issuing: Arc<Issuing>,
}

#[tonic::async_trait]
impl AgentService for AgentApi {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let (app, issuing) = (self.app.clone(), self.issuing.clone());
        let enrol = async move { app.enrol(request.into_inner(), &issuing).await };
        let enrolled = self.app.to_its_end(enrol).await?;
        Ok(Response::new(v1::EnrollResponse {
            deployment_id: enrolled.deployment.to_string(),
            enrolment_id: enrolled.enrolment.to_string(),
            certificate_der: enrolled.issued.certificate.to_vec().into(),
            ca_certificates_der: self.app.authority.cas().certificates(),
            not_after: Some(WireTime(enrolled.issued.not_after).into()),
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let (identity, _) = self.caller(&request)?;
        let issued = self
            .app
            .renew(&identity, request.into_inner(), &self.issuing)
            .await?;
        Ok(Response::new(v1::RenewResponse {
            certificate_der: issued.certificate.to_vec().into(),
            ca_certificates_der: self.app.authority.cas().certificates(),
            not_after: Some(WireTime(issued.not_after).into()),
        }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::ControlMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (identity, peer) = self.caller(&request)?;
        let caller = self.known(identity, peer).await?;
        let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
        let task = session::run(self.app.clone(), caller, request.into_inner(), outbox);
        // The stream owns its task: when the transport drops the one, the other is aborted.
        let task = tokio_util::task::AbortOnDropHandle::new(session::spawn(task));
        let stream = session::Owned {
            messages: ReceiverStream::new(messages),
            _task: task,
        };
        Ok(Response::new(Box::pin(stream)))
    }
}

impl AgentApi {
    /// Who calls. The certificate may have ended. Its chain was checked by TLS, but a connection may be older than the
    /// end of a rotation of the CA.
    fn caller<T>(&self, request: &Request<T>) -> Result<(Identity, Peer), Error> {
        let refused =
            |why: &str| Error::Unauthenticated(format!("the client certificate is {why}"));
        let peer = request.extensions().get::<Peer>();
        let peer = peer.ok_or_else(|| refused("missing"))?;
        let certificate = peer.certificate.as_ref();
        let certificate = certificate.ok_or_else(|| refused("missing"))?;
        if !self.app.authority.trusts(certificate) {
            return Err(refused("of a CA that was replaced"));
        }
        let identity = identity(certificate).ok_or_else(|| refused("not an agent's"))?;
        Ok((identity, peer.clone()))
    }

    /// The deployment of this identity, if it is the one that is enrolled now and may open a session.
    async fn known(&self, identity: Identity, peer: Peer) -> Result<session::Caller, Error> {
        if identity.is_ended(clock::now()) {
            let text = format!(
                "the client certificate ended at {}: renew it",
                identity.not_after
            );
            return Err(Error::Unauthenticated(text));
        }
        let known = identity.clone();
        let look = move |tx: &Tx<'_>| enrolled(tx, &known);
        let row = self.app.store.read(look).await?;
        let number = identity.subject.number;
        if number < row.certificate_seen {
            return Err(self.app.superseded(row.id, number).await?);
        }
        Ok(session::Caller {
            reporter: Reporter {
                deployment: row.id,
                enrolment: row.enrolment,
                certificate_serial: identity.serial,
                certificate_not_after: identity.not_after,
            },
            number,
            is_cloned: row.standing == Standing::Cloned,
            hang_up: peer.hang_up,
        })
    }
}
