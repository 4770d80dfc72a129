//! Making a key at the provider so that no crash and no lost answer loses one, doubles one, or leaves one behind.
//!
//! The provider has no idempotent way to make a service account, and shows the key once. So an intent row is written
//! before each try, with a name for the account that nothing else has. As long as that row has no outcome, nothing else is
//! made for the Key; and the outcome is known from what is there: from the accounts of that name at the provider, and
//! from the account id that stands beside the key in Vault. Who has the answer in hand goes on with it; after a crash or a
//! lost answer [`next`] looks, and either adopts what reached Vault or deletes what did not.
//!
//! The order of the steps is the whole point, so it is one pure function, and its tests go through every order of
//! crashes, lost answers and late effects.

use crate::Timestamp;
use crate::id::KeyVersion;

/// How long what was asked may still be done after its answer was lost.
///
/// Far above any time limit of a request: to wait for a key costs nothing, an account that nobody knows does.
pub const MAY_STILL_BE_DONE_SECS: i64 = 10 * 60;

/// The id of an account at the provider (`svc_acct_…`): the unit of revocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub String);

/// What a Key has begun to make: the row that is written before the provider is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Intent {
    /// The name of its account: of nothing else, ever. It stands for one try.
    pub name: String,
    /// The version that Vault had when the row was written: the key shall become the next one.
    pub before: KeyVersion,
}

/// What Vault has as the newest version of the Key's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stored {
    /// Its number.
    pub version: KeyVersion,
    /// The account that stands beside the key; `None` where somebody else wrote it.
    pub account: Option<AccountId>,
}

/// What a look at both sides brought.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Look {
    /// When the look began.
    pub at: Timestamp,
    /// The accounts of the intent's name, as the provider lists them.
    pub accounts: Vec<AccountId>,
    /// What Vault has.
    pub stored: Stored,
}

/// What is known when the next step is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    /// The intent without an outcome; `None` = nothing is under way.
    pub intent: Option<Intent>,
    /// What this process has in its hands.
    pub hand: Hand,
    /// The last look, if nothing was asked of either side since.
    pub look: Option<Look>,
}

/// What the process knows beyond the rows; after a crash it is [`Hand::Lost`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hand {
    /// The intent is its own, and nothing was asked of the provider yet.
    Fresh,
    /// The provider gave this account, and the value is in memory.
    Value(AccountId),
    /// Vault took the value as this version, and it was read back.
    Written(AccountId, KeyVersion),
    /// The provider said that it made nothing.
    Refused,
    /// An answer was lost, or Vault refused the value, or another process wrote the intent: since then nothing new was
    /// asked of the provider or written to Vault.
    Lost(Timestamp),
}

/// The next step. Each is done by the edge, and then [`next`] is asked anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Write an intent, with a new name.
    Intend,
    /// Ask the provider for an account of the intent's name. Never repeated: the hand is something else afterwards.
    Create,
    /// Write the value in hand to Vault as the version after the intent's `before` and no other, and read it back.
    Store(AccountId),
    /// Ask both sides what is there.
    Look,
    /// Delete this account: its key reached nobody.
    Delete(AccountId),
    /// Wait until then: what was asked may still be done.
    Wait(Timestamp),
    /// Write the outcome.
    End(Outcome),
}

/// How an intent ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The key is in Vault as this version, with this account beside it.
    Minted(KeyVersion, AccountId),
    /// Nothing of it is left; it may be tried again.
    Nothing,
    /// Nothing of it is left, and somebody else wrote to its place in Vault meanwhile: a person has to say whose it is.
    Overtaken(KeyVersion),
}

/// The next step of making one key.
pub fn next(known: &Known, now: Timestamp) -> Step {
    let Some(intent) = &known.intent else {
        return Step::Intend;
    };
    match &known.hand {
        Hand::Fresh => Step::Create,
        Hand::Value(account) => Step::Store(account.clone()),
        Hand::Written(account, version) => Step::End(Outcome::Minted(*version, account.clone())),
        Hand::Refused => Step::End(Outcome::Nothing),
        Hand::Lost(since) => match &known.look {
            Some(look) => settle(intent, look, settled_at(*since), now),
            None => Step::Look,
        },
    }
}

/// What follows from what is there, where nobody has an answer in hand.
fn settle(intent: &Intent, look: &Look, settled: Timestamp, now: Timestamp) -> Step {
    let is_there = |account: &&AccountId| look.accounts.contains(account);
    // Who stored it had the answer of the provider, and Vault has done what it was asked: nothing is under way.
    if let Some(account) = look.stored.account.as_ref().filter(is_there) {
        return Step::End(Outcome::Minted(look.stored.version, account.clone()));
    }
    // Nothing is deleted before: a value that still reaches Vault must not be a dead one.
    if look.at < settled {
        return if now < settled {
            Step::Wait(settled)
        } else {
            Step::Look
        };
    }
    if let Some(lost) = look.accounts.first() {
        return Step::Delete(lost.clone());
    }
    if look.stored.version > intent.before {
        return Step::End(Outcome::Overtaken(look.stored.version));
    }
    Step::End(Outcome::Nothing)
}

fn settled_at(since: Timestamp) -> Timestamp {
    let seconds = since.as_second().saturating_add(MAY_STILL_BE_DONE_SECS);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
