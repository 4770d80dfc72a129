//! Service accounts of a project.

use keyfleet_core::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{Client, Error, bad, is_id, parse, time};
use crate::transport::Answer;

/// The most that the provider gives in one page.
const PAGE: &str = "100";
/// Far above what a project can use; a list that is longer has no end.
const LIST_LIMIT: usize = 10_000;

/// A new account with its first key. `Debug` shows no value.
#[derive(Debug)]
pub struct Minted {
    /// Id of the account, for example `svc_acct_abc`.
    pub account: String,
    /// Id of the key, for example `key_abc`.
    pub key_id: String,
    /// The key itself, which the provider shows this once.
    pub value: SecretString,
    /// When it was made, by the provider's clock.
    pub created_at: Timestamp,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// `owner`, `member` or `none`.
    pub role: String,
    /// When it was made, by the provider's clock.
    pub created_at: Timestamp,
}

/// How an account came to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// By this call.
    Now,
    /// It was not there.
    AlreadyGone,
}

#[derive(Deserialize)]
struct NewAccount {
    id: String,
    api_key: NewKey,
}

#[derive(Deserialize)]
struct NewKey {
    id: String,
    value: SecretString,
    created_at: i64,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Listed>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    name: String,
    role: String,
    created_at: i64,
}

#[derive(Deserialize)]
struct Deletion {
    id: String,
    deleted: bool,
}

impl Client {
    /// Makes a service account with its first key. Never tried again: after [`super::Outcome::Unknown`] look for the
    /// name with [`Client::accounts`] and delete what is found, for its key is lost.
    ///
    /// # Errors
    /// See [`Error`]. A project that is archived is refused with status 400.
    pub async fn create_account(
        &self,
        key: &SecretString,
        project: &str,
        name: &str,
    ) -> Result<Minted, Error> {
        let body = json!({ "name": name, "create_service_account_only": false });
        let request = self.http.post(self.accounts_url(project, &[])?).json(&body);
        let answer = self.call(request, key).await?;
        minted(parse(&answer)?).ok_or_else(|| bad(&answer))
    }

    /// All service accounts of a project, page by page.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::TooMany`] beyond 10,000.
    pub async fn accounts(&self, key: &SecretString, project: &str) -> Result<Vec<Account>, Error> {
        let first = self.accounts_url(project, &[])?;
        let mut accounts: Vec<Account> = Vec::new();
        loop {
            let mut url = first.clone();
            url.query_pairs_mut().append_pair("limit", PAGE);
            if let Some(last) = accounts.last() {
                url.query_pairs_mut().append_pair("after", &last.id);
            }
            let answer = self.call(self.http.get(url), key).await?;
            let page: Page = parse(&answer)?;
            // A page that is empty and says that there is more would be asked for without end.
            if page.has_more && page.data.is_empty() {
                return Err(bad(&answer));
            }
            let read: Option<Vec<_>> = page.data.into_iter().map(listed).collect();
            accounts.extend(read.ok_or_else(|| bad(&answer))?);
            if accounts.len() > LIST_LIMIT {
                return Err(Error::TooMany { limit: LIST_LIMIT });
            }
            if !page.has_more {
                return Ok(accounts);
            }
        }
    }

    /// Deletes a service account and with it all its keys. May be called again.
    ///
    /// # Errors
    /// See [`Error`]. A 404 that is not the provider's JSON is an error too: a proxy does not know what is gone.
    pub async fn delete_account(
        &self,
        key: &SecretString,
        project: &str,
        account: &str,
    ) -> Result<Deleted, Error> {
        let request = self.http.delete(self.accounts_url(project, &[account])?);
        let answer = match self.call(request, key).await {
            Ok(answer) => answer,
            Err(error) if error.is_gone() => return Ok(Deleted::AlreadyGone),
            Err(error) => return Err(error),
        };
        confirmed(&answer, account)
    }

    fn accounts_url(&self, project: &str, rest: &[&str]) -> Result<Url, Error> {
        let parts = ["organization", "projects", project, "service_accounts"];
        self.url(&[&parts, rest].concat())
    }
}

impl Error {
    /// The provider itself said 404, in its own form with a type.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == 404 && refusal.kind.is_some())
    }
}

fn minted(new: NewAccount) -> Option<Minted> {
    let is_whole = is_id(&new.id) && is_id(&new.api_key.id);
    let has_value = !new.api_key.value.expose_secret().is_empty();
    (is_whole && has_value).then_some(())?;
    Some(Minted {
        account: new.id,
        key_id: new.api_key.id,
        value: new.api_key.value,
        created_at: time(new.api_key.created_at)?,
    })
}

fn listed(listed: Listed) -> Option<Account> {
    is_id(&listed.id).then_some(())?;
    Some(Account {
        created_at: time(listed.created_at)?,
        id: listed.id,
        name: listed.name,
        role: listed.role,
    })
}

/// A success that names another account, or none that was deleted, proves nothing.
fn confirmed(answer: &Answer, account: &str) -> Result<Deleted, Error> {
    let deletion: Deletion = parse(answer)?;
    if deletion.deleted && deletion.id == account {
        Ok(Deleted::Now)
    } else {
        Err(bad(answer))
    }
}
