//! `keyfleet context`: which control service to speak to, and how.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Session;
use crate::contexts::{self, Context, Contexts, check_endpoint, check_name, check_token, read_ca};
use crate::env::Env;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::{Cell, Table, Tone};

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a context
    Add(AddArgs),
    /// List the contexts
    #[command(visible_alias = "ls")]
    List,
    /// Make a context the current one
    Use {
        /// Name of the context
        name: String,
    },
    /// Show a context, without its token
    Show {
        /// Name of the context; the current one where left out
        name: Option<String>,
    },
    /// Remove a context
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the context
        name: String,
    },
}

/// A new context.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Name of the context
    name: String,
    /// The operators' port of the control service
    #[arg(long, value_name = "https://HOST:PORT")]
    endpoint: String,
    /// CA certificate of the control service in PEM; it is copied
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    #[command(flatten)]
    token: TokenArgs,
    /// Make it the current context; the first one always is
    #[arg(long = "use")]
    make_current: bool,
    /// Overwrite a context of the same name
    #[arg(long)]
    replace: bool,
}

/// Where the token comes from. It is never an argument: arguments are seen by everybody on the machine.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TokenArgs {
    /// File with the operator token, readable by you alone; it is copied
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read the operator token from standard input
    #[arg(long)]
    token_stdin: bool,
}

pub(super) fn run(session: &Session<'_>, command: Command) -> Result<Exit, Error> {
    let path = contexts::path(&Env::read())?;
    let mut contexts = Contexts::load(&path)?;
    match command {
        Command::List => list(session, &contexts)?,
        Command::Show { name } => show(session, &contexts, name.as_deref())?,
        Command::Add(args) => {
            add(session, &mut contexts, args)?;
            contexts.save(&path)?;
        }
        Command::Use { name } => {
            contexts.choose(Some(&name))?;
            session
                .printer
                .note(format_args!("context {name} is the current one"));
            contexts.current = Some(name);
            contexts.save(&path)?;
        }
        Command::Remove { name } => {
            remove(session, &mut contexts, &name)?;
            contexts.save(&path)?;
        }
    }
    Ok(Exit::Ok)
}

fn add(session: &Session<'_>, contexts: &mut Contexts, args: AddArgs) -> Result<(), Error> {
    check_name(&args.name)?;
    if contexts.contexts.contains_key(&args.name) && !args.replace {
        return Err(contexts::Error::Exists(args.name).into());
    }
    let token_text = match &args.token.token_file {
        Some(file) => files::read_private(file)?,
        None => files::read_stdin()?,
    };
    let context = Context {
        endpoint: check_endpoint(&args.endpoint)?,
        token: check_token(&token_text)?,
        ca: read_ca(&args.ca)?,
    };
    contexts.contexts.insert(args.name.clone(), context);
    session
        .printer
        .note(format_args!("context {} added", args.name));
    if args.make_current || contexts.current.is_none() {
        session
            .printer
            .note(format_args!("context {} is the current one", args.name));
        contexts.current = Some(args.name);
    }
    Ok(())
}

fn remove(session: &Session<'_>, contexts: &mut Contexts, name: &str) -> Result<(), Error> {
    if contexts.contexts.remove(name).is_none() {
        return Err(contexts.unknown(name).into());
    }
    session.printer.note(format_args!("context {name} removed"));
    if contexts.current.as_deref() == Some(name) {
        contexts.current = None;
        session
            .printer
            .note("no context is the current one now: `keyfleet context use NAME` chooses one");
    }
    Ok(())
}

/// A context for machines, without its token.
#[derive(serde::Serialize)]
struct Shown<'a> {
    name: &'a str,
    current: bool,
    endpoint: &'a str,
}

fn shown(contexts: &Contexts) -> Vec<Shown<'_>> {
    contexts
        .contexts
        .iter()
        .map(|(name, context)| Shown {
            name,
            current: contexts.current.as_deref() == Some(name.as_str()),
            endpoint: &context.endpoint,
        })
        .collect()
}

fn list(session: &Session<'_>, contexts: &Contexts) -> Result<(), Error> {
    let shown = shown(contexts);
    if session.printer.is_machine() {
        return session.printer.machine(&shown);
    }
    if shown.is_empty() {
        session
            .printer
            .note("no contexts yet: `keyfleet context add` adds one");
        return Ok(());
    }
    let mut table = Table::new(&["CURRENT", "NAME", "ENDPOINT"]);
    for context in &shown {
        let mark = if context.current {
            Cell::toned("*", Tone::Good)
        } else {
            Cell::blank()
        };
        table.row(vec![mark, context.name.into(), context.endpoint.into()]);
    }
    session.printer.text(&table.to_string())
}

fn show(session: &Session<'_>, contexts: &Contexts, name: Option<&str>) -> Result<(), Error> {
    let (name, context) = contexts.choose(name)?;
    if session.printer.is_machine() {
        let current = contexts.current.as_deref() == Some(name);
        return session.printer.machine(&Shown {
            name,
            current,
            endpoint: &context.endpoint,
        });
    }
    let mut page = crate::views::Page::default();
    page.fact("Context", name);
    page.fact("Endpoint", &context.endpoint);
    page.fact("Token", "(hidden)");
    page.line(format_args!("CA:\n{}", context.ca.trim_end()));
    session.printer.text(&page.finish())
}
