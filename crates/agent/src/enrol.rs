//! Enrolment: trades a join token for an identity, once.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyfleet_proto::v1;
use keyfleet_proto::v1::agent_service_client::AgentServiceClient;
use keyfleet_seal::SealingSecret;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::identity::{self, Identity};
use crate::tls::{self, CaPin};

/// Control answers within milliseconds; it may wait for its database.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// Key or request could not be made.
    #[error("cannot make a key and a certificate request")]
    Key(#[source] rcgen::Error),
    /// No randomness for the sealing secret.
    #[error("cannot make a sealing secret")]
    Sealing(#[source] keyfleet_seal::Error),
    /// The identity could not be kept.
    #[error(transparent)]
    Save(#[from] identity::Error),
}

impl Error {
    /// True where the same may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect(tls::Error::Connect { .. }) | Self::Unavailable { .. }
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
    read_token(config).map(drop)
}

fn read_token(config: &Config) -> Result<JoinToken, Error> {
    let file = config
        .control
        .join_token_file
        .as_deref()
        .ok_or(Error::NoToken)?;
    JoinToken::parse(config::read_secret("the join token", file)?)
}

/// What this host makes itself and never gives away, and the request that goes to control.
pub(crate) struct Application {
    token: JoinToken,
    key_pem: Zeroizing<String>,
    request_der: Vec<u8>,
    sealing: SealingSecret,
}

impl Application {
    /// Reads the token of the config and makes the keys.
    ///
    /// # Errors
    /// What is wrong with the token's file, or [`Error::Key`] and [`Error::Sealing`].
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let token = read_token(config)?;
        let key = KeyPair::generate().map_err(Error::Key)?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, config.deployment.name.as_str());
        let request = params.serialize_request(&key).map_err(Error::Key)?;
        Ok(Self {
            token,
            key_pem: Zeroizing::new(key.serialize_pem()),
            request_der: request.der().to_vec(),
            sealing: SealingSecret::generate().map_err(Error::Sealing)?,
        })
    }

    /// One try: connects to the pinned control, sends the request, keeps what it gives.
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
            sealing_public_key: self.sealing.public().to_vec().into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let answer = timeout(CALL_TIMEOUT, client.enroll(request)).await;
        let answer = answer.map_err(|_| Error::Unavailable {
            reason: "no answer within 30 seconds".to_owned(),
        })?;
        let identity = self.accept(&answer.map_err(|status| refusal(&status))?.into_inner())?;
        // What does not fit together must not be kept.
        tls::mutual(&identity)?;
        identity.save(&config.state_dir)?;
        Ok(identity)
    }

    fn accept(&self, answer: &v1::EnrollResponse) -> Result<Identity, Error> {
        let certificate = |field, der: &bytes::Bytes| {
            if der.is_empty() {
                return Err(Error::Answer(keyfleet_proto::Invalid::missing(field)));
            }
            Ok(CertificateDer::from(der.to_vec()))
        };
        Ok(Identity {
            deployment: parse("deployment_id", &answer.deployment_id)?,
            enrolment: parse("enrolment_id", &answer.enrolment_id)?,
            certificate: certificate("certificate_der", &answer.certificate_der)?,
            ca: certificate("ca_certificate_der", &answer.ca_certificate_der)?,
            key_pem: self.key_pem.clone(),
            sealing: SealingSecret::from_bytes(self.sealing.to_bytes().as_slice())
                .map_err(Error::Sealing)?,
        })
    }
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
    let said = keyfleet_seal::scrub(status.message()).into_owned();
    let reason = if said.is_empty() {
        status.code().description().to_owned()
    } else {
        said
    };
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
