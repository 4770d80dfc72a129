//! Following rollouts until they end: a stream that is opened again when it drops, shown live.

mod bars;
mod campaign;
mod lines;
mod trial;

use std::cell::RefCell;
use std::time::Duration;

use futures_util::future::try_join_all;
use keyfleet_core::rollout::Phase;
use keyfleet_proto::v1;

pub(crate) use self::campaign::CampaignLines;
pub(crate) use self::trial::Trial;
use crate::client::{self, Client};
use crate::duration;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Canonical, Printer};
use crate::views::words;

/// How often a dropped stream is opened again without a word from control in between.
pub(crate) const TRIES_MAX: u32 = 8;

/// Wait before the first new try; doubled for each further one: together about half a minute, a restart of control.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// The wait before the try of this number, from 1.
pub(crate) fn delay(n_tries: u32) -> Duration {
    FIRST_DELAY * 2_u32.saturating_pow(n_tries.saturating_sub(1))
}

/// How to follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Follow {
    /// Also stop where a rollout waits for a person.
    pub(crate) until_held: bool,
    /// Longest wait.
    pub(crate) deadline: Option<Duration>,
    /// Print each state for a machine, as it comes.
    pub(crate) print_each: bool,
}

/// The live view: one of these for each way of printing.
enum Live {
    Bars(bars::Bars),
    Lines(lines::Lines),
    None,
}

impl Live {
    fn new(printer: &Printer, n_rollouts: usize) -> Self {
        let for_people = !printer.is_quiet() && !printer.is_machine();
        match (for_people, bars::possible()) {
            (true, true) => Self::Bars(bars::Bars::new()),
            (true, false) => Self::Lines(lines::Lines::new(n_rollouts > 1)),
            (false, _) => Self::None,
        }
    }

    fn update(&mut self, printer: &Printer, rollout: &v1::Rollout) {
        match self {
            Self::Bars(bars) => bars.update(rollout),
            Self::Lines(lines) => lines.update(printer, rollout),
            Self::None => {}
        }
    }

    fn trouble(&mut self, printer: &Printer, text: &str) {
        match self {
            Self::Bars(bars) => bars.trouble(text),
            Self::Lines(_) => lines::Lines::say(printer, text),
            Self::None => printer.note(text),
        }
    }
}

/// Follows rollouts together and gives what is known of each at its end.
///
/// # Errors
/// Where control does not come back, the deadline passes, or the operator interrupts.
pub(crate) async fn follow_all(
    client: &Client,
    printer: &Printer,
    ids: &[String],
    follow: Follow,
) -> Result<Vec<v1::GetRolloutResponse>, Error> {
    let live = RefCell::new(Live::new(printer, ids.len()));
    let all = try_join_all(
        ids.iter()
            .map(|id| follow_one(client, printer, id, follow, &live)),
    );
    let ended = async {
        match follow.deadline {
            Some(deadline) => tokio::time::timeout(deadline, all)
                .await
                .unwrap_or_else(|_| Err(Error::WaitedTooLong(duration::short(deadline.as_secs())))),
            None => all.await,
        }
    };
    tokio::select! {
        ends = ended => ends,
        Ok(()) = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    }
}

/// The exit code for these ends: the lowest that is not zero, so that a rollout that waits for a person comes first.
pub(crate) fn exit_of(ends: &[v1::GetRolloutResponse]) -> Exit {
    let exits = ends.iter().map(|end| {
        phase_exit(
            end.rollout
                .as_ref()
                .and_then(|rollout| words::phase(rollout.phase)),
        )
    });
    exits
        .filter(|exit| *exit != Exit::Ok)
        .min()
        .unwrap_or(Exit::Ok)
}

fn phase_exit(phase: Option<Phase>) -> Exit {
    match phase {
        Some(Phase::Completed) => Exit::Ok,
        Some(Phase::Paused | Phase::Halted | Phase::RollbackPaused | Phase::RollbackHalted) => {
            Exit::Held
        }
        Some(Phase::RolledBack) => Exit::RolledBack,
        Some(Phase::Aborted | Phase::Superseded) => Exit::Ended,
        Some(Phase::Pending | Phase::Progressing | Phase::RollingBack) | None => Exit::Error,
    }
}

fn is_end(rollout: &v1::Rollout, until_held: bool) -> bool {
    let phase = words::phase(rollout.phase);
    phase.is_some_and(Phase::is_terminal) || until_held && phase_exit(phase) == Exit::Held
}

async fn follow_one(
    client: &Client,
    printer: &Printer,
    id: &str,
    follow: Follow,
    live: &RefCell<Live>,
) -> Result<v1::GetRolloutResponse, Error> {
    let mut n_tries = 0;
    loop {
        let heard = |rollout: &v1::Rollout| {
            live.borrow_mut().update(printer, rollout);
            if follow.print_each && printer.is_machine() {
                printer.machine_item(&Canonical::new(rollout)?)?;
            }
            Ok(())
        };
        let mut n_heard = 0;
        let dropped = match read_stream(client, id, follow.until_held, heard, &mut n_heard).await? {
            Read::Ended => return details(client, id).await,
            Read::Dropped(dropped) => dropped,
        };
        n_tries = if n_heard > 0 { 1 } else { n_tries + 1 };
        if !dropped.is_passing() || n_tries > TRIES_MAX {
            return Err(dropped.into());
        }
        live.borrow_mut()
            .trouble(printer, &format!("lost the watch, trying again: {dropped}"));
        tokio::time::sleep(delay(n_tries)).await;
    }
}

/// How reading a stream ended.
enum Read {
    /// The rollout is where the watch ends.
    Ended,
    /// The stream broke off.
    Dropped(client::Error),
}

/// Reads one stream until the rollout or the stream ends, counting what was heard.
async fn read_stream(
    client: &Client,
    id: &str,
    until_held: bool,
    mut heard: impl FnMut(&v1::Rollout) -> Result<(), Error>,
    n_heard: &mut u32,
) -> Result<Read, Error> {
    let request = v1::WatchRolloutRequest { id: id.to_owned() };
    let mut stream = match client
        .open(request, async |api, request| {
            api.watch_rollout(request).await
        })
        .await
    {
        Ok(stream) => stream,
        Err(err) => return Ok(Read::Dropped(err)),
    };
    loop {
        match stream.message().await {
            Ok(Some(response)) => {
                let rollout = response.rollout.ok_or(Error::Incomplete("rollout"))?;
                *n_heard += 1;
                heard(&rollout)?;
                if is_end(&rollout, until_held) {
                    return Ok(Read::Ended);
                }
            }
            Ok(None) => {
                let text = "it ended the watch before the rollout ended".to_owned();
                return Ok(Read::Dropped(client::Error::Unavailable(text)));
            }
            Err(status) => return Ok(Read::Dropped(client.refused(&status))),
        }
    }
}

/// Everything known of the rollout: its targets are not part of the stream.
async fn details(client: &Client, id: &str) -> Result<v1::GetRolloutResponse, Error> {
    let request = v1::GetRolloutRequest { id: id.to_owned() };
    Ok(client
        .call(request, async |api, request| api.get_rollout(request).await)
        .await?)
}
