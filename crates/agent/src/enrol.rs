//! Enrolment: trades a join token for an identity, once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use keyfleet_proto::v1;
use keyfleet_proto::v1::agent_service_client::AgentServiceClient;
use rcgen::{CertificateParams, DnType};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::config::{self, Config, Control};
use crate::identity::{self, Identity, Keys, TokenHash};
use crate::issued::Issued;
use crate::said::said;
use crate::tls::{self, CaPin};

/// Random bytes of a join token.
const TOKEN_BYTES: usize = 32;

/// Why the agent could not enrol.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no identity, and no token to get one.
    #[error(
        "this agent is not enrolled: set `control.join_token_file` to a file with a join token (`keyfleet token create`)"
    )]
    NoToken,
    /// The file of the token.
    #[error(transparent)]
    File(#[from] config::Error),
    /// The token has not the form of one.
    #[error(
        "the join token is not complete: it has the form `kfj_…` with a dot in it; copy all of it"
    )]
    Token,
    /// Control said no for good.
    #[error("the control service refuses this enrolment: {reason}")]
    Refused {
        /// Control's own sentence.
        reason: String,
    },
    /// Control cannot be reached.
    #[error(transparent)]
    Connect(#[from] tls::Error),
    /// Control did not answer, or asked to come again.
    #[error("the control service did not enrol this agent: {reason}")]
    Unavailable {
        /// Control's own sentence, or what went wrong on the way.
        reason: String,
    },
    /// Control's answer has a field that cannot be used.
    #[error("the control service's answer cannot be used")]
    Answer(#[source] keyfleet_proto::Invalid),
    /// The request could not be made.
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
    /// Keys could not be made, or not kept.
    #[error(transparent)]
    Identity(#[from] identity::Error),
}

impl Error {
    /// True where the same may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect(tls::Error::Connect { .. } | tls::Error::Proxy(_))
                | Self::Unavailable { .. }
        )
    }
}

/// A join token: a secret that control knows the hash of, and the pin of control's CA.
pub(crate) struct JoinToken {
    whole: SecretString,
    pin: CaPin,
}

impl JoinToken {
    /// Reads `kfj_<43 characters base64url>.<64 hexadecimal digits>`.
    pub(crate) fn parse(whole: SecretString) -> Result<Self, Error> {
        let pin = parse_pin(whole.expose_secret()).ok_or(Error::Token)?;
        Ok(Self { whole, pin })
    }

