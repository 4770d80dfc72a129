//! The one writer: a thread that owns the writing connection and commits in groups.

use std::sync::{Mutex, PoisonError};

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
    ended: Mutex<Option<oneshot::Receiver<()>>>,
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
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Work<T, E, F>
where
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        if let Some(work) = self.work.take() {
            self.result = Some(work(tx));
        }
        matches!(self.result, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, commit: Result<(), Error>) {
        let result = match (commit, self.result) {
            (Ok(()), Some(result)) => result,
            // What the job itself said explains more than the failed commit around it.
            (Err(_), Some(Err(err))) => Err(err),
            (Err(err), _) => Err(E::from(err)),
            (Ok(()), None) => Err(E::from(Error::Closed)),
        };
        // A caller that went away does not want the answer; the write stands.
        let _ = self.reply.send(result);
    }
}

impl Writer {
    pub(crate) fn start(connection: Connection) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (done, ended) = oneshot::channel();
        std::thread::spawn(move || {
            serve(&connection, queue);
            let _ = done.send(());
        });
        Self { jobs: Mutex::new(Some(jobs)), ended: Mutex::new(Some(ended)) }
    }

    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let sender = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Work { work: Some(work), result: None, reply });
        sender.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or_else(|_| Err(E::from(Error::Closed)))
    }

    pub(crate) async fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = ended.await;
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
    let problem = committed.err();
    for job in group {
        let commit = match &problem {
            None => Ok(()),
            Some(problem) => Err(Error::corrupt("commit", problem)),
        };
        job.finish(commit);
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
