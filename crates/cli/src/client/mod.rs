//! Calls to the control service: one TLS connection that trusts the context's CA only, a token with every call,
//! a deadline on every call that is not a stream.

mod error;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keyfleet_proto::tunnel;
use keyfleet_proto::v1::operator_service_client::OperatorServiceClient;
use secrecy::ExposeSecret as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::service_fn;
use url::Url;

use crate::contexts::Context;
use crate::proxy::Way;

pub(crate) use self::error::Error;

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
    target: Target,
    deadline: Duration,
}

/// Where control is and what stands before it.
#[derive(Debug, Clone)]
struct Target {
    endpoint: String,
    way: Option<Way>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)?;
        match &self.way {
            Some(way) => write!(f, " through the proxy at {}", way.proxy),
            None => Ok(()),
        }
    }
}

impl Client {
    /// Connects, through this proxy where there is one.
    ///
    /// # Errors
    /// Where the context is broken, nobody answers, or the one who answers is not trusted.
    pub(crate) async fn connect(
        context: &Context,
        way: Option<Way>,
        deadline: Duration,
    ) -> Result<Self, Error> {
        let target = Target {
            endpoint: context.endpoint.clone(),
            way,
        };
        let connect_deadline = deadline.min(CONNECT_DEADLINE);
        let endpoint = endpoint(context, connect_deadline)?;
        // The endpoint's own timeout ends with TCP; a server that never says a word of TLS needs this one.
        let channel =
            tokio::time::timeout(connect_deadline, open(&endpoint, &target, connect_deadline))
                .await
                .map_err(|_| Error::TimedOut {
                    endpoint: target.to_string(),
                    deadline: connect_deadline,
                })?
                .map_err(|err| no_connection(&target, &err))?;
        let api = OperatorServiceClient::with_interceptor(channel, bearer(context)?)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self {
            api,
            target,
            deadline,
        })
    }

    /// The same connection for a call in which control itself waits for somebody.
    pub(crate) fn with_more_time(self, more: Duration) -> Self {
        Self {
            deadline: self.deadline.saturating_add(more),
            ..self
        }
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
                endpoint: self.target.to_string(),
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
                endpoint: self.target.to_string(),
                deadline: self.deadline,
            }),
        }
    }

    /// The next message of a stream that has an end, within the deadline.
    ///
    /// # Errors
    /// The answer of control as an [`Error`].
    pub(crate) async fn next<R>(&self, stream: &mut Streaming<R>) -> Result<Option<R>, Error> {
        match tokio::time::timeout(self.deadline, stream.message()).await {
            Ok(next) => next.map_err(|status| self.refused(&status)),
            Err(_) => Err(Error::TimedOut {
                endpoint: self.target.to_string(),
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
                no_connection(&self.target, status)
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
                endpoint: self.target.to_string(),
                deadline: self.deadline,
            },
            Code::Unimplemented => Error::Unimplemented(text),
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Error::Internal(text),
        }
    }
}

/// The proxy is given up a moment before the whole connection is, so that the error names it.
const PROXY_SHARE: f64 = 0.9;

/// Opens the connection; later ones, after it broke, go the same way.
async fn open(
    endpoint: &Endpoint,
    target: &Target,
    connect_deadline: Duration,
) -> Result<Channel, tonic::transport::Error> {
    let Some(way) = target.way.clone() else {
        return endpoint.connect().await;
    };
    let deadline = connect_deadline.mul_f64(PROXY_SHARE);
    let host_and_port = Url::parse(&target.endpoint).ok().and_then(|url| {
        let host = url.host_str()?.to_owned();
        Some((host, url.port_or_known_default()?))
    });
    // An endpoint without a host was refused when it was put into the context; the tunnel refuses it again.
    let (host, port) = host_and_port.unwrap_or_default();
    let connector = service_fn(move |_| {
        let (proxy, host) = (way.proxy.clone(), host.clone());
        async move {
            tunnel::open(&proxy, &host, port, deadline)
                .await
                .map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector(connector).await
}

fn endpoint(context: &Context, connect_deadline: Duration) -> Result<Endpoint, Error> {
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

/// Tells a server that is not trusted from one that is not there, and both from a proxy that opens no way.
fn no_connection(target: &Target, err: &(dyn StdError + 'static)) -> Error {
    if let (Some(way), Some(proxy_err)) = (&target.way, in_chain::<tunnel::Error>(err)) {
        return Error::Proxy {
            endpoint: target.endpoint.clone(),
            cause: crate::error::chain(proxy_err),
            source_of_proxy: way.source,
            credentials: matches!(
                proxy_err,
                tunnel::Error::NeedsCredentials { .. } | tunnel::Error::WrongCredentials { .. }
            ),
        };
    }
    let endpoint = target.to_string();
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

/// The first error of this type in the chain.
fn in_chain<'a, E: StdError + 'static>(err: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(err);
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref() {
            return Some(found);
        }
        next = err.source();
    }
    None
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
