//! `keyfleet rollout`: watch and steer rollouts.

use clap::{Args, Subcommand};
use keyfleet_proto::v1;

use super::simulate::{self, SimulateArgs};
use super::{Session, get};
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Printer;
use crate::views;
use crate::watch::{self, Follow};

/// Length of a full id (a UUID): only a shorter one is looked up.
const ID_CHARS: usize = 36;

/// What to do with rollouts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the rollouts
    #[command(visible_alias = "ls")]
    #[command(after_long_help = "\
Example:
  keyfleet rollout list --active")]
    List {
        /// Only those that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Show a rollout with its waves, targets and events
    #[command(after_long_help = "\
Example:
  keyfleet rollout show 0192f3a4")]
    Show {
        /// Id of the rollout, or its beginning; the active one where left out
        id: Option<String>,
    },
    /// Watch a rollout until it ends
    #[command(after_long_help = "\
Examples:
  keyfleet rollout watch
  keyfleet rollout watch 0192f3a4 --exit-on-halt --timeout 1h")]
    Watch(WatchArgs),
    /// Say why it does not advance: the run, its waves, and each deployment that waits
    #[command(after_long_help = "\
Examples:
  keyfleet rollout explain
  keyfleet rollout explain 0192f3a4 --deployment kibana-a")]
    Explain(ExplainArgs),
    /// Offer nothing more for now; what is in flight goes on
    #[command(after_long_help = "\
Example:
  keyfleet rollout pause 0192f3a4 --reason 'look at the canary first'")]
    Pause(VerbArgs),
    /// Go on; failures up to the pause are forgiven
    #[command(after_long_help = "\
Example:
  keyfleet rollout resume 0192f3a4 --reason 'canary is fine'")]
    Resume(VerbArgs),
    /// End it here and change nothing back
    #[command(after_long_help = "\
Example:
  keyfleet rollout abort 0192f3a4 --reason 'wrong model'")]
    Abort(VerbArgs),
    /// Return every touched deployment to what it last proved
    #[command(after_long_help = "\
Example:
  keyfleet rollout rollback 0192f3a4 --reason 'wrong model'")]
    Rollback(VerbArgs),
    /// Offer the failed deployments again
    #[command(after_long_help = "\
Example:
  keyfleet rollout retry 0192f3a4 --reason 'quota was raised'")]
    Retry(VerbArgs),
    /// Agree that a wave may begin
    #[command(after_long_help = "\
Examples:
  keyfleet rollout approve 0192f3a4 --reason 'canary looks fine'
  keyfleet rollout approve 0192f3a4 --wave fleet")]
    Approve(ApproveArgs),
    /// Skip the soak and the absences of the running wave, never its failures
    #[command(after_long_help = "\
Example:
  keyfleet rollout fast-forward 0192f3a4 --reason 'urgent'")]
    FastForward(VerbArgs),
    /// Try manifests on a model of the fleet before anything is touched
    Simulate(SimulateArgs),
}

/// Which rollout to watch, and how long.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Id of the rollout, or its beginning; the active one where left out
    id: Option<String>,
    /// Also end, with code 5, when the rollout is paused or halted
    #[arg(long)]
    exit_on_halt: bool,
}

/// What to explain.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Id of the rollout, or its beginning; the active one where left out
    id: Option<String>,
    /// Only this deployment
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    deployment: String,
}

/// Which wave to agree with.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    verb: VerbArgs,
    /// Name of the wave; the next that asks for it where left out
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    wave: String,
}

/// Which rollout to change, and why.
#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// Id of the rollout, or its beginning
    id: String,
    /// Why, for the record
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    reason: String,
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    if let Command::Watch(args) = command {
        return watch(session, args).await;
    }
    if let Command::Simulate(args) = command {
        return simulate::run(session, args).await;
    }
    let client = session.client().await?;
    let printer = session.printer;
    match command {
        Command::List { active } => get::rollouts(&client, printer, active).await?,
        Command::Show { id } => show(&client, printer, id.as_deref()).await?,
        Command::Watch(_) | Command::Simulate(_) => {}
        Command::Explain(args) => explain(&client, printer, args).await?,
        Command::Approve(args) => approve(&client, printer, args).await?,
        Command::FastForward(args) => {
            change(&client, printer, args, v1::RolloutVerb::FastForward).await?
        }
        Command::Pause(args) => change(&client, printer, args, v1::RolloutVerb::Pause).await?,
        Command::Resume(args) => change(&client, printer, args, v1::RolloutVerb::Resume).await?,
        Command::Abort(args) => change(&client, printer, args, v1::RolloutVerb::Abort).await?,
        Command::Rollback(args) => {
            change(&client, printer, args, v1::RolloutVerb::Rollback).await?
        }
        Command::Retry(args) => change(&client, printer, args, v1::RolloutVerb::Retry).await?,
    }
    Ok(Exit::Ok)
}

