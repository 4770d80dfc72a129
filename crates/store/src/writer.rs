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
    trouble: Arc<Mutex<Option<String>>>,
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
        let trouble = Arc::new(Mutex::new(None));
        let shown = Arc::clone(&trouble);
        // Joined through `ended`: the thread ends when the last sender is gone and the queue is empty.
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                serve(&connection, queue, &shown);
                drop(connection);
                drop(lock);
                let _ = done.send(());
            })?;
        Ok(Self {
            trouble,
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

    /// Why the last commit failed; `None` where it went well.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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

fn serve(
    connection: &Connection,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    trouble: &Mutex<Option<String>>,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            match queue.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        commit_group(connection, group, trouble);
    }
}

/// Why nothing of a group was written; told to every job of it.
#[derive(Clone)]
enum Undone {
    Sqlite(Arc<rusqlite::Error>),
    /// SQLite undid the transaction while a job ran: that job alone knows why.
    GivenUp,
}

impl From<rusqlite::Error> for Undone {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(err))
    }
}

impl From<Undone> for Error {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Sqlite(err) => err.into(),
            Undone::GivenUp => Self::GivenUp,
        }
    }
}

fn commit_group(
    connection: &Connection,
    mut group: Vec<Box<dyn Job>>,
    trouble: &Mutex<Option<String>>,
) {
    let committed = run_group(connection, &mut group);
    if committed.is_err() {
        // The transaction may already be gone; then there is nothing to undo.
        let _ = connection.execute_batch("ROLLBACK");
    }
    let problem = committed.clone().map_err(Error::from).err();
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = problem.map(|err| err.to_string());
    for job in group {
        job.finish(committed.clone().map_err(Error::from));
    }
}

fn run_group(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), Undone> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for job in group {
        connection.execute_batch("SAVEPOINT job")?;
        let keep = job.run(&Tx(connection));
        if connection.is_autocommit() {
            return Err(Undone::GivenUp);
        }
        if keep {
            connection.execute_batch("RELEASE job")?;
        } else {
            connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
        }
    }
    Ok(connection.execute_batch("COMMIT")?)
}

#[cfg(test)]
mod tests;
