//! Calls to the control service: one TLS connection that trusts the context's CA only, a token with every call,
//! a deadline on every call that is not a stream.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use keyfleet_proto::v1::operator_service_client::OperatorServiceClient;
use secrecy::ExposeSecret as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::contexts::Context;
use crate::exit::Exit;

/// Deadline of a call where `--timeout` says nothing else: a plan over the largest fleet takes seconds.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// A host that does not answer at all is given up sooner than a call.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Largest answer: the bindings of 20,000 deployments take some tens of MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A silent connection is asked for a sign of life this often, so that a watch notices a dead server.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A sign of life that does not come within this time ends the connection.
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);

/// A call that did not succeed. Texts of control are printed as they came: they name file, line and field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The context cannot be used for a connection.
    #[error("the context cannot be used: {0}")]
    Context(String),
    /// No connection.
    #[error("cannot reach the control service at {endpoint}: {cause}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the system says.
        cause: String,
    },
    /// A connection to somebody the context's CA does not vouch for.
    #[error("the server at {endpoint} is not trusted: {cause}")]
    Untrusted {
        /// Where it was looked for.
        endpoint: String,
        /// What TLS says.
        cause: String,
    },
    /// No answer in time.
    #[error("no answer from {endpoint} within {}", crate::duration::short(deadline.as_secs()))]
    TimedOut {
        /// Who did not answer.
        endpoint: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// Control is there but cannot serve: its store or Vault is away, or it is stopping.
    #[error("the control service cannot answer now: {0}")]
    Unavailable(String),
    /// The token is not accepted.
    #[error("not signed in: {0}")]
    Unauthenticated(String),
    /// The token's role is not enough.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// Not possible in this state.
    #[error("{0}")]
    Precondition(String),
    /// Somebody changed it meanwhile, or it is there already.
    #[error("{0}")]
    Conflict(String),
    /// A limit of control.
    #[error("{0}")]
    LimitReached(String),
    /// Control does not know the call.
    #[error("the control service does not know this request: {0}")]
    Unimplemented(String),
    /// Control failed.
    #[error("the control service failed: {0}")]
    Internal(String),
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Context(_) => "`keyfleet context add NAME --replace …` writes it anew",
            Self::Unreachable { .. } => {
                "check that the service runs and that the endpoint is right: `keyfleet context show`"
            }
            Self::Untrusted { .. } => {
                "give the CA of this control service: `keyfleet context add NAME --replace --ca FILE …`"
            }
            Self::TimedOut { .. } => {
                "check the endpoint with `keyfleet context show`; `--timeout` waits longer"
            }
            Self::Unavailable(_) => "try again; `keyfleet status` lists the service's problems",
            Self::Unauthenticated(_) => {
                "the token may be wrong, expired or revoked: ask an admin for `keyfleet token create operator`"
            }
            Self::NotAllowed(_) => {
                "viewers read, operators change connectors and rollouts, admins also keys and tokens"
            }
            Self::Conflict(_) => "look at it again, then repeat",
            Self::Unimplemented(_) => "it may be older than this command: `keyfleet version`",
            Self::Internal(_) => "the service's log says more",
            Self::Invalid(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::LimitReached(_) => return None,
        };
        Some(text.to_owned())
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Unavailable(_)
            | Self::Unauthenticated(_)
            | Self::NotAllowed(_) => Exit::NotAllowed,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Invalid(_) => Exit::Usage,
            Self::Context(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::Conflict(_)
            | Self::LimitReached(_)
            | Self::Unimplemented(_)
            | Self::Internal(_) => Exit::Error,
        }
    }

    /// True where the same call may succeed a moment later: a lost connection, a restart of control.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable(_)
            | Self::LimitReached(_)
            | Self::Internal(_) => true,
            Self::Context(_)
            | Self::Untrusted { .. }
            | Self::Unauthenticated(_)
            | Self::NotAllowed(_)
            | Self::Invalid(_)
            | Self::NotFound(_)
            | Self::Precondition(_)
            | Self::Conflict(_)
            | Self::Unimplemented(_) => false,
        }
    }
}

/// The generated client with the token put in.
pub(crate) type Api = OperatorServiceClient<InterceptedService<Channel, Bearer>>;

