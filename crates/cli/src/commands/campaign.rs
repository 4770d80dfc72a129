//! `keyfleet campaign`: rotate a key, from a new version to the verified end of the old one.

use std::time::Duration;

use clap::{Args, Subcommand};
use keyfleet_core::campaign::State;
use keyfleet_proto::v1;

use super::Session;
use super::get::empty;
use crate::client::{self, Client};
use crate::duration;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Canonical, Printer};
use crate::views::{self, words};
use crate::watch::{CampaignLines, TRIES_MAX, delay};

/// What to do with campaigns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask for a new version of a key; the old one dies at the end
    #[command(after_long_help = "\
Examples:
  keyfleet campaign start openai-prod --reason 'yearly rotation'
  keyfleet campaign start openai-prod --leak --reason 'it was in a repository'")]
    Start(StartArgs),
    /// List the campaigns
    #[command(visible_alias = "ls")]
    #[command(after_long_help = "\
Examples:
  keyfleet campaign list --active
  keyfleet campaign list --key openai-prod")]
    List(ListArgs),
    /// Show a campaign with the path it took
    #[command(after_long_help = "\
Example:
  keyfleet campaign show 0192f3a4")]
    Show(IdArgs),
    /// Watch a campaign until it ends
    #[command(after_long_help = "\
Examples:
  keyfleet campaign watch
  keyfleet campaign watch 0192f3a4 --exit-on-halt --timeout 1h")]
    Watch(WatchArgs),
    /// Say why it does not go on
    #[command(after_long_help = "\
Example:
  keyfleet campaign explain 0192f3a4")]
    Explain(IdArgs),
    /// Begin nothing more for now; its rollouts wait with it
    #[command(after_long_help = "\
Example:
  keyfleet campaign pause 0192f3a4 --reason 'look at the canary first'")]
    Pause(VerbArgs),
    /// Go on where it stopped
    #[command(after_long_help = "\
Example:
  keyfleet campaign resume 0192f3a4 --reason 'quota was raised'")]
    Resume(VerbArgs),
    /// Give the new version up and bring the old one back; not once the old one is being revoked
    #[command(after_long_help = "\
Example:
  keyfleet campaign rollback 0192f3a4 --reason 'wrong project'")]
    Rollback(VerbArgs),
    /// Agree that the version which dies is revoked
    #[command(after_long_help = "\
Example:
  keyfleet campaign approve 0192f3a4 --reason 'all proven'")]
    Approve(VerbArgs),
    /// Say that it was revoked by hand at the provider
    #[command(after_long_help = "\
Example:
  keyfleet campaign confirm 0192f3a4 --reason 'deleted in the console'")]
    Confirm(VerbArgs),
}

/// Which key, and how.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Name of the key
    key: String,
    /// It leaked: the current version dies before there is a new one
    #[arg(long)]
    leak: bool,
    /// Agree with what stops working by that
    #[arg(long, requires = "leak")]
    yes: bool,
    /// Why, for the record
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    reason: String,
}

/// Which campaigns.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those that have not ended
    #[arg(long)]
    active: bool,
    /// Only those of this key
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    key: String,
}

/// Which campaign.
#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// Id of the campaign, or its beginning; the active one where left out
    #[arg(default_value = "", hide_default_value = true)]
    id: String,
}

/// Which campaign to watch, and how long.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Also end, with code 5, when the campaign waits for a person
    #[arg(long)]
    exit_on_halt: bool,
}

/// Which campaign to change, and why.
#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// Id of the campaign, or its beginning
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
    let client = session.client().await?;
    let printer = session.printer;
    match command {
        Command::Start(args) => start(&client, printer, args).await?,
        Command::List(args) => list(&client, printer, args.active, args.key).await?,
        Command::Show(args) => show(&client, printer, args.id).await?,
        Command::Explain(args) => explain(&client, printer, args.id).await?,
        Command::Watch(_) => {}
        Command::Pause(args) => change(&client, printer, args, v1::CampaignVerb::Pause).await?,
        Command::Resume(args) => change(&client, printer, args, v1::CampaignVerb::Resume).await?,
        Command::Rollback(args) => {
            change(&client, printer, args, v1::CampaignVerb::Rollback).await?
        }
        Command::Approve(args) => change(&client, printer, args, v1::CampaignVerb::Approve).await?,
        Command::Confirm(args) => change(&client, printer, args, v1::CampaignVerb::Confirm).await?,
    }
    Ok(Exit::Ok)
}

async fn start(client: &Client, printer: &Printer, args: StartArgs) -> Result<(), Error> {
    let request = v1::StartCampaignRequest {
        key: args.key,
        reason: args.reason,
        revoke_first: args.leak,
        yes: args.yes,
    };
    let response = client
        .call(request, async |api, request| {
            api.start_campaign(request).await
        })
        .await?;
    let campaign = response.campaign.ok_or(Error::Incomplete("campaign"))?;
    printer.show(&campaign, |_| views::campaign::sentence(&campaign))?;
    printer.note(format_args!(
        "watch it: keyfleet campaign watch {}",
        views::rollout::short_id(&campaign.id)
    ));
    Ok(())
}

/// Also `keyfleet get campaigns`.
pub(super) async fn list(
    client: &Client,
    printer: &Printer,
    active_only: bool,
    key: String,
) -> Result<(), Error> {
    let request = v1::ListCampaignsRequest { active_only, key };
    let list = client
        .call(request, async |api, request| {
            api.list_campaigns(request).await
        })
        .await?;
    let empty = empty(
        list.campaigns.is_empty(),
        if active_only {
            "no active campaigns"
        } else {
            "no campaigns yet"
        },
    );
    printer.show_list(&list, empty, |view| {
        views::campaign::table(&list.campaigns, view)
    })
}

