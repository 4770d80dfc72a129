//! What a commit that fails means for the jobs in it, and how the writer ends.

use super::*;

/// A writer on a table whose foreign key is checked at the commit, so that a commit can fail.
fn writer() -> Writer {
    let connection = Connection::open_in_memory().unwrap();
    let tables = "PRAGMA foreign_keys = ON; CREATE TABLE one (id INTEGER PRIMARY KEY,
                  parent INTEGER REFERENCES one DEFERRABLE INITIALLY DEFERRED)";
    connection.execute_batch(tables).unwrap();
    Writer::start(connection, tempfile::tempfile().unwrap()).unwrap()
}

fn insert(tx: &Tx<'_>, id: i64, parent: Option<i64>) -> Result<i64, Error> {
    tx.0.execute("INSERT INTO one VALUES (?1, ?2)", (id, parent))?;
    Ok(id)
}

/// Holds the writer in a group of its own until everything in `jobs` is queued, so that all of it is one group.
async fn in_one_group<T>(writer: &Writer, jobs: impl Future<Output = T>) -> T {
    let (started, has_started) = oneshot::channel();
    let (release, held) = std::sync::mpsc::channel();
    let holding = writer.run(move |_| {
        let _ = started.send(());
        held.recv().map_err(|err| Error::corrupt("test", err))
    });
    // Polled in order: the release comes when every job is queued.
    let rest = async {
        has_started.await.unwrap();
        tokio::join!(biased; jobs, async { release.send(()).unwrap() }).0
    };
    let (held, done) = tokio::join!(holding, rest);
    held.unwrap();
    done
}

#[tokio::test]
async fn a_failed_commit_is_told_to_every_job_and_writes_nothing() {
    let writer = writer();
    let (good, orphan, own, late) = in_one_group(&writer, async {
        tokio::join!(
            writer.run(|tx| insert(tx, 1, None)),
            writer.run(|tx| insert(tx, 2, Some(99))),
            writer.run(|_| Err::<(), _>(Error::corrupt("test", "its own"))),
            writer.run(|tx| insert(tx, 3, None)),
        )
    })
    .await;
    for failed in [good, orphan, late] {
        let text = std::error::Error::source(&failed.unwrap_err())
            .unwrap()
            .to_string();
        assert!(text.contains("FOREIGN KEY"), "{text}");
    }
    assert!(own.unwrap_err().to_string().ends_with("its own"));
    let count = |tx: &Tx<'_>| {
        Ok(tx
            .0
            .query_row("SELECT count(*) FROM one", [], |r| r.get(0))?)
    };
    assert_eq!(writer.run::<i64, Error, _>(count).await.unwrap(), 0);
    assert_eq!(writer.run(|tx| insert(tx, 4, None)).await.unwrap(), 4);
    assert_eq!(writer.run(count).await.unwrap(), 1);
}

#[tokio::test]
async fn a_transaction_that_sqlite_gave_up_fails_the_whole_group() {
    let writer = writer();
    let (before, gives_up, after) = in_one_group(&writer, async {
        tokio::join!(
            writer.run(|tx| insert(tx, 1, None)),
            writer.run(|tx| Ok::<_, Error>(tx.0.execute_batch("ROLLBACK")?)),
            writer.run(|tx| insert(tx, 2, None)),
        )
    })
    .await;
    assert!(before.is_err() && gives_up.is_err() && after.is_err());
    assert_eq!(writer.run(|tx| insert(tx, 1, None)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_caller_that_does_not_fetch_its_answer_does_not_hold_up_the_end() {
    let writer = writer();
    let (release, held) = std::sync::mpsc::channel();
    let write = writer.run(move |tx| {
        held.recv().map_err(|err| Error::corrupt("test", err))?;
        insert(tx, 1, None)
    });
    let mut write = std::pin::pin!(write);
    let queued = std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx)));
    assert!(queued.await.is_pending());
    release.send(()).unwrap();
    writer.close().await;
    assert_eq!(write.await.unwrap(), 1);
}

