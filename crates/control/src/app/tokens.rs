//! Tokens: random values that are shown once and kept only as hashes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyfleet_core::Timestamp;
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{DeploymentName, TokenId};
use keyfleet_core::token::Role;
use keyfleet_store::{Deployment, Event, EventScope, Token, TokenUse, Tx};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::audit::{Act, record};
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
        reason: &str,
    ) -> Result<(Token, SecretString), Error> {
        actor.must_be(Role::Admin)?;
        actor.must_cover(&new.usage.reach(), "this token")?;
        let (token, value) = make(new, &actor.principal, &self.authority.pin(), clock::now())?;
        let (stored, hash) = (token.clone(), hash(value.expose_secret()));
        let text = format!("token {} made for {}", token.id, token.principal);
        let event = Event {
            at: token.created_at,
            actor: actor.principal.clone(),
            text,
        };
        let (actor, act) = (actor.clone(), act("token.create", &token, reason));
        let write = move |tx: &Tx<'_>| {
            keys_stay(tx, &actor, &stored)?;
            tx.insert_token(&stored, &hash)?;
            tx.add_event(EventScope::Service, &event)?;
            record(tx, &actor, act, stored.created_at)
        };
        self.store.write(write).await?;
        Ok((token, value))
    }

    /// Every token, without values, with the deployment that it is bound to; with a scope those that reach no further.
    pub(crate) async fn tokens(
        &self,
        actor: &Actor,
    ) -> Result<Vec<(Token, Option<DeploymentName>)>, Error> {
        actor.must_be(Role::Admin)?;
        let actor = actor.clone();
        let read = move |tx: &Tx<'_>| {
            let mut seen = Vec::new();
            for token in tx.tokens()? {
                let bound = bound(tx, &token)?;
                if may_reach(&actor, &token, bound.as_ref()).is_ok() {
                    seen.push((token, bound.map(|bound| bound.name)));
                }
            }
            Ok(seen)
        };
        self.store.read(read).await
    }

    /// Takes a token back.
    pub(crate) async fn revoke_token(
        &self,
        actor: &Actor,
        id: TokenId,
        reason: &str,
    ) -> Result<(), Error> {
        actor.must_be(Role::Admin)?;
        let (actor, reason, now) = (actor.clone(), reason.to_owned(), clock::now());
        let write = move |tx: &Tx<'_>| {
            let missing = || Error::NotFound {
                kind: "token",
                name: id.to_string(),
            };
            let token = tx.token(id)?.ok_or_else(missing)?;
            may_reach(&actor, &token, bound(tx, &token)?.as_ref())?;
            tx.revoke_token(id)?;
            let event = Event {
                at: now,
                actor: actor.principal.clone(),
                text: format!("token {id} revoked"),
            };
            tx.add_event(EventScope::Service, &event)?;
            record(tx, &actor, act("token.revoke", &token, &reason), now)
        };
        self.store.write(write).await
    }

    /// Refuses a caller whose token has been taken back or has ended since it called: for answers that go on.
    pub(crate) async fn must_still_be(&self, actor: &Actor) -> Result<(), Error> {
        let (id, now) = (actor.token, clock::now());
        let is_still_good = move |tx: &Tx<'_>| match id {
            Some(id) => Ok::<_, Error>(tx.token(id)?.is_some_and(|token| is_good(&token, now))),
            None => Ok(true),
        };
        if self.store.read(is_still_good).await? {
            return Ok(());
        }
        let text = "the operator token has been revoked or has ended";
        Err(Error::Unauthenticated(text.to_owned()))
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
            TokenUse::Operator { role, scope } => Ok(Actor {
                principal: token.principal,
                token: Some(token.id),
                role,
                scope,
            }),
            TokenUse::Join { .. } => Err(refused()),
        }
    }
}

/// Refuses a join token whose agents could claim a label that decides who may have a Key, unless whoever makes it may
/// change that Key or has that label in his scope.
fn keys_stay(tx: &Tx<'_>, actor: &Actor, token: &Token) -> Result<(), Error> {
    let TokenUse::Join { labels, .. } = &token.usage else {
        return Ok(());
    };
    if actor.scope.is_everything() {
        return Ok(());
    }
    let own = |label: &String| {
        let mut mine = actor.scope.requirements.iter();
        labels.contains_key(label) && mine.any(|mine| mine.key == *label)
    };
    for row in tx.keys()? {
        let mut asked = row.key.scope.requirements.iter().map(|asked| &asked.key);
        if let Some(label) = asked.find(|label| !own(label)) {
            let (who, scope, key) = (&actor.principal, &actor.scope, &row.key.name);
            return Err(Error::Forbidden(format!(
                "the token of {who} is for deployments with {scope} only; agents could claim label {label} with this token, which decides who may have key {key}: an admin without a scope can make it"
            )));
        }
    }
    Ok(())
}

/// The deployment that a join token is bound to, where that is still there.
fn bound(tx: &Tx<'_>, token: &Token) -> Result<Option<Deployment>, Error> {
    match token.usage {
        TokenUse::Join {
            deployment: Some(id),
            ..
        } => Ok(tx.deployment(id)?),
        TokenUse::Join { .. } | TokenUse::Operator { .. } => Ok(None),
    }
}

/// Refuses a caller whose scope does not hold everything that can be reached with a token.
fn may_reach(actor: &Actor, token: &Token, bound: Option<&Deployment>) -> Result<(), Error> {
    match bound {
        Some(bound) => actor.must_reach(&bound.name, &bound.labels),
        None => actor.must_cover(&token.usage.reach(), "this token"),
    }
}

/// What is written down of a token: what it is for, and never its value.
pub(crate) fn act(action: &'static str, token: &Token, reason: &str) -> Act {
    let until = token.expires_at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let principal = &token.principal;
    let detail = match &token.usage {
        TokenUse::Operator { role, scope } => {
            let role = role.as_str();
            format!(
                "operator token of {principal}: role {role}, deployments {scope}, until {until}"
            )
        }
        TokenUse::Join {
            labels, uses_left, ..
        } => {
            let labels = Selector::from_labels(labels);
            format!("join token: labels {labels}, {uses_left} uses, until {until}")
        }
    };
    Act {
        action,
        target: format!("token {}", token.id),
        reason: reason.to_owned(),
        detail,
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
        deployment: None,
    };
    NewToken {
        usage,
        principal: principal.to_owned(),
        ttl,
    }
}
