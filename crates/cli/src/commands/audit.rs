//! `keyfleet audit`: who did what, why, and that nobody changed what is written about it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyfleet_proto::v1;
use serde::Serialize;

use super::Session;
use crate::audit::{self, Anchor, Chain, Checked, Link};
use crate::client::{self, Client};
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::{Canonical, counted};
use crate::{duration, views, watch};

/// Longest line of an export: the texts of an entry are far shorter.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the newest entries
    #[command(after_long_help = "\
Examples:
  keyfleet audit tail -n 50
  keyfleet audit tail -f -o json | jq -r .action")]
    Tail(TailArgs),
    /// Write the log as JSON lines in the Elastic Common Schema, with everything that verify needs
    #[command(after_long_help = "\
Examples:
  keyfleet audit export audit.ndjson
  keyfleet audit export --from 1201 | curl --data-binary @- …

An entry: @timestamp, event.sequence (its number), event.action, event.outcome (success
or failure), event.reason, event.hash, user.name, message, and keyfleet.audit.token,
.target, .detail, .previous_hash.")]
    Export(ExportArgs),
    /// Recompute the chain of hashes, and print its head as NUMBER:HASH to be noted elsewhere
    #[command(after_long_help = "\
Examples:
  keyfleet audit verify
  keyfleet audit verify audit.ndjson --anchor 1200:9f86d0…

Numbers must have no gap, each previous hash must be the hash before it, each hash must
be of what its entry says. Who can write the database could replace the whole log; an
anchor that was noted elsewhere tells. Ends with code 1 at the first bad entry.")]
    Verify(VerifyArgs),
}

/// How much to show.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// How many of the newest entries
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    lines: u32,
    /// Go on with what comes
    #[arg(short = 'f', long)]
    follow: bool,
}

/// Where to write to.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// New file, readable by you alone; standard output where left out
    file: Option<PathBuf>,
    /// Number of the first entry
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), value_name = "NUMBER")]
    from: u64,
}

/// What to verify.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// File that `audit export` wrote, or - for standard input; the control service's log where left out
    file: Option<PathBuf>,
    /// An entry's hash that was noted earlier and must be there; may be given several times
    #[arg(long = "anchor", value_name = "NUMBER:HASH")]
    anchors: Vec<Anchor>,
}

pub(super) async fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Tail(args) if args.follow => follow(session, args.lines).await?,
        Command::Tail(args) => tail(session, args.lines).await?,
        Command::Export(args) => export(session, args).await?,
        Command::Verify(args) => verify(session, args).await?,
    }
    Ok(Exit::Ok)
}

/// Reads what is asked for and hands over each entry; ends when control has said everything.
async fn read(
    client: &Client,
    request: v1::ReadAuditRequest,
    mut each: impl FnMut(v1::AuditEntry) -> Result<(), Error>,
) -> Result<(), Error> {
    let goes_on = request.follow;
    let mut stream = client
        .open(request, async |api, request| api.read_audit(request).await)
        .await?;
    loop {
        let next = if goes_on {
            stream
                .message()
                .await
                .map_err(|status| client.refused(&status))
        } else {
            client.next(&mut stream).await
        };
        match next? {
            Some(entry) => each(entry)?,
            None => return Ok(()),
        }
    }
}

async fn tail(session: &Session<'_>, last: u32) -> Result<(), Error> {
    let client = session.client().await?;
    let request = v1::ReadAuditRequest {
        last,
        ..v1::ReadAuditRequest::default()
    };
    let printer = session.printer;
    let mut entries = Vec::new();
    read(&client, request, |entry| {
        if printer.is_machine() {
            return printer.machine_item(&Canonical::new(&entry)?);
        }
        entries.push(entry);
        Ok(())
    })
    .await?;
    match (printer.is_machine(), entries.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => {
            printer.note("the audit log is empty");
            Ok(())
        }
        (false, false) => printer.text(&views::audit::table(&entries, &printer.view())),
    }
}

/// Shows what comes until the operator interrupts; a stream that drops is opened again after its last entry.
async fn follow(session: &Session<'_>, last: u32) -> Result<(), Error> {
    let client = session.waiting_client().await?;
    let following = follow_on(session, &client, last);
    match session.wait_deadline() {
        Some(deadline) => tokio::time::timeout(deadline, following)
            .await
            .unwrap_or_else(|_| Err(Error::FollowedToEnd(duration::short(deadline.as_secs())))),
        None => following.await,
    }
}

async fn follow_on(session: &Session<'_>, client: &Client, last: u32) -> Result<(), Error> {
    let printer = session.printer;
    let mut request = v1::ReadAuditRequest {
        last,
        from: 0,
        follow: true,
    };
    let mut n_tries = 0;
    loop {
        let mut heard = None;
        let outcome = read(client, request, |entry| {
            heard = Some(entry.number);
            if printer.is_machine() {
                return printer.machine_item(&Canonical::new(&entry)?);
            }
            printer.text(&views::audit::line(&entry))
        })
        .await;
        let dropped = match outcome {
            Err(Error::Call(dropped)) => dropped,
            Err(err) => return Err(err),
            Ok(()) => client::Error::Unavailable("it ended the log".to_owned()),
        };
        if let Some(number) = heard {
            n_tries = 0;
            request = v1::ReadAuditRequest {
                from: number.saturating_add(1),
                last: 0,
                follow: true,
            };
        }
        n_tries += 1;
        if !dropped.is_passing() || n_tries > watch::TRIES_MAX {
            return Err(dropped.into());
        }
        printer.note(format_args!("lost the log, trying again: {dropped}"));
        tokio::time::sleep(watch::delay(n_tries)).await;
    }
}

