//! Tokens: random values that are shown once and kept only as hashes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::TokenId;
use keyfleet_core::token::Role;
use keyfleet_store::{Event, EventScope, Token, TokenUse, Tx};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Actor, App};
use crate::clock;
use crate::error::Error;

/// Beginning of a join token: tells people and scanners what it is.
const JOIN_PREFIX: &str = "kfj_";
/// Beginning of an operator token.
const OPERATOR_PREFIX: &str = "kfo_";

const JOIN_TTL: Duration = Duration::from_secs(3_600);
const OPERATOR_TTL: Duration = Duration::from_secs(90 * 86_400);

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    pub(crate) usage: TokenUse,
    pub(crate) principal: String,
    /// `None` = the usual.
    pub(crate) ttl: Option<Duration>,
}

impl App {
    /// Makes a token; the value is in the answer and nowhere else.
    pub(crate) async fn create_token(
        &self,
        actor: &Actor,
        new: NewToken,
    ) -> Result<(Token, SecretString), Error> {
        actor.must_be(Role::Admin)?;
        let (token, value) = make(new, &actor.principal, self.authority.pin(), clock::now())?;
        let (stored, hash) = (token.clone(), hash(value.expose_secret()));
        let text = format!("token {} made for {}", token.id, token.principal);
        let event = Event {
            at: token.created_at,
            actor: actor.principal.clone(),
            text,
        };
        let write = move |tx: &Tx<'_>| {
            tx.insert_token(&stored, &hash)?;
            tx.add_event(EventScope::Service, &event)?;
            Ok::<_, Error>(())
        };
        self.store.write(write).await?;
        Ok((token, value))
    }

    /// Every token, without values.
    pub(crate) async fn tokens(&self, actor: &Actor) -> Result<Vec<Token>, Error> {
        actor.must_be(Role::Admin)?;
        self.store.read(|tx| Ok(tx.tokens()?)).await
    }

    /// Takes a token back.
    pub(crate) async fn revoke_token(&self, actor: &Actor, id: TokenId) -> Result<(), Error> {
        actor.must_be(Role::Admin)?;
        let event = Event {
            at: clock::now(),
            actor: actor.principal.clone(),
            text: format!("token {id} revoked"),
        };
        let write = move |tx: &Tx<'_>| {
            if !tx.revoke_token(id)? {
                return Err(Error::NotFound {
                    kind: "token",
                    name: id.to_string(),
                });
            }
            tx.add_event(EventScope::Service, &event)?;
            Ok(())
        };
        self.store.write(write).await
    }

    /// Who calls with this operator token.
    pub(crate) async fn authenticate(&self, value: &str) -> Result<Actor, Error> {
        let (hash, now) = (hash(value), clock::now());
        let found = self
            .store
            .read(move |tx| Ok::<_, Error>(tx.token_of_hash(&hash)?))
            .await?;
        let refused = || {
            Error::Unauthenticated("the operator token is unknown, revoked or has ended".to_owned())
        };
        let token = found
            .filter(|token| is_good(token, now))
            .ok_or_else(refused)?;
        match token.usage {
            TokenUse::Operator { role } => Ok(Actor {
                principal: token.principal,
                role,
            }),
            TokenUse::Join { .. } => Err(refused()),
        }
    }
}

/// True where a token is good at this time.
pub(crate) fn is_good(token: &Token, now: Timestamp) -> bool {
    !token.revoked && now < token.expires_at
}

/// SHA-256 of a token's value. The values are 256 random bits, so that nothing slower is needed.
pub(crate) fn hash(value: &str) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}

/// Makes a token that is not stored yet.
pub(crate) fn make(
    new: NewToken,
    created_by: &str,
    ca_pin: &str,
    now: Timestamp,
) -> Result<(Token, SecretString), Error> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|_| Error::Unavailable("the system gives no random bytes".to_owned()))?;
    let random = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    let (value, ttl) = match &new.usage {
        TokenUse::Join { .. } => (
            format!("{JOIN_PREFIX}{}.{ca_pin}", random.as_str()),
            JOIN_TTL,
        ),
        TokenUse::Operator { .. } => (
            format!("{OPERATOR_PREFIX}{}", random.as_str()),
            OPERATOR_TTL,
        ),
    };
    let ttl = new.ttl.unwrap_or(ttl);
    let token = Token {
        id: TokenId::new(uuid::Uuid::new_v4()),
        usage: new.usage,
        principal: new.principal,
        expires_at: now.saturating_add(ttl).unwrap_or(now),
        created_at: now,
        created_by: created_by.to_owned(),
        revoked: false,
    };
    Ok((token, SecretString::from(value)))
}

/// A join token for these labels.
pub(crate) fn join(labels: Labels, uses: u32, principal: &str, ttl: Option<Duration>) -> NewToken {
    let usage = TokenUse::Join {
        labels,
        uses_left: uses.max(1),
    };
    NewToken {
        usage,
        principal: principal.to_owned(),
        ttl,
    }
}
