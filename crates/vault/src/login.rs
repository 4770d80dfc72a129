//! The login: getting a token, keeping it, getting another one.

pub(crate) mod wrapped;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};
use zeroize::{Zeroize as _, Zeroizing};

use crate::answer::{Answer, Data, Grant, Granted, TokenInfo};
use crate::transport::{About, Transport};
use crate::{Auth, Error};
use wrapped::Opened;

/// A longer term counts as this long: a number out of a server is not added to a clock as it is.
const TERM_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A token that is in use.
pub(crate) struct Login {
    /// The token as a header, marked sensitive, so that neither Debug nor HTTP/2's tables keep it.
    pub(crate) token: HeaderValue,
    /// When to renew it or log in again; `None` where it never expires.
    pub(crate) renew_at: Option<Instant>,
    /// What the login granted at first; a renewal that grants less is capped.
    granted: Duration,
    renewable: bool,
}

/// What became of a renewal.
pub(crate) enum Renewed {
    /// The same token, for a full term.
    Kept(Login),
    /// The token nears its end whatever we do: log in again.
    Ending,
}

impl Login {
    fn new(token: HeaderValue, granted: Duration, renewable: bool) -> Self {
        let renew_at = (!granted.is_zero()).then(|| Instant::now() + granted.min(TERM_MAX) * 2 / 3);
        Self {
            token,
            renew_at,
            granted,
            renewable,
        }
    }
}

/// Logs in with the credential as it is in its file now.
pub(crate) async fn log_in(transport: &Transport, opened: &mut Opened) -> Result<Login, Error> {
    match &transport.settings().auth {
        Auth::TokenFile(path) => from_file(transport, path).await,
        Auth::AppRole {
            mount,
            role_id,
            secret_id_file,
            wrapped: None,
        } => {
            let secret_id = read_credential(secret_id_file)?;
            with_approle(transport, mount, role_id, secret_id).await
        }
        Auth::AppRole {
            mount,
            role_id,
            secret_id_file: file,
            wrapped: Some(wrapped),
        } => {
            let secret_id = wrapped::secret_id(transport, mount, file, wrapped, opened).await?;
            let secret_id = Zeroizing::new(secret_id.expose_secret().to_owned());
            let login = with_approle(transport, mount, role_id, secret_id).await;
            let was_refused = matches!(login, Err(Error::LoginRefused { .. }));
            if login.is_ok() || was_refused {
                opened.forget_spent(was_refused);
            }
            login
        }
        Auth::Jwt {
            mount,
            role,
            token_file,
        } => with_jwt(transport, mount, role, token_file).await,
        Auth::Cert {
            mount,
            role,
            cert_file,
            ..
        } => {
            transport.read_files_again()?;
            let request = CertLogin {
                mount: mount.clone(),
                role: role.clone(),
            };
            let answer = transport.send(About::Login, &request, None).await;
            granted(answer, || {
                format!("the certificate in {} at auth/{mount}", cert_file.display())
            })
        }
    }
}

async fn with_approle(
    transport: &Transport,
    mount: &str,
    role_id: &str,
    mut secret_id: Zeroizing<String>,
) -> Result<Login, Error> {
    let mut request = LoginWithApproleRequest {
        mount: mount.trim_matches('/').to_owned(),
        role_id: role_id.to_owned(),
        secret_id: std::mem::take(&mut *secret_id),
    };
    let answer = transport.send(About::Login, &request, None).await;
    request.secret_id.zeroize();
    granted(answer, || format!("AppRole at auth/{mount}"))
}

async fn with_jwt(
    transport: &Transport,
    mount: &str,
    role: &str,
    token_file: &Path,
) -> Result<Login, Error> {
    let mut token = read_credential(token_file)?;
    let mut request = JWTLoginRequest {
        mount: mount.trim_matches('/').to_owned(),
        jwt: std::mem::take(&mut *token),
        role: Some(role.to_owned()),
    };
    let answer = transport.send(About::Login, &request, None).await;
    request.jwt.zeroize();
    granted(answer, || {
        format!(
            "the token in {} as {role} at auth/{mount}",
            token_file.display()
        )
    })
}

/// `vaultrs` always names a role, also where Vault shall look for one itself.
struct CertLogin {
    mount: String,
    role: Option<String>,
}

