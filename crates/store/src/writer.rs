//! The one writer: a thread that owns the writing connection and commits in groups.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Tx};

/// Jobs that may wait: a report of every agent of a large fleet at once; beyond it callers wait their turn.
const QUEUE_MAX: usize = 4096;

/// Jobs of one commit: enough to share the cost of the disk, few enough that nobody waits long.
const GROUP_MAX: usize = 1000;

/// Handle to the writer thread.
pub(crate) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    // Locked across the wait, so that everybody who closes waits for the end.
    ended: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

/// A closure on its way to the writer, with the place where its answer goes.
trait Job: Send {
    /// Runs inside its own savepoint; true = keep what it wrote.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Tells the caller, after the commit.
    fn finish(self: Box<Self>, commit: Result<(), Error>);
}

struct Work<T, E, F> {
    work: Option<F>,
    result: Option<Answer<T, E>>,
    reply: oneshot::Sender<Answer<T, E>>,
}

/// What a job said, or the panic it ended with.
type Answer<T, E> = std::thread::Result<Result<T, E>>;

impl<T, E, F> Job for Work<T, E, F>
where
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        if let Some(work) = self.work.take() {
            // What a panic leaves half done is undone with the savepoint; the panic goes on at the caller's.
            self.result = Some(catch_unwind(AssertUnwindSafe(|| work(tx))));
        }
        matches!(self.result, Some(Ok(Ok(_))))
    }

    fn finish(self: Box<Self>, commit: Result<(), Error>) {
        let result = match (commit, self.result) {
            // Without a failed commit every job has run; what a job itself said explains more than the
            // failed commit around it.
            (Ok(()), Some(result)) | (Err(_), Some(result @ (Err(_) | Ok(Err(_))))) => result,
            (Err(err), _) => Ok(Err(E::from(err))),
            (Ok(()), None) => Ok(Err(E::from(Error::Closed))),
        };
        // A caller that went away does not want the answer; the write stands.
        let _ = self.reply.send(result);
    }
}

impl Writer {
    /// Starts the thread; it owns the lock, which must outlive the last write.
    pub(crate) fn start(connection: Connection, lock: File) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (done, ended) = oneshot::channel();
        // Joined through `ended`: the thread ends when the last sender is gone and the queue is empty.
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                serve(&connection, queue);
                drop(connection);
                drop(lock);
                let _ = done.send(());
            })?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            ended: tokio::sync::Mutex::new(Some(ended)),
        })
    }

    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let sender = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let sender = sender.ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Work {
            work: Some(work),
            result: None,
            reply,
        });
        sender.send(job).await.map_err(|_| Error::Closed)?;
        // Whoever waits for an answer must not keep the writer from ending.
        drop(sender);
        match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(E::from(Error::Closed)),
        }
    }

    pub(crate) async fn close(&self) {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut ended = self.ended.lock().await;
        if let Some(receiver) = ended.as_mut() {
            // An error means that the thread is gone already.
            let _ = receiver.await;
            *ended = None;
        }
    }
}

fn serve(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            match queue.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        commit_group(connection, group);
    }
}

fn commit_group(connection: &Connection, mut group: Vec<Box<dyn Job>>) {
    let committed = run_group(connection, &mut group);
    if committed.is_err() {
        // The transaction may already be gone; then there is nothing to undo.
        let _ = connection.execute_batch("ROLLBACK");
    }
    let committed = committed.map_err(Arc::new);
    for job in group {
        job.finish(committed.clone().map_err(Error::Sqlite));
    }
}

fn run_group(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for job in group {
        connection.execute_batch("SAVEPOINT job")?;
        if job.run(&Tx(connection)) {
            connection.execute_batch("RELEASE job")?;
        } else {
            connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
        }
    }
    connection.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
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
}