/// Adds the token to each call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connection to one control service.
pub(crate) struct Client {
    api: Api,
    endpoint: String,
    deadline: Duration,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Where the context is broken, nobody answers, or the one who answers is not trusted.
    pub(crate) async fn connect(context: &Context, deadline: Duration) -> Result<Self, Error> {
        let connect_deadline = deadline.min(CONNECT_DEADLINE);
        // The endpoint's own timeout ends with TCP; a server that never says a word of TLS needs this one.
        let channel = tokio::time::timeout(
            connect_deadline,
            channel(context, connect_deadline)?.connect(),
        )
        .await
        .map_err(|_| Error::TimedOut {
            endpoint: context.endpoint.clone(),
            deadline: connect_deadline,
        })?
        .map_err(|err| no_connection(&context.endpoint, &err))?;
        let api = OperatorServiceClient::with_interceptor(channel, bearer(context)?)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self {
            api,
            endpoint: context.endpoint.clone(),
            deadline,
        })
    }

    /// One call with the deadline, which control is told too.
    ///
    /// # Errors
    /// The answer of control as an [`Error`].
    pub(crate) async fn call<Q, R>(
        &self,
        message: Q,
        method: impl AsyncFnOnce(&mut Api, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        let mut api = self.api.clone();
        match tokio::time::timeout(self.deadline, method(&mut api, request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_) => Err(Error::TimedOut {
                endpoint: self.endpoint.clone(),
                deadline: self.deadline,
            }),
        }
    }

    /// Opens a stream; only its opening has a deadline.
    ///
    /// # Errors
    /// The answer of control as an [`Error`].
    pub(crate) async fn open<Q, R>(
        &self,
        message: Q,
        method: impl AsyncFnOnce(&mut Api, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let mut api = self.api.clone();
        match tokio::time::timeout(self.deadline, method(&mut api, Request::new(message))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_) => Err(Error::TimedOut {
                endpoint: self.endpoint.clone(),
                deadline: self.deadline,
            }),
        }
    }

    /// What a status means: the one match on gRPC codes.
    pub(crate) fn refused(&self, status: &Status) -> Error {
        let text = status.message().to_owned();
        match status.code() {
            // A status with a source was made on this side: the connection is gone.
            Code::Unavailable | Code::Unknown if status.source().is_some() => {
                no_connection(&self.endpoint, status)
            }
            Code::Unavailable => Error::Unavailable(text),
            Code::Unauthenticated => Error::Unauthenticated(text),
            Code::PermissionDenied => Error::NotAllowed(text),
            Code::InvalidArgument | Code::OutOfRange => Error::Invalid(text),
            Code::NotFound => Error::NotFound(text),
            Code::FailedPrecondition => Error::Precondition(text),
            Code::Aborted | Code::AlreadyExists => Error::Conflict(text),
            Code::ResourceExhausted => Error::LimitReached(text),
            Code::DeadlineExceeded | Code::Cancelled => Error::TimedOut {
                endpoint: self.endpoint.clone(),
                deadline: self.deadline,
            },
            Code::Unimplemented => Error::Unimplemented(text),
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Error::Internal(text),
        }
    }
}

fn channel(context: &Context, connect_deadline: Duration) -> Result<Endpoint, Error> {
    let broken = |err: tonic::transport::Error| Error::Context(crate::error::chain(&err));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&context.ca));
    let endpoint = Endpoint::from_shared(context.endpoint.clone())
        .and_then(|endpoint| endpoint.user_agent(concat!("keyfleet/", env!("CARGO_PKG_VERSION"))))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(broken)?;
    Ok(endpoint
        .connect_timeout(connect_deadline)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_DEADLINE))
}

fn bearer(context: &Context) -> Result<Bearer, Error> {
    let text = format!("Bearer {}", context.token.expose_secret());
    let mut value = MetadataValue::try_from(text)
        .map_err(|_| Error::Context("its token has characters that no token has".to_owned()))?;
    value.set_sensitive(true);
    Ok(Bearer(value))
}

/// Tells a server that is not trusted from one that is not there.
fn no_connection(endpoint: &str, err: &(dyn StdError + 'static)) -> Error {
    let endpoint = endpoint.to_owned();
    let mut root: &(dyn StdError + 'static) = err;
    while let Some(source) = root.source() {
        root = source;
    }
    let cause = root.to_string();
    if is_certificate_error(err) {
        Error::Untrusted { endpoint, cause }
    } else {
        Error::Unreachable { endpoint, cause }
    }
}

fn is_certificate_error(err: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(err);
    while let Some(err) = next {
        // An io::Error hides its inner error from `source`, but gives it when asked.
        let inner = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = err
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = err.source();
    }
    false
}
