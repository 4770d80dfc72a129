//! Join and operator tokens: their hashes, never their values.

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{DeploymentId, TokenId};
use keyfleet_core::token::Role;
use rusqlite::{Row, params};

use crate::rows::{from_json, known, nanos, parse, time, to_json};
use crate::{Error, Tx};

const TABLE: &str = "tokens";
const COLUMNS: &str = "id, principal, role, labels, uses_left, expires_at, created_at, created_by, revoked, \
                       scope, deployment";

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenUse {
    /// Lets agents enrol that claim these labels, so many times.
    Join {
        /// Labels an agent must claim exactly so.
        labels: Labels,
        /// How many may still.
        uses_left: u32,
        /// The one deployment whose new agent it is for; `None` = a new deployment.
        deployment: Option<DeploymentId>,
    },
    /// Lets a principal call the operators' API.
    Operator {
        /// What it may do.
        role: Role,
        /// With which deployments.
        scope: Selector,
    },
}

impl TokenUse {
    /// The deployments that anybody can reach with it at the most: of a join token, those that could enrol.
    pub fn reach(&self) -> Selector {
        match self {
            Self::Join { labels, .. } => Selector::from_labels(labels),
            Self::Operator { scope, .. } => scope.clone(),
        }
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id, which says nothing about its value.
    pub id: TokenId,
    /// What it is for.
    pub usage: TokenUse,
    /// Who acts with it; of a join token, who made it.
    pub principal: String,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// It was taken back.
    pub revoked: bool,
}

impl Tx<'_> {
    /// Stores a new token under the SHA-256 of its value.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn insert_token(&self, token: &Token, hash: &[u8; 32]) -> Result<(), Error> {
        let everything = Selector::default();
        let no_labels = Labels::new();
        let (kind, role, labels, uses_left, scope, deployment) = match &token.usage {
            TokenUse::Join {
                labels,
                uses_left,
                deployment,
            } => ("join", None, labels, *uses_left, &everything, *deployment),
            TokenUse::Operator { role, scope } => {
                ("operator", Some(role.as_str()), &no_labels, 0, scope, None)
            }
        };
        self.0
            .prepare_cached(
                "INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?12)",
            )?
            .execute(params![
                token.id.to_string(),
                hash,
                kind,
                token.principal,
                role,
                to_json(TABLE, labels)?,
                uses_left,
                nanos(token.expires_at),
                nanos(token.created_at),
                token.created_by,
                selector_text(scope),
                deployment.map(|id| id.to_string()),
            ])?;
        Ok(())
    }

    /// The token whose value has this hash.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn token_of_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params![hash])?;
        rows.next()?.map(read).transpose()
    }

    /// The token of this id.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([id.to_string()])?;
        rows.next()?.map(read).transpose()
    }

    /// Every token, the newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn tokens(&self) -> Result<Vec<Token>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY created_at DESC, id");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// Takes one use from a join token; false where none is left.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn use_token(&self, id: TokenId) -> Result<bool, Error> {
        let changed = self
            .0
            .prepare_cached(
                "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1 AND uses_left > 0",
            )?
            .execute([id.to_string()])?;
        Ok(changed == 1)
    }

    /// Takes a token back; false where there is none of this id.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn revoke_token(&self, id: TokenId) -> Result<bool, Error> {
        let changed = self
            .0
            .prepare_cached("UPDATE tokens SET revoked = 1 WHERE id = ?1")?
            .execute([id.to_string()])?;
        Ok(changed == 1)
    }
}

fn read(row: &Row<'_>) -> Result<Token, Error> {
    let role: Option<String> = row.get(2)?;
    let deployment: Option<String> = row.get(10)?;
    let usage = match role {
        Some(role) => TokenUse::Operator {
            role: known(TABLE, &role, Role::parse(&role))?,
            scope: parse(TABLE, &row.get::<_, String>(9)?)?,
        },
        None => TokenUse::Join {
            labels: from_json(TABLE, &row.get::<_, String>(3)?)?,
            uses_left: row.get(4)?,
            deployment: deployment.map(|id| parse(TABLE, &id)).transpose()?,
        },
    };
    Ok(Token {
        id: parse(TABLE, &row.get::<_, String>(0)?)?,
        usage,
        principal: row.get(1)?,
        expires_at: time(TABLE, row.get(5)?)?,
        created_at: time(TABLE, row.get(6)?)?,
        created_by: row.get(7)?,
        revoked: row.get(8)?,
    })
}

/// A selector as its column: what it displays, and nothing for everything.
fn selector_text(selector: &Selector) -> String {
    match selector.is_everything() {
        true => String::new(),
        false => selector.to_string(),
    }
}
