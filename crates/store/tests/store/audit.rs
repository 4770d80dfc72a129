//! The audit log: whatever is done to its rows behind Keyfleet's back, following the chain finds it and names the entry.

use keyfleet_core::audit::{Entry, HASH_BYTES, Hash, Outcome};
use keyfleet_store::{AuditEntry, Error, Tx};
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use crate::common::{Database, at};

const ENTRIES: u64 = 6;

fn entry(second: u64) -> Entry {
    Entry {
        number: 99,
        at: at(i64::try_from(second).unwrap()),
        principal: "ada".to_owned(),
        token: "token".to_owned(),
        action: "rollout.pause".to_owned(),
        target: format!("rollout {second}"),
        outcome: Outcome::Done,
        reason: "lunch".to_owned(),
        detail: String::new(),
    }
}

/// How a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// The entry that should come, and the one that came.
    Number(u64, u64),
    /// The hash before this entry is another one.
    Previous(u64),
    /// This entry is not what was hashed.
    Changed(u64),
    /// The log does not end with the entry that was noted.
    Head(u64),
}

/// Follows the whole chain, as `keyfleet audit verify` does; `head` is what somebody noted elsewhere.
fn verify(entries: &[AuditEntry], head: (u64, Hash)) -> Result<(), Broken> {
    let mut last = (0, [0; HASH_BYTES]);
    for row in entries {
        let number = row.entry.number;
        if number != last.0 + 1 {
            return Err(Broken::Number(last.0 + 1, number));
        }
        if row.previous != last.1 {
            return Err(Broken::Previous(number));
        }
        let hash: Hash = Sha256::digest(row.entry.hashed_bytes(&row.previous)).into();
        if row.hash != hash {
            return Err(Broken::Changed(number));
        }
        last = (number, hash);
    }
    match last == head {
        true => Ok(()),
        false => Err(Broken::Head(head.0)),
    }
}

/// A log of [`ENTRIES`] entries, its head, and what is found after somebody did this to the file.
async fn tampered(sql: &str) -> Result<Result<(), Broken>, Error> {
    let database = Database::new();
    let store = database.open();
    let write = |tx: &Tx<'_>| (1..=ENTRIES).try_for_each(|second| tx.append_audit(entry(second)));
    store.write(write).await?;
    let head = store.read(|tx| tx.audit_head()).await?;
    assert_eq!(
        head.0, ENTRIES,
        "numbers count from 1, whatever an entry says"
    );
    store.close().await;
    let thief = Connection::open(database.path()).unwrap();
    let unlocked = "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted;";
    thief.execute_batch(unlocked).unwrap();
    thief.execute_batch(sql).unwrap();
    drop(thief);
    let store = database.open();
    let entries = store.read(|tx| tx.audit(1, 100)).await?;
    Ok(verify(&entries, head))
}

#[tokio::test]
async fn whatever_is_done_to_the_rows_is_found() {
    use Broken::{Changed, Head, Number, Previous};
    const COPY: &str = "INSERT INTO audit SELECT 7, at, principal, token, action, target, outcome, reason, detail, \
                        previous_hash, hash FROM audit WHERE number = 6;";
    const SWAP: &str = "UPDATE audit SET number = -3 WHERE number = 3;
                        UPDATE audit SET number = 3 WHERE number = 4;
                        UPDATE audit SET number = 4 WHERE number = -3;";
    let changed = |column: &str| format!("UPDATE audit SET {column} WHERE number = 3");
    let missing = |expected, found| Err(Number(expected, found));
    let cases = [
        (String::new(), Ok(())),
        (changed("principal = 'eve'"), Err(Changed(3))),
        (changed("token = ''"), Err(Changed(3))),
        (changed("action = 'rollout.resume'"), Err(Changed(3))),
        (changed("target = 'rollout 4'"), Err(Changed(3))),
        (changed("outcome = 'refused'"), Err(Changed(3))),
        (changed("reason = 'lunch '"), Err(Changed(3))),
        (changed("detail = 'x', reason = 'lunc'"), Err(Changed(3))),
        (changed("at = at + 1"), Err(Changed(3))),
        (changed("hash = zeroblob(32)"), Err(Changed(3))),
        (changed("previous_hash = zeroblob(32)"), Err(Previous(3))),
        ("DELETE FROM audit WHERE number = 3".to_owned(), missing(3, 4)),
        ("DELETE FROM audit WHERE number = 1".to_owned(), missing(1, 2)),
        (
            "DELETE FROM audit WHERE number = 3; UPDATE audit SET number = number - 1 WHERE number > 3".to_owned(),
            Err(Previous(3)),
        ),
        (SWAP.to_owned(), Err(Previous(3))),
        (COPY.to_owned(), Err(Previous(7))),
        ("DELETE FROM audit WHERE number > 4".to_owned(), Err(Head(6))),
        ("DELETE FROM audit".to_owned(), Err(Head(6))),
    ];
    for (sql, expected) in cases {
        assert_eq!(tampered(&sql).await.unwrap(), expected, "{sql}");
    }
}

#[tokio::test]
async fn an_entry_that_says_nothing_known_is_named() {
    let found = tampered("UPDATE audit SET outcome = 'gone' WHERE number = 3").await;
    let text = found.unwrap_err().to_string();
    assert!(text.contains("entry 3") && text.contains("gone"), "{text}");
}

/// Who can write the file could replace everything from some entry on, hashes and all: a noted head tells.
#[tokio::test]
async fn a_log_that_is_replaced_whole_does_not_fit_a_noted_head() {
    let mut logs = Vec::new();
    for principal in ["ada", "eve"] {
        let database = Database::new();
        let store = database.open();
        let write = move |tx: &Tx<'_>| {
            tx.append_audit(entry(1))?;
            tx.append_audit(Entry {
                principal: principal.to_owned(),
                ..entry(2)
            })
        };
        store.write(write).await.unwrap();
        let read = |tx: &Tx<'_>| Ok::<_, Error>((tx.audit(1, 100)?, tx.audit_head()?));
        logs.push(store.read(read).await.unwrap());
        store.close().await;
    }
    let (honest, forged) = (&logs[0], &logs[1]);
    assert_eq!(
        verify(&forged.0, forged.1),
        Ok(()),
        "by itself it is a good chain"
    );
    assert_eq!(verify(&forged.0, honest.1), Err(Broken::Head(2)));
}

#[tokio::test]
async fn the_database_itself_refuses_changes() {
    let database = Database::new();
    let store = database.open();
    store.write(|tx| tx.append_audit(entry(1))).await.unwrap();
    store.close().await;
    let person = Connection::open(database.path()).unwrap();
    for sql in ["UPDATE audit SET reason = ''", "DELETE FROM audit"] {
        let refused = person.execute_batch(sql).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
}
