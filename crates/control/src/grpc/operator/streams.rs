//! Answers that go on: a rollout as it changes, and the audit log as it grows.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use keyfleet_proto::v1;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::app::audit::Since;
use crate::app::rollout::find;
use crate::app::simulate::{Asked, may_preview};
use crate::app::{Actor, App, view};
use crate::error::Error;
use crate::grpc::session::spawn;
use crate::simulate::preview::Audience;

/// Changes that come faster than this are shown as one.
const WATCH_COALESCE: Duration = Duration::from_millis(100);

/// Snapshots on their way to one watcher: the next waits until the last was taken.
const WATCH_MAX: usize = 1;

/// Audit entries read at once, and so on their way to one reader.
const AUDIT_PAGE: u32 = 256;

/// How often somebody who follows the audit log is told what is new.
const AUDIT_FOLLOW: Duration = Duration::from_secs(1);

/// The turn of whoever simulates; one for the process, which has few cores to spare.
static SIMULATION: Semaphore = Semaphore::const_new(1);

/// How long a simulation may take.
pub(super) const SIMULATION_DEADLINE: Duration = Duration::from_secs(120);

/// Time between two reports of how far a simulation is.
const SIMULATION_REPORT: Duration = Duration::from_millis(200);

/// A stream of answers that owns the task behind it.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Owned<T> {
    answers: ReceiverStream<Result<T, Status>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl<T> Stream for Owned<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.answers).poll_next(context)
    }
}

/// Where a task puts its answers. A reader who does not read never holds up the shutdown.
struct Outlet<T> {
    app: App,
    sender: mpsc::Sender<Result<T, Status>>,
}

impl<T> Outlet<T> {
    /// False where nobody reads any more, or the service ends.
    async fn put(&self, answer: Result<T, Error>) -> bool {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = self.app.shutdown.cancelled() => false,
            // Cancel-safe: what was not sent is not needed when the other branch is taken.
            sent = self.sender.send(answer.map_err(Status::from)) => sent.is_ok(),
        }
    }

    /// False where the service ends first.
    async fn wait(&self, change: impl Future<Output = ()>) -> bool {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = self.app.shutdown.cancelled() => false,
            // Cancel-safe: its callers lose nothing by waiting anew.
            () = change => true,
            // Cancel-safe: closed stays closed.
            () = self.sender.closed() => false,
        }
    }
}

fn answers<T: Send + 'static, F>(
    app: App,
    places: usize,
    task: impl FnOnce(Outlet<T>) -> F,
) -> Answers<T>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(places);
    let task = spawn(task(Outlet { app, sender }));
    Box::pin(Owned {
        answers: ReceiverStream::new(receiver),
        _task: tokio_util::task::AbortOnDropHandle::new(task),
    })
}

/// The rollout as it is and after every change, until it has ended.
pub(super) fn rollout(app: App, actor: Actor, id: String) -> Answers<v1::WatchRolloutResponse> {
    let look = move |app: App| {
        let (actor, id) = (actor.clone(), id.clone());
        async move { snapshot(&app, &actor, id).await }
    };
    answers(app, WATCH_MAX, |outlet| {
        let is_over = |rollout: &v1::Rollout| rollout.ended_at.is_some();
        watch(outlet, look, is_over, |rollout| v1::WatchRolloutResponse {
            rollout: Some(rollout),
        })
    })
}

/// The campaign as it is and after every change, until it has ended.
pub(super) fn campaign(app: App, actor: Actor, id: String) -> Answers<v1::WatchCampaignResponse> {
    let look = move |app: App| {
        let (actor, id) = (actor.clone(), id.clone());
        async move { campaign_now(&app, &actor, id).await }
    };
    answers(app, WATCH_MAX, |outlet| {
        let is_over = |campaign: &v1::Campaign| campaign.ended_at.is_some();
        watch(outlet, look, is_over, |campaign| {
            v1::WatchCampaignResponse {
                campaign: Some(campaign),
            }
        })
    })
}

/// What manifests would do, tried on a model of the fleet. One at a time: it takes a core.
pub(super) fn simulation(
    app: App,
    actor: Actor,
    call: v1::SimulateRolloutRequest,
    limit: Duration,
) -> Result<Answers<v1::SimulateRolloutResponse>, Error> {
    may_preview(&actor)?;
    let turn = SIMULATION.try_acquire().map_err(|_| {
        let busy = "another simulation is running: try again when it has ended";
        Error::Unavailable(busy.to_owned())
    })?;
    Ok(answers(app, WATCH_MAX, |outlet| async move {
        let asked = match outlet.app.preview(&actor, call).await {
            Ok(asked) => asked,
            Err(err) => {
                outlet.put(Err(err)).await;
                return;
            }
        };
        let (sender, shutdown) = (outlet.sender.clone(), outlet.app.shutdown.clone());
        // It sees that its caller has gone, and that the service ends: it is never waited for in vain.
        let thread = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let now = Instant::now();
            let asker = Asker {
                sender: &sender,
                shutdown: &shutdown,
                deadline: now + limit,
                told: now,
            };
            simulate(asked, asker, limit)
        });
        if let Ok(Some(answer)) = thread.await {
            outlet.put(answer).await;
        }
    }))
}