/// Also `keyfleet describe campaign`.
pub(super) async fn show(client: &Client, printer: &Printer, id: String) -> Result<(), Error> {
    let response = get(client, id).await?;
    printer.show(&response, |view| views::campaign::page(&response, view))
}

async fn explain(client: &Client, printer: &Printer, id: String) -> Result<(), Error> {
    let response = get(client, id).await?;
    let campaign = response.campaign.ok_or(Error::Incomplete("campaign"))?;
    printer.show(&campaign, |view| {
        views::campaign::explained(&campaign, view)
    })
}

async fn get(client: &Client, id: String) -> Result<v1::GetCampaignResponse, Error> {
    let request = v1::GetCampaignRequest { id };
    Ok(client
        .call(request, async |api, request| {
            api.get_campaign(request).await
        })
        .await?)
}

async fn change(
    client: &Client,
    printer: &Printer,
    args: VerbArgs,
    verb: v1::CampaignVerb,
) -> Result<(), Error> {
    let request = v1::ChangeCampaignRequest {
        id: args.id,
        verb: verb.into(),
        reason: args.reason,
    };
    let response = client
        .call(request, async |api, request| {
            api.change_campaign(request).await
        })
        .await?;
    let campaign = response.campaign.ok_or(Error::Incomplete("campaign"))?;
    printer.show(&campaign, |_| views::campaign::sentence(&campaign))
}

async fn watch(session: &Session<'_>, args: WatchArgs) -> Result<Exit, Error> {
    let client = session.waiting_client().await?;
    let id = get(&client, args.id.id).await?;
    let id = id.campaign.ok_or(Error::Incomplete("campaign"))?.id;
    let following = follow(&client, session.printer, &id, args.exit_on_halt);
    let limited = async {
        match session.wait_deadline() {
            Some(limit) => tokio::time::timeout(limit, following)
                .await
                .unwrap_or_else(|_| Err(too_long(limit))),
            None => following.await,
        }
    };
    tokio::select! {
        end = limited => end,
        Ok(()) = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    }
}

fn too_long(limit: Duration) -> Error {
    Error::WaitedTooLong(duration::short(limit.as_secs()))
}

/// Follows a campaign to its end; a stream that drops is opened again.
async fn follow(
    client: &Client,
    printer: &Printer,
    id: &str,
    until_held: bool,
) -> Result<Exit, Error> {
    let mut lines = CampaignLines::default();
    let mut n_tries = 0;
    loop {
        let mut n_heard = 0;
        let dropped =
            match read(client, printer, id, until_held, (&mut lines, &mut n_heard)).await? {
                Read::Ended(exit) => return Ok(exit),
                Read::Dropped(dropped) => dropped,
            };
        n_tries = if n_heard > 0 { 1 } else { n_tries + 1 };
        if !dropped.is_passing() || n_tries > TRIES_MAX {
            return Err(dropped.into());
        }
        printer.note(format_args!("lost the watch, trying again: {dropped}"));
        tokio::time::sleep(delay(n_tries)).await;
    }
}

/// How reading a stream ended.
enum Read {
    Ended(Exit),
    Dropped(client::Error),
}

async fn read(
    client: &Client,
    printer: &Printer,
    id: &str,
    until_held: bool,
    (lines, n_heard): (&mut CampaignLines, &mut u32),
) -> Result<Read, Error> {
    let request = v1::WatchCampaignRequest { id: id.to_owned() };
    let opened = client
        .open(request, async |api, request| {
            api.watch_campaign(request).await
        })
        .await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(err) => return Ok(Read::Dropped(err)),
    };
    loop {
        let campaign = match stream.message().await {
            Ok(Some(response)) => response.campaign.ok_or(Error::Incomplete("campaign"))?,
            Ok(None) => {
                let text = "it ended the watch before the campaign ended".to_owned();
                return Ok(Read::Dropped(client::Error::Unavailable(text)));
            }
            Err(status) => return Ok(Read::Dropped(client.refused(&status))),
        };
        *n_heard += 1;
        if printer.is_machine() {
            printer.machine_item(&Canonical::new(&campaign)?)?;
        } else {
            lines.update(printer, &campaign);
        }
        if let Some(exit) = exit_of(&campaign, until_held) {
            if !printer.is_machine() {
                printer.text(&views::campaign::sentence(&campaign))?;
            }
            return Ok(Read::Ended(exit));
        }
    }
}

/// With what a watch ends here; `None` = it goes on.
fn exit_of(campaign: &v1::Campaign, until_held: bool) -> Option<Exit> {
    let state = words::campaign_state(campaign.state)?;
    match state {
        State::Closed => Some(Exit::Ok),
        State::RolledBack => Some(Exit::RolledBack),
        State::Cancelled => Some(Exit::Ended),
        State::Halted => until_held.then_some(Exit::Held),
        State::RevokeReady | State::Revoking => {
            (until_held && views::campaign::waits_for_person(campaign)).then_some(Exit::Held)
        }
        State::Planned
        | State::Minting
        | State::Validating
        | State::Rolling
        | State::Converged
        | State::Draining
        | State::VerifyingDead
        | State::RollingBack => None,
    }
}
