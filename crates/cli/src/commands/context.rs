//! `keyfleet context`: which control service to speak to, and how.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keyfleet_proto::tunnel::Proxy;
use secrecy::{ExposeSecret as _, SecretString};

use super::Session;
use crate::contexts::{
    self, Context, Contexts, check_endpoint, check_name, check_open_proxy, check_proxy,
    check_token, read_ca,
};
use crate::env::Env;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::{Cell, Table, Tone};

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a context
    #[command(after_long_help = "\
Examples:
  keyfleet context add prod --endpoint https://control:9444 --ca ca.pem --token-file token
  keyfleet context add prod --replace … --proxy http://proxy:3128")]
    Add(AddArgs),
    /// Change what is given of a context, and keep the rest
    #[command(after_long_help = "\
Examples:
  keyfleet context set prod --ca ca.pem          # the CA was replaced while you were away
  keyfleet context set prod --token-stdin < token
  keyfleet context set prod --no-proxy")]
    Set(SetArgs),
    /// List the contexts
    #[command(visible_alias = "ls")]
    #[command(after_long_help = "\
Example:
  keyfleet context list")]
    List,
    /// Make a context the current one
    #[command(after_long_help = "\
Example:
  keyfleet context use prod")]
    Use {
        /// Name of the context
        name: String,
    },
    /// Show a context, without its token
    #[command(after_long_help = "\
Example:
  keyfleet context show prod")]
    Show {
        /// Name of the context; the current one where left out
        name: Option<String>,
    },
    /// Remove a context
    #[command(visible_alias = "rm")]
    #[command(after_long_help = "\
Example:
  keyfleet context remove lab")]
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
    #[command(flatten)]
    proxy: ProxyArgs,
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

/// The HTTP proxy before the control service. Where none is given, HTTPS_PROXY and NO_PROXY count.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct ProxyArgs {
    /// HTTP proxy to go through (CONNECT), whatever the environment says
    #[arg(long, value_name = "http://HOST:PORT")]
    proxy: Option<String>,
    /// File with the proxy as http://USER:PASSWORD@HOST:PORT, readable by you alone; it is copied
    #[arg(long, value_name = "FILE")]
    proxy_file: Option<PathBuf>,
}

impl ProxyArgs {
    fn read(&self) -> Result<Option<SecretString>, Error> {
        let proxy = match (&self.proxy, &self.proxy_file) {
            (Some(text), _) => Some(check_open_proxy(text)?),
            (None, Some(file)) => Some(check_proxy(&files::read_private(file)?)?),
            (None, None) => None,
        };
        Ok(proxy)
    }
}

/// What to change of a context.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct SetArgs {
    /// Name of the context
    name: String,
    /// The operators' port of the control service
    #[arg(long, value_name = "https://HOST:PORT", group = "change")]
    endpoint: Option<String>,
    /// CA certificate of the control service in PEM; it is copied
    #[arg(long, value_name = "FILE", group = "change")]
    ca: Option<PathBuf>,
    /// File with the operator token, readable by you alone; it is copied
    #[arg(
        long,
        value_name = "FILE",
        group = "change",
        conflicts_with = "token_stdin"
    )]
    token_file: Option<PathBuf>,
    /// Read the operator token from standard input
    #[arg(long, group = "change")]
    token_stdin: bool,
    /// HTTP proxy to go through (CONNECT), whatever the environment says
    #[arg(long, value_name = "http://HOST:PORT", group = "change")]
    proxy: Option<String>,
    /// File with the proxy as http://USER:PASSWORD@HOST:PORT, readable by you alone; it is copied
    #[arg(long, value_name = "FILE", group = "change", conflicts_with = "proxy")]
    proxy_file: Option<PathBuf>,
    /// No proxy of its own: HTTPS_PROXY and NO_PROXY count
    #[arg(long, group = "change", conflicts_with_all = ["proxy", "proxy_file"])]
    no_proxy: bool,
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
        Command::Set(args) => {
            set(session, &mut contexts, &args)?;
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
        proxy: args.proxy.read()?,
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

fn set(session: &Session<'_>, contexts: &mut Contexts, args: &SetArgs) -> Result<(), Error> {
    let (_, context) = contexts.choose(Some(&args.name))?;
    let mut context = context.clone();
    if let Some(endpoint) = &args.endpoint {
        context.endpoint = check_endpoint(endpoint)?;
    }
    if let Some(ca) = &args.ca {
        context.ca = read_ca(ca)?;
    }
    if let Some(file) = &args.token_file {
        context.token = check_token(&files::read_private(file)?)?;
    }
    if args.token_stdin {
        context.token = check_token(&files::read_stdin()?)?;
    }
    let proxy = ProxyArgs {
        proxy: args.proxy.clone(),
        proxy_file: args.proxy_file.clone(),
    };
    context.proxy = match proxy.read()? {
        None if !args.no_proxy => context.proxy,
        new => new,
    };
    contexts.contexts.insert(args.name.clone(), context);
    session
        .printer
        .note(format_args!("context {} changed", args.name));
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
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
}

/// The proxy of a context, without its password.
fn proxy(context: &Context) -> Option<String> {
    let text = context.proxy.as_ref()?.expose_secret();
    Some(Proxy::parse(text).map_or_else(|_| "not an address".to_owned(), |proxy| proxy.to_string()))
}

fn shown(contexts: &Contexts) -> Vec<Shown<'_>> {
    contexts
        .contexts
        .iter()
        .map(|(name, context)| Shown {
            name,
            current: contexts.current.as_deref() == Some(name.as_str()),
            endpoint: &context.endpoint,
            proxy: proxy(context),
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
    let mut table = Table::new(&["CURRENT", "NAME", "ENDPOINT", "PROXY"]);
    for context in &shown {
        let mark = if context.current {
            Cell::toned("*", Tone::Good)
        } else {
            Cell::blank()
        };
        table.row(vec![
            mark,
            context.name.into(),
            context.endpoint.into(),
            context.proxy.as_deref().unwrap_or_default().into(),
        ]);
    }
    session
        .printer
        .text(&table.without_empty_columns().to_string())
}

fn show(session: &Session<'_>, contexts: &Contexts, name: Option<&str>) -> Result<(), Error> {
    let (name, context) = contexts.choose(name)?;
    if session.printer.is_machine() {
        let current = contexts.current.as_deref() == Some(name);
        return session.printer.machine(&Shown {
            name,
            current,
            endpoint: &context.endpoint,
            proxy: proxy(context),
        });
    }
    let mut page = crate::views::Page::default();
    page.fact("Context", name);
    page.fact("Endpoint", &context.endpoint);
    page.fact("Proxy", proxy(context).unwrap_or_default());
    page.fact("Token", "(hidden)");
    page.line(format_args!("CA:\n{}", context.ca.trim_end()));
    session.printer.text(&page.finish())
}
