//! `keyfleet-control init`: makes what the service needs before its first start.

use std::path::{Path, PathBuf};

use keyfleet_core::fleet::Selector;
use keyfleet_core::token::Role;
use keyfleet_seal::FingerprintKey;
use keyfleet_store::{Store, TokenUse, Tx};
use secrecy::ExposeSecret as _;

use crate::app::audit::record_own;
use crate::app::tokens::{self, NewToken};
use crate::ca::{self, Authority};
use crate::error::Error as AppError;
use crate::{clock, files};

/// Why `init` did not finish. It may be run again: what is there already stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] keyfleet_store::Error),
    /// The system gives no random bytes.
    #[error("the fingerprint key cannot be made")]
    Random(#[from] keyfleet_seal::Error),
    /// The first token.
    #[error("the first operator token cannot be made: {0}")]
    Token(String),
}

/// What `init` made, for the operator.
#[derive(Debug)]
pub struct Made {
    /// The CA's certificate, which agents and operators trust.
    pub ca: PathBuf,
    /// The first operator token; `None` where there was one already.
    pub admin_token: Option<PathBuf>,
}

/// The database in a data directory.
pub(crate) fn database_path(data_dir: &Path) -> PathBuf {
    data_dir.join("keyfleet.db")
}

/// The key of the fingerprints, beside the CA's key.
pub(crate) fn fingerprint_path(data_dir: &Path) -> PathBuf {
    data_dir.join("fingerprint.key")
}

/// Makes the data directory, the CA, the fingerprint key, the database and the first admin token.
///
/// # Errors
/// [`Error`]; running it again goes on where it stopped.
pub async fn init(data_dir: &Path) -> Result<Made, Error> {
    files::make_private_dir(data_dir)?;
    ca::create(data_dir, clock::now())?;
    let authority = Authority::load(data_dir)?;
    let fingerprint_path = fingerprint_path(data_dir);
    if !fingerprint_path.exists() {
        let key = FingerprintKey::generate()?;
        files::write_secret(&fingerprint_path, key.to_bytes().as_slice())?;
    }
    let store = Store::open(&database_path(data_dir))?;
    let admin_token = first_token(&store, &authority, data_dir).await;
    store.close().await;
    Ok(Made {
        ca: ca::certificate_path(data_dir),
        admin_token: admin_token?,
    })
}

async fn first_token(
    store: &Store,
    authority: &Authority,
    data_dir: &Path,
) -> Result<Option<PathBuf>, Error> {
    let failed = |err: AppError| Error::Token(err.to_string());
    let known = store
        .read(|tx| Ok::<_, AppError>(tx.tokens()?))
        .await
        .map_err(failed)?;
    let is_admin = |usage: &TokenUse| matches!(usage, TokenUse::Operator { role, scope } if *role == Role::Admin && scope.is_everything());
    if known
        .iter()
        .any(|token| is_admin(&token.usage) && !token.revoked)
    {
        return Ok(None);
    }
    let new = NewToken {
        usage: TokenUse::Operator {
            role: Role::Admin,
            scope: Selector::default(),
        },
        principal: "admin".to_owned(),
        ttl: None,
    };
    let made = tokens::make(new, "keyfleet-control init", &authority.pin(), clock::now());
    let (token, value) = made.map_err(failed)?;
    let path = data_dir.join("admin.token");
    files::write_secret(&path, value.expose_secret().as_bytes())?;
    let hash = tokens::hash(value.expose_secret());
    let insert = move |tx: &Tx<'_>| {
        tx.insert_token(&token, &hash)?;
        let act = tokens::act("token.create", &token, "");
        record_own(tx, act.action, act.target, act.detail, token.created_at)
    };
    store.write(insert).await.map_err(failed)?;
    Ok(Some(path))
}