async fn watch(session: &Session<'_>, args: WatchArgs) -> Result<Exit, Error> {
    let client = session.waiting_client().await?;
    let printer = session.printer;
    let id = resolve(&client, args.id.as_deref()).await?;
    let follow = Follow {
        until_held: args.exit_on_halt,
        deadline: session.wait_deadline(),
        print_each: true,
    };
    let ends = watch::follow_all(&client, printer, &[id], follow).await?;
    if !printer.is_machine() {
        for end in &ends {
            printer.text(&views::rollout::outcome(end))?;
        }
    }
    Ok(watch::exit_of(&ends))
}

/// Also `keyfleet describe rollout`.
pub(super) async fn show(
    client: &Client,
    printer: &Printer,
    id: Option<&str>,
) -> Result<(), Error> {
    let id = resolve(client, id).await?;
    let response = client
        .call(v1::GetRolloutRequest { id }, async |api, request| {
            api.get_rollout(request).await
        })
        .await?;
    printer.show(&response, |view| views::rollout::page(&response, view))
}

async fn explain(client: &Client, printer: &Printer, args: ExplainArgs) -> Result<(), Error> {
    let request = v1::ExplainRolloutRequest {
        id: resolve(client, args.id.as_deref()).await?,
        deployment: args.deployment,
    };
    let response = client
        .call(request, async |api, request| {
            api.explain_rollout(request).await
        })
        .await?;
    printer.show(&response, |view| views::rollout::explained(&response, view))
}

async fn change(
    client: &Client,
    printer: &Printer,
    args: VerbArgs,
    verb: v1::RolloutVerb,
) -> Result<(), Error> {
    let rollout = say(client, args, verb, String::new()).await?;
    printer.show(&rollout, |_| views::rollout::sentence(&rollout))
}

async fn approve(client: &Client, printer: &Printer, args: ApproveArgs) -> Result<(), Error> {
    let rollout = say(client, args.verb, v1::RolloutVerb::Approve, args.wave).await?;
    printer.show(&rollout, |_| views::rollout::approved(&rollout))
}

/// Gives the rollout after the verb.
async fn say(
    client: &Client,
    args: VerbArgs,
    verb: v1::RolloutVerb,
    wave: String,
) -> Result<v1::Rollout, Error> {
    let request = v1::ChangeRolloutRequest {
        id: resolve(client, Some(&args.id)).await?,
        verb: verb.into(),
        reason: args.reason,
        wave,
    };
    let response = client
        .call(request, async |api, request| {
            api.change_rollout(request).await
        })
        .await?;
    response.rollout.ok_or(Error::Incomplete("rollout"))
}

/// The full id for what the operator wrote.
async fn resolve(client: &Client, written: Option<&str>) -> Result<String, Error> {
    if let Some(id) = written.filter(|id| id.len() == ID_CHARS) {
        return Ok(id.to_owned());
    }
    let request = v1::ListRolloutsRequest {
        active_only: written.is_none(),
    };
    let list = client
        .call(request, async |api, request| {
            api.list_rollouts(request).await
        })
        .await?;
    let ids = list.rollouts.into_iter().map(|rollout| rollout.id);
    match written {
        Some(prefix) => only_with_prefix(prefix, ids),
        None => only_active(ids),
    }
}

fn only_with_prefix(prefix: &str, ids: impl Iterator<Item = String>) -> Result<String, Error> {
    let mut ids: Vec<String> = ids
        .filter(|id| !prefix.is_empty() && id.starts_with(prefix))
        .collect();
    match (ids.len(), ids.pop()) {
        (1, Some(id)) => Ok(id),
        (_, None) => Err(Error::NoSuchRollout(prefix.to_owned())),
        (_, Some(last)) => {
            ids.push(last);
            Err(Error::ManyRollouts {
                prefix: prefix.to_owned(),
                ids,
            })
        }
    }
}

fn only_active(ids: impl Iterator<Item = String>) -> Result<String, Error> {
    let mut ids: Vec<String> = ids.collect();
    match (ids.len(), ids.pop()) {
        (1, Some(id)) => Ok(id),
        (n_active, _) => Err(Error::WhichRollout { n_active }),
    }
}