/// Whoever asked for a simulation.
struct Asker<'a> {
    sender: &'a mpsc::Sender<Result<v1::SimulateRolloutResponse, Status>>,
    shutdown: &'a CancellationToken,
    deadline: Instant,
    told: Instant,
}

impl Asker<'_> {
    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl Audience for Asker<'_> {
    fn waits(&self) -> bool {
        !self.sender.is_closed() && !self.shutdown.is_cancelled() && !self.is_late()
    }

    fn hear(&mut self, progress: v1::SimulationProgress) {
        if self.told.elapsed() < SIMULATION_REPORT {
            return;
        }
        self.told = Instant::now();
        let part = Some(v1::simulate_rollout_response::Part::Progress(progress));
        // Who is slow to read misses a report.
        let _ = self
            .sender
            .try_send(Ok(v1::SimulateRolloutResponse { part }));
    }
}

/// `None` where nobody wants the answer any more.
fn simulate(
    asked: Asked,
    mut asker: Asker<'_>,
    limit: Duration,
) -> Option<Result<v1::SimulateRolloutResponse, Error>> {
    match asked.run(&mut asker) {
        Ok(Some(result)) => {
            let part = Some(v1::simulate_rollout_response::Part::Result(result));
            Some(Ok(v1::SimulateRolloutResponse { part }))
        }
        Ok(None) if asker.is_late() => {
            let secs = limit.as_secs();
            Some(Err(Error::Precondition(format!(
                "the simulation takes longer than {secs} s: try fewer deployments (--fleet N) or a strategy with more at a time"
            ))))
        }
        Ok(None) => None,
        Err(err) => Some(Err(err)),
    }
}

/// The audit log from some entry on.
pub(super) fn audit(app: App, actor: Actor, from: Since, follow: bool) -> Answers<v1::AuditEntry> {
    let places = usize::try_from(AUDIT_PAGE).unwrap_or(1);
    answers(app, places, move |outlet| read(outlet, actor, from, follow))
}

async fn page(app: &App, actor: &Actor, from: Since) -> Result<(Vec<v1::AuditEntry>, u64), Error> {
    app.must_still_be(actor).await?;
    app.audit_page(from, AUDIT_PAGE).await
}

/// A campaign as it is now.
pub(super) async fn campaign_now(
    app: &App,
    actor: &Actor,
    id: String,
) -> Result<v1::Campaign, Error> {
    app.must_still_be(actor).await?;
    app.view_as(actor, move |sight| view::only_campaign(sight, &id))
        .await
}

/// One rollout as this caller sees it.
pub(super) async fn snapshot(app: &App, actor: &Actor, id: String) -> Result<v1::Rollout, Error> {
    app.must_still_be(actor).await?;
    app.view_as(actor, move |sight| view::rollout(sight, find(sight, &id)?))
        .await
}

/// Tells what is seen as it is and after every change, until that is the last.
async fn watch<T: PartialEq + Clone, M, F>(
    outlet: Outlet<M>,
    look: impl Fn(App) -> F,
    is_over: impl Fn(&T) -> bool,
    tell: impl Fn(T) -> M,
) where
    F: Future<Output = Result<T, Error>>,
{
    let mut changes = outlet.app.watch();
    let mut last = None;
    loop {
        changes.mark_unchanged();
        let seen = match look(outlet.app.clone()).await {
            Ok(seen) => seen,
            Err(err) => {
                outlet.put(Err(err)).await;
                return;
            }
        };
        if last.as_ref() != Some(&seen) {
            if !outlet.put(Ok(tell(seen.clone()))).await || is_over(&seen) {
                return;
            }
            last = Some(seen);
        }
        let changed = async {
            let _ = changes.changed().await;
            tokio::time::sleep(WATCH_COALESCE).await;
        };
        if !outlet.wait(changed).await {
            return;
        }
    }
}

async fn read(outlet: Outlet<v1::AuditEntry>, actor: Actor, mut from: Since, follow: bool) {
    loop {
        let (entries, next) = match page(&outlet.app, &actor, from).await {
            Ok(page) => page,
            Err(err) => {
                outlet.put(Err(err)).await;
                return;
            }
        };
        let is_end = entries.len() < usize::try_from(AUDIT_PAGE).unwrap_or(usize::MAX);
        for entry in entries {
            if !outlet.put(Ok(entry)).await {
                return;
            }
        }
        from = Since::Number(next);
        let later = tokio::time::sleep(AUDIT_FOLLOW);
        if is_end && !(follow && outlet.wait(later).await) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