impl Endpoint for CertLogin {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("auth/{}/login", self.mount.trim_matches('/'))
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        let body = match &self.role {
            Some(role) => serde_json::json!({ "name": role }),
            None => serde_json::json!({}),
        };
        Ok(Some(body.to_string().into_bytes()))
    }
}

fn granted(answer: Result<Answer, Error>, with: impl FnOnce() -> String) -> Result<Login, Error> {
    match answer {
        Ok(answer) if answer.status.is_success() => from_grant(&answer.parse::<Granted>()?.auth),
        Ok(_)
        | Err(
            Error::Denied { .. } | Error::Status { status: 400, .. } | Error::MissingMount { .. },
        ) => Err(Error::LoginRefused { with: with() }),
        Err(error) => Err(error),
    }
}

/// Renews at the server. A token near its maximum is granted less and less (39, 24, 10 seconds), then refused.
pub(crate) async fn renew(transport: &Transport, login: &Login) -> Result<Renewed, Error> {
    if !login.renewable {
        return Ok(Renewed::Ending);
    }
    let request = RenewTokenSelfRequest { increment: None };
    match transport
        .send(About::Login, &request, Some(&login.token))
        .await
    {
        Ok(answer) if answer.status.is_success() => {
            let grant = answer.parse::<Granted>()?.auth;
            let granted = Duration::from_secs(grant.lease_duration);
            if granted < login.granted {
                return Ok(Renewed::Ending);
            }
            Ok(Renewed::Kept(Login::new(
                login.token.clone(),
                granted,
                grant.renewable,
            )))
        }
        Ok(_) | Err(Error::Denied { .. } | Error::Status { status: 400, .. }) => {
            Ok(Renewed::Ending)
        }
        Err(error) => Err(error),
    }
}

/// Whether the server still knows the token. A 403 to a read says nothing about why.
pub(crate) async fn is_alive(transport: &Transport, login: &Login) -> Result<bool, Error> {
    match transport
        .send(About::Login, &LookupTokenSelfRequest {}, Some(&login.token))
        .await
    {
        Ok(answer) => Ok(answer.status.is_success()),
        Err(Error::Denied { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn from_file(transport: &Transport, path: &Path) -> Result<Login, Error> {
    let token = header(&read_credential(path)?).ok_or_else(|| Error::Credential {
        path: path.to_path_buf(),
    })?;
    match transport
        .send(About::Login, &LookupTokenSelfRequest {}, Some(&token))
        .await
    {
        Ok(answer) if answer.status.is_success() => {
            let info = answer.parse::<Data<TokenInfo>>()?.data;
            Ok(Login::new(
                token,
                Duration::from_secs(info.ttl),
                info.renewable,
            ))
        }
        Ok(_) | Err(Error::Denied { .. }) => Err(Error::TokenExpired {
            path: path.to_path_buf(),
        }),
        Err(error) => Err(error),
    }
}

fn from_grant(grant: &Grant) -> Result<Login, Error> {
    let token = header(grant.client_token.expose_secret()).ok_or_else(|| Error::BadAnswer {
        at: "the login".to_owned(),
        status: 200,
    })?;
    Ok(Login::new(
        token,
        Duration::from_secs(grant.lease_duration),
        grant.renewable,
    ))
}

fn header(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(token).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Reads a file that holds one credential, with or without whitespace around it.
fn read_credential(path: &Path) -> Result<Zeroizing<String>, Error> {
    let path_buf = || PathBuf::from(path);
    let bytes = std::fs::read(path).map_err(|source| Error::File {
        path: path_buf(),
        source,
    })?;
    let bytes = Zeroizing::new(bytes);
    let text = str::from_utf8(&bytes).unwrap_or_default().trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Credential { path: path_buf() });
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_file_holds_one_credential() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let cases = [
            ("s.abc\n", Some("s.abc")),
            (" s.abc \r\n", Some("s.abc")),
            ("", None),
            ("a b", None),
            ("ü", None),
        ];
        for (text, expected) in cases {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                read_credential(&path).ok().as_deref().map(String::as_str),
                expected,
                "{text:?}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read_credential(&path), Err(Error::File { .. })));
    }
}
