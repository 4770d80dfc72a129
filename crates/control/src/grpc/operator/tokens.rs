//! Tokens between the wire and the use cases.

use std::time::Duration;

use keyfleet_core::id::DeploymentName;
use keyfleet_core::token::Role;
use keyfleet_proto::{Invalid, WireTime, labels, v1};
use keyfleet_store::{Token, TokenUse};

use crate::app::Actor;
use crate::app::tokens::NewToken;

/// What an operator asks for.
pub(super) fn new_token(wire: v1::CreateTokenRequest, actor: &Actor) -> Result<NewToken, Invalid> {
    let ttl = (wire.ttl_secs > 0).then(|| Duration::from_secs(u64::from(wire.ttl_secs)));
    match wire.kind() {
        v1::TokenKind::Join => {
            let labels = labels("labels", wire.labels)?;
            Ok(crate::app::tokens::join(
                labels,
                wire.uses,
                &actor.principal,
                ttl,
            ))
        }
        v1::TokenKind::Operator => {
            let role = Role::try_from(wire.role())?;
            let scope = Invalid::parse("scope", &wire.scope)?;
            let principal = wire.principal.trim().to_owned();
            if principal.is_empty() {
                return Err(Invalid::new(
                    "principal",
                    "is empty: name who will act with this token",
                ));
            }
            Ok(NewToken {
                usage: TokenUse::Operator { role, scope },
                principal,
                ttl,
            })
        }
        v1::TokenKind::Unspecified => Err(Invalid::missing("kind")),
    }
}

/// A token for the wire, with the name of the deployment that it is bound to; its value is nowhere.
pub(super) fn wire_token(token: Token, bound: Option<DeploymentName>) -> v1::Token {
    let mut wire = v1::Token {
        id: token.id.to_string(),
        principal: token.principal,
        expires_at: Some(WireTime(token.expires_at).into()),
        created_at: Some(WireTime(token.created_at).into()),
        created_by: token.created_by,
        revoked: token.revoked,
        ..v1::Token::default()
    };
    match token.usage {
        TokenUse::Join {
            labels,
            uses_left,
            deployment: _,
        } => {
            wire.kind = v1::TokenKind::Join.into();
            wire.labels = labels;
            wire.uses_left = uses_left;
            wire.deployment = bound.map(|name| name.to_string()).unwrap_or_default();
        }
        TokenUse::Operator { role, scope } => {
            wire.kind = v1::TokenKind::Operator.into();
            wire.role = v1::Role::from(role).into();
            if !scope.is_everything() {
                wire.scope = scope.to_string();
            }
        }
    }
    wire
}