    /// What is remembered of it.
    fn hash(&self) -> TokenHash {
        let hash = Sha256::digest(self.whole.expose_secret());
        TokenHash(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn parse_pin(token: &str) -> Option<CaPin> {
    let (secret, pin) = token.strip_prefix("kfj_")?.split_once('.')?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).ok()?);
    if secret.len() != TOKEN_BYTES || pin.len() != 64 {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (byte, digits) in bytes.iter_mut().zip(pin.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| !digits.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(CaPin(bytes))
}

/// Checks that there is a usable join token, without using it.
///
/// # Errors
/// [`Error::NoToken`], [`Error::Token`], or what is wrong with its file.
pub(crate) fn check_token(config: &Config) -> Result<(), Error> {
    read_token(&config.control).map(drop)
}

/// True where the token's file holds another token than the one that gave this identity: an operator wants the agent to
/// enrol again. Asked only once the identity is void.
pub(crate) fn has_other_token(config: &Config, identity: &Identity) -> bool {
    read_token(&config.control).is_ok_and(|token| token.hash() != identity.token)
}

/// True where the token's file holds a token that names a CA which this identity does not trust: an operator has
/// replaced the CA while this agent was away, and wants it to enrol again. A server that is merely a stranger's is
/// no reason to leave a good identity.
pub(crate) fn names_other_ca(control: &Control, identity: &Identity) -> bool {
    let is_known = |pin: CaPin| identity.cas.iter().any(|ca| pin.is_of(ca));
    read_token(control).is_ok_and(|token| token.hash() != identity.token && !is_known(token.pin))
}

fn read_token(control: &Control) -> Result<JoinToken, Error> {
    let file = control.join_token_file.as_deref().ok_or(Error::NoToken)?;
    JoinToken::parse(config::read_secret("the join token", file)?)
}

/// A token, what this host makes itself and never gives away, and the request that goes to control.
pub(crate) struct Application {
    token: JoinToken,
    keys: Keys,
    request_der: Vec<u8>,
}

impl Application {
    /// Reads the token of the config; makes the keys, unless a request with this token may have been sent already.
    ///
    /// # Errors
    /// What is wrong with the token's file, or with the state directory.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let token = read_token(&config.control)?;
        let keys = identity::enrolment_keys(&config.state_dir, &token.hash())?;
        let request_der = certificate_request(&keys, config.deployment.name.as_str())?;
        Ok(Self {
            token,
            keys,
            request_der,
        })
    }

    /// One try: connects to the pinned control and sends the request. The identity is not kept yet.
    ///
    /// # Errors
    /// [`Error::is_transient`] tells whether another try makes sense.
    pub(crate) async fn submit(&self, config: &Config) -> Result<Identity, Error> {
        let channel = tls::connect(&config.control, tls::pinned(self.token.pin)).await?;
        let mut client = AgentServiceClient::new(channel);
        let request = v1::EnrollRequest {
            join_token: self.token.whole.expose_secret().to_owned(),
            deployment_name: config.deployment.name.to_string(),
            labels: config.deployment.labels.clone(),
            certificate_request_der: self.request_der.clone().into(),
            sealing_public_key: self.keys.sealing().public().to_vec().into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let answer = timeout(config.control.timeout, client.enroll(request)).await;
        let answer = answer.map_err(|_| Error::Unavailable {
            reason: format!("no answer within {} s", config.control.timeout.as_secs()),
        })?;
        let identity = self.accept(&answer.map_err(|status| refusal(&status))?.into_inner())?;
        // What does not fit together must not be kept.
        tls::mutual(&identity, &[])?;
        Ok(identity)
    }

    fn accept(&self, answer: &v1::EnrollResponse) -> Result<Identity, Error> {
        let issued = keyfleet_proto::timestamp_required("not_after", answer.not_after)
            .and_then(|not_after| {
                Issued::read(
                    &answer.certificate_der,
                    &answer.ca_certificates_der,
                    not_after,
                )
            })
            .map_err(Error::Answer)?;
        Ok(Identity {
            deployment: parse("deployment_id", &answer.deployment_id)?,
            enrolment: parse("enrolment_id", &answer.enrolment_id)?,
            certificate: issued.certificate,
            cas: issued.cas,
            received_at: Timestamp::now(),
            not_after: issued.not_after,
            token: self.token.hash(),
            keys: self.keys.again()?,
        })
    }
}

/// A PKCS #10 request for a certificate for these keys. Control takes its public key and chooses every name itself.
///
/// # Errors
/// Where it cannot be made.
pub(crate) fn certificate_request(keys: &Keys, common_name: &str) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let request = params.serialize_request(&keys.key_pair()?);
    Ok(request.map_err(Error::Request)?.der().to_vec())
}

fn parse<T>(field: &str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    keyfleet_proto::Invalid::parse(field, text).map_err(Error::Answer)
}

/// Codes that another try cannot change are final: a used-up token stays used up.
fn refusal(status: &Status) -> Error {
    let reason = said(status);
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal => Error::Unavailable { reason },
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => Error::Refused { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_the_pin() {
        let secret = URL_SAFE_NO_PAD.encode([7; 32]);
        let pin = "0f".repeat(32);
        assert_eq!(
            parse_pin(&format!("kfj_{secret}.{pin}")),
            Some(CaPin([15; 32]))
        );
        for bad in [
            String::new(),
            secret.clone(),
            format!("kfj_{secret}"),
            format!("kfj_{secret}.{pin}00"),
            format!("kfj_short.{pin}"),
            format!("kfo_{secret}.{pin}"),
            format!("kfj_{secret}.{}", "+f".repeat(32)),
            format!("kfj_{secret}.{}", "ü".repeat(32)),
        ] {
            assert_eq!(parse_pin(&bad), None, "{bad}");
        }
    }
}