/// Where an export goes.
enum Target<'a> {
    File(BufWriter<File>, &'a Path),
    Stdout(&'a crate::output::Printer),
}

impl Target<'_> {
    fn line(&mut self, line: &str) -> Result<(), Error> {
        match self {
            Self::File(file, path) => {
                writeln!(file, "{line}").map_err(|source| write_err(path, source))
            }
            Self::Stdout(printer) => printer.text(line),
        }
    }

    fn finish(self) -> Result<(), Error> {
        let Self::File(file, path) = self else {
            return Ok(());
        };
        let synced = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all());
        synced.map_err(|source| write_err(path, source))
    }
}

fn write_err(path: &Path, source: io::Error) -> Error {
    files::Error::Write {
        path: path.to_owned(),
        source,
    }
    .into()
}

/// A log that is broken is exported all the same: it is evidence. The error comes at the end.
async fn export(session: &Session<'_>, args: ExportArgs) -> Result<(), Error> {
    let client = session.client().await?;
    let mut target = match &args.file {
        Some(path) => Target::File(BufWriter::new(files::create_private(path)?), path),
        None => Target::Stdout(session.printer),
    };
    let mut broken = None;
    let mut chain: Option<Chain> = None;
    let request = v1::ReadAuditRequest {
        from: args.from,
        ..v1::ReadAuditRequest::default()
    };
    let outcome = read(&client, request, |entry| {
        let link = Link::try_from(entry)?;
        target.line(&audit::write(&link))?;
        let chain = chain.get_or_insert_with(|| Chain::new(before(args.from, &link)));
        if broken.is_none() {
            broken = chain.push(&link).err();
        }
        Ok(())
    })
    .await;
    if let (Err(_), Some(path)) = (&outcome, &args.file) {
        // Half an export would look like a log that was cut.
        let _ = std::fs::remove_file(path);
    }
    outcome?;
    target.finish()?;
    if let Some(broken) = broken {
        return Err(broken.into());
    }
    let checked = chain.map(Chain::finish).transpose()?;
    session.printer.note(match checked {
        Some(checked) => summary(&checked, 0),
        None => "no entries".to_owned(),
    });
    Ok(())
}

/// An export from the middle of the log takes what came before as it is.
fn before(from: u64, first: &Link) -> Vec<Anchor> {
    let vouched = Anchor {
        number: from.saturating_sub(1),
        hash: first.previous,
    };
    if from > 1 { vec![vouched] } else { Vec::new() }
}

async fn verify(session: &Session<'_>, args: VerifyArgs) -> Result<(), Error> {
    let n_anchors = args.anchors.len();
    let mut chain = Chain::new(args.anchors);
    match &args.file {
        Some(path) if path.as_os_str() == "-" => {
            verify_lines(&mut chain, Path::new("standard input"), io::stdin().lock())?;
        }
        Some(path) => {
            let file = File::open(path).map_err(|source| read_err(path, source))?;
            verify_lines(&mut chain, path, file)?;
        }
        None => {
            let client = session.client().await?;
            let request = v1::ReadAuditRequest {
                from: 1,
                ..v1::ReadAuditRequest::default()
            };
            read(&client, request, |entry| {
                Ok(chain.push(&Link::try_from(entry)?)?)
            })
            .await?;
        }
    }
    print(session, &chain.finish()?, n_anchors)
}

fn read_err(path: &Path, source: io::Error) -> Error {
    files::Error::Read {
        path: path.to_owned(),
        source,
    }
    .into()
}

fn verify_lines(chain: &mut Chain, path: &Path, input: impl Read) -> Result<(), Error> {
    let mut input = BufReader::new(input);
    for number in 1.. {
        let mut line = Vec::new();
        let n_bytes = (&mut input)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|source| read_err(path, source))?;
        if n_bytes == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).map_err(|_| audit::Error::Line {
            line: number,
            problem: "it is not text in UTF-8".to_owned(),
        })?;
        chain.push(&audit::read(number, text)?)?;
    }
    Ok(())
}

/// The head alone on stdout, so that a script can note it; the rest is a note.
fn print(session: &Session<'_>, checked: &Checked, n_anchors: usize) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Shown {
        entries: u64,
        head: Option<String>,
    }
    let head = checked.head.map(|(head, _)| head.to_string());
    session.printer.note(summary(checked, n_anchors));
    match (session.printer.is_machine(), head) {
        (true, head) => session.printer.machine(&Shown {
            entries: checked.n_entries(),
            head,
        }),
        (false, Some(head)) => session.printer.text(&head),
        (false, None) => Ok(()),
    }
}

fn summary(checked: &Checked, n_anchors: usize) -> String {
    let (Some((first, from)), Some((head, until))) = (checked.first, checked.head) else {
        return "the audit log is empty".to_owned();
    };
    let noted = match n_anchors {
        0 => String::new(),
        n => format!(", {} found", counted(n as u64, "anchor")),
    };
    let entries = match checked.n_entries() {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    };
    format!(
        "{entries} ({first} to {}), {} to {}: every number and hash is right{noted}",
        head.number,
        from.strftime("%Y-%m-%dT%H:%M:%SZ"),
        until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
}
