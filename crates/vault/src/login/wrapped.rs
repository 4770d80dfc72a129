//! A secret id that came wrapped: a token that can be opened once, so that a second reader shows.

use std::path::Path;

use http::StatusCode;
use secrecy::SecretString;
use vaultrs::api::sys::requests::{UnwrapRequest, WrappingLookupRequest};
use zeroize::Zeroize as _;

use super::{header, read_credential};
use crate::answer::{Answer, Data, SecretId, WrappingInfo};
use crate::settings::Wrapped;
use crate::transport::{About, Transport};
use crate::{Error, Settings};

/// Separates the marks of wrapping tokens from any other use of BLAKE3.
const CONTEXT: &str = "keyfleet 2026-11 v1 mark of a used wrapping token";
/// A foreign path is shown up to this length.
const PATH_SHOWN_MAX: usize = 200;

const OPENED: &str = "was opened by somebody else before us";
const NOT_VALID: &str = "is not valid any more, and we did not use it; unless its time has simply run out, somebody else opened it";

/// What became of the wrapping token that was seen last.
#[derive(Default)]
pub(crate) enum Opened {
    /// None was seen yet.
    #[default]
    Nothing,
    /// We opened it.
    ByUs {
        /// Of which token.
        mark: String,
        /// What was in it, while it may still log in.
        secret_id: Option<SecretId>,
    },
    /// Somebody else did, between our look and our hand.
    ByOthers {
        /// Of which token.
        mark: String,
    },
}

impl Opened {
    /// After a login, or where it was refused: what cannot log in again is wiped.
    pub(super) fn forget_spent(&mut self, was_refused: bool) {
        if let Self::ByUs { secret_id, .. } = self {
            let is_spent = |id: &SecretId| was_refused || id.secret_id_num_uses == 1;
            *secret_id = secret_id.take().filter(|id| !is_spent(id));
        }
    }
}

/// A wrapping token and what has to be true of it.
struct Parcel<'a> {
    file: &'a Path,
    wrapped: &'a Wrapped,
    /// The API path that must have made it.
    made_by: String,
    /// Its hash.
    mark: String,
}

/// The secret id, unwrapped now or before.
pub(super) async fn secret_id(
    transport: &Transport,
    mount: &str,
    file: &Path,
    wrapped: &Wrapped,
    opened: &mut Opened,
) -> Result<SecretString, Error> {
    let token = read_credential(file)?;
    let mount = mount.trim_matches('/');
    let parcel = Parcel {
        file,
        wrapped,
        made_by: format!("auth/{mount}/role/{}/secret-id", wrapped.role),
        mark: mark(&token),
    };
    match &*opened {
        Opened::ByUs { mark, secret_id } if *mark == parcel.mark => {
            let kept = secret_id.as_ref().map(|id| id.secret_id.clone());
            return kept.ok_or_else(|| parcel.spent());
        }
        Opened::ByOthers { mark } if *mark == parcel.mark => {
            return Err(parcel.stolen(OPENED));
        }
        Opened::Nothing | Opened::ByUs { .. } | Opened::ByOthers { .. } => {}
    }
    parcel.inspect(transport, &token).await?;
    parcel.note_used()?;
    let (found, now) = parcel.open(transport, &token).await;
    *opened = now;
    found
}

impl Parcel<'_> {
    /// Whether it may be opened: nobody did, and it comes from where secret ids are made.
    async fn inspect(&self, transport: &Transport, token: &str) -> Result<(), Error> {
        if self.was_used_before() {
            return Err(self.spent());
        }
        let Some(found) = look_up(transport, token).await? else {
            return Err(self.stolen(NOT_VALID));
        };
        if is_made_by(&found, &self.made_by, transport.settings()) {
            return Ok(());
        }
        let found = found.chars().filter(char::is_ascii_graphic);
        let found: String = found.take(PATH_SHOWN_MAX).collect();
        Err(self.stolen(&format!(
            "was not made by {}, but by {found}; somebody has put another one in its place",
            self.made_by
        )))
    }

    async fn open(
        &self,
        transport: &Transport,
        token: &str,
    ) -> (Result<SecretString, Error>, Opened) {
        let mark = self.mark.clone();
        match unwrap(transport, token).await {
            Ok(Some(found)) => {
                let secret_id = found.secret_id.clone();
                let now = Opened::ByUs {
                    mark,
                    secret_id: Some(found),
                };
                (Ok(secret_id), now)
            }
            Ok(None) => {
                self.forget_used();
                (Err(self.stolen(OPENED)), Opened::ByOthers { mark })
            }
            // Whether Vault opened it is not known; it opens it once only.
            Err(error) => {
                let now = Opened::ByUs {
                    mark,
                    secret_id: None,
                };
                (Err(error), now)
            }
        }
    }

    fn spent(&self) -> Error {
        Error::SecretIdSpent {
            path: self.file.to_path_buf(),
            made_by: self.made_by.clone(),
        }
    }

    fn stolen(&self, what: &str) -> Error {
        Error::Tampered {
            path: self.file.to_path_buf(),
            what: what.to_owned(),
        }
    }

    fn was_used_before(&self) -> bool {
        let noted = self.wrapped.used_file.as_ref().map(std::fs::read_to_string);
        noted.is_some_and(|noted| noted.is_ok_and(|noted| noted.trim() == self.mark))
    }

    fn note_used(&self) -> Result<(), Error> {
        let Some(path) = &self.wrapped.used_file else {
            return Ok(());
        };
        std::fs::write(path, &self.mark).map_err(|source| Error::NotNoted {
            path: path.clone(),
            source,
        })
    }

    /// So that the alarm is given again after a restart.
    fn forget_used(&self) {
        if let Some(path) = &self.wrapped.used_file {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn mark(token: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher
        .update(token.as_bytes())
        .finalize()
        .to_hex()
        .to_string()
}

/// What is in it; `None` where Vault does not open it (any more).
async fn unwrap(transport: &Transport, token: &str) -> Result<Option<SecretId>, Error> {
    let request = UnwrapRequest { token: None };
    let token = header(token);
    let answer = transport.send(About::Login, &request, token.as_ref()).await;
    match accepted(answer)? {
        Some(answer) => Ok(Some(answer.parse::<Data<SecretId>>()?.data)),
        None => Ok(None),
    }
}

/// Where the wrapping token was made; `None` where Vault does not know it (any more).
async fn look_up(transport: &Transport, token: &str) -> Result<Option<String>, Error> {
    let mut request = WrappingLookupRequest {
        token: token.to_owned(),
    };
    let answer = transport.send(About::Login, &request, None).await;
    request.token.zeroize();
    match accepted(answer)? {
        Some(answer) => Ok(Some(
            answer.parse::<Data<WrappingInfo>>()?.data.creation_path,
        )),
        None => Ok(None),
    }
}

/// The answer, or `None` where Vault refuses the wrapping token.
fn accepted(answer: Result<Answer, Error>) -> Result<Option<Answer>, Error> {
    match answer {
        Ok(answer) if answer.status != StatusCode::NOT_FOUND => Ok(Some(answer)),
        Ok(_) | Err(Error::Denied { .. } | Error::Status { status: 400, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Vault may write the namespace in front of the path.
fn is_made_by(found: &str, made_by: &str, settings: &Settings) -> bool {
    let namespace = settings.login_namespace().unwrap_or_default();
    found == made_by
        || found
            .strip_prefix(namespace)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| !namespace.is_empty() && rest == made_by)
}