#[tokio::test]
async fn everybody_who_closes_waits_for_the_end() {
    let writer = writer();
    let write = writer.run(|tx| insert(tx, 1, None));
    let (written, (), ()) = tokio::join!(biased; write, writer.close(), writer.close());
    assert_eq!(written.unwrap(), 1);
    assert!(matches!(
        writer.run(|tx| insert(tx, 2, None)).await,
        Err(Error::Closed)
    ));
}

/// A store on a disk that holds `pages` more pages and then is full.
async fn nearly_full(dir: &tempfile::TempDir, pages: u32) -> crate::Store {
    let store = crate::Store::open(&dir.path().join("keyfleet.db")).unwrap();
    limit(&store, move |used| used + pages).await;
    store
}

/// Sets how many pages the database may have.
async fn limit(store: &crate::Store, pages: impl FnOnce(u32) -> u32 + Send + 'static) {
    let set = |tx: &Tx<'_>| -> Result<(), Error> {
        let used: u32 =
            tx.0.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let pages = format!("PRAGMA max_page_count = {}", pages(used));
        Ok(tx.0.query_row(&pages, [], |_| Ok(()))?)
    };
    store.write(set).await.unwrap();
}

/// Adds a row of its own page.
async fn fill(store: &crate::Store, row: u32) -> Result<(), Error> {
    let write = move |tx: &Tx<'_>| -> Result<(), Error> {
        let text = format!("{row} {}", "x".repeat(4000));
        tx.0.execute(
            "INSERT INTO events (at, actor, text) VALUES (0, '', ?1)",
            [text],
        )?;
        Ok(())
    };
    store.write(write).await
}

async fn rows(store: &crate::Store) -> u32 {
    let count = |tx: &Tx<'_>| -> Result<u32, Error> {
        Ok(tx
            .0
            .query_row("SELECT count(*) FROM events", [], |row| row.get(0))?)
    };
    store.read(count).await.unwrap()
}

#[tokio::test]
async fn a_full_disk_is_said_reads_go_on_and_space_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = nearly_full(&dir, 20).await;
    let mut stored = 0;
    let refused = loop {
        match fill(&store, stored).await {
            Ok(()) => stored += 1,
            Err(err) => break err,
        }
    };
    assert!(stored > 5, "{stored}");
    let text = refused.to_string();
    assert!(
        text.contains("the disk is full") && text.contains("make space"),
        "{text}"
    );
    assert!(store.trouble().unwrap().contains("full"));
    assert_eq!(
        rows(&store).await,
        stored,
        "what was acknowledged is there, and nothing else"
    );
    assert!(fill(&store, stored).await.is_err());

    limit(&store, |_| 1_000_000).await;
    assert_eq!(store.trouble(), None, "a commit that succeeds ends it");
    fill(&store, stored).await.unwrap();
    assert_eq!(rows(&store).await, stored + 1);
    store.close().await;
    drop(store);
    let store = crate::Store::open(&dir.path().join("keyfleet.db")).unwrap();
    assert_eq!(rows(&store).await, stored + 1);
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_commit_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = nearly_full(&dir, 30).await;
    let mut tasks = tokio::task::JoinSet::new();
    for row in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { fill(&store, row).await });
    }
    let (mut stored, mut refused) = (0, 0);
    for done in tasks.join_all().await {
        match done {
            Ok(()) => stored += 1,
            Err(err @ (Error::GivenUp | Error::Disk { .. })) => {
                assert!(err.to_string().contains("make space"), "{err}");
                refused += 1;
            }
            Err(err) => panic!("{err}"),
        }
    }
    assert!(refused > 0);
    assert_eq!(rows(&store).await, stored);
    limit(&store, |_| 1_000_000).await;
    store.probe().await.unwrap();
    fill(&store, 0).await.unwrap();
    assert_eq!(rows(&store).await, stored + 1);
}
