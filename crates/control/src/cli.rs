//! The commands: `init`, `check-config`, `serve`, `backup`, `restore`.

mod keep;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyfleet_control::config::{self, Config, DEFAULTS};
use keyfleet_control::{init, serve};
use keyfleet_telemetry::{Format, error_chain};
use tokio_util::sync::CancellationToken;

/// Keyfleet's control service: pulls keys from Vault, pushes connectors to agents, proves them.
#[derive(Debug, Parser)]
#[command(
    name = "keyfleet-control",
    version,
    after_help = "Exit codes: 0 ended as asked, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    /// Settings file (TOML); without it the built-in defaults and the environment count.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides the setting data_dir.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the CA, the database and the first admin token; safe to run again.
    Init,
    /// Check the settings and say where they would be used.
    CheckConfig {
        /// Print every setting with its default and what it means.
        #[arg(long)]
        defaults: bool,
    },
    /// Run the service until SIGTERM or Ctrl-C.
    Serve,
    /// Write the database into one file, while the service runs.
    Backup {
        /// The file to make.
        file: PathBuf,
        /// Replace a file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Bring a backup back; the service must be stopped. Shows what would be lost.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Replace the present database; it is kept beside the new one.
        #[arg(long)]
        yes: bool,
        /// Why, for the audit log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

type Failure = Box<dyn std::error::Error>;

/// SIGXFSZ on Linux: a file would grow beyond the limit of the process. It ends a process that does not ask for it.
#[cfg(target_os = "linux")]
const FILE_LIMIT: i32 = 25;

/// Runs the command; `hardened` says whether the process could be protected.
pub(crate) fn run(cli: Cli, hardened: Result<(), keyfleet_seal::Error>) -> ExitCode {
    match execute(cli, hardened) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Nobody is left to tell where stderr is closed.
            let _ = writeln!(
                std::io::stderr(),
                "keyfleet-control: {}",
                error_chain(&*err)
            );
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli, hardened: Result<(), keyfleet_seal::Error>) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if matches!(cli.command, Command::CheckConfig { defaults: true }) {
        return Ok(out.write_all(DEFAULTS.as_bytes())?);
    }
    let config = config::load(cli.config.as_deref(), cli.data_dir)?;
    match cli.command {
        Command::Init => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let made = runtime.block_on(init::init(&config.data_dir))?;
            writeln!(out, "CA certificate: {}", made.ca.display())?;
            match made.admin_token {
                Some(path) => writeln!(out, "admin token:    {} (mode 0600)", path.display())?,
                None => writeln!(out, "admin token:    there is one already")?,
            }
        }
        Command::CheckConfig { .. } => {
            writeln!(out, "the settings are valid")?;
            writeln!(out, "agents' port:    {}", config.agents.port.listen)?;
            writeln!(out, "operators' port: {}", config.operators.listen)?;
            writeln!(out, "vault:           {}", config.vault.address)?;
            writeln!(out, "data:            {}", config.data_dir.display())?;
        }
        Command::Serve => run_service(config, hardened)?,
        Command::Backup { file, force } => {
            keep::back_up(&mut out, &config.data_dir, &file, force)?;
        }
        Command::Restore { file, yes, reason } => {
            keep::restore(&mut out, &config.data_dir, &file, yes, reason)?;
        }
    }
    Ok(())
}

fn run_service(config: Config, hardened: Result<(), keyfleet_seal::Error>) -> Result<(), Failure> {
    let format = if config.log_json {
        Format::Json
    } else {
        Format::Text
    };
    keyfleet_telemetry::init(format, &config.log_filter, keyfleet_seal::scrub)?;
    if let Err(err) = hardened {
        tracing::warn!(error = %error_chain(&err), "the process could not be protected from other processes");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served: Result<(), Failure> = runtime.block_on(async {
        // Asked for and not looked at: a limit is then an error of that write, like a full disk.
        #[cfg(target_os = "linux")]
        let _file_limit = {
            use tokio::signal::unix::{SignalKind, signal};
            signal(SignalKind::from_raw(FILE_LIMIT))?
        };
        let shutdown = CancellationToken::new();
        let signal = end_on_signal(shutdown.clone())?;
        let service = serve::serve(config, shutdown.clone());
        tokio::pin!(service);
        tokio::select! {
            served = &mut service => Ok(served?),
            () = signal => Ok(service.await?),
        }
    });
    // What still blocks a thread is not waited for: everything that matters is on disk.
    runtime.shutdown_background();
    served
}

/// Ends the service on SIGTERM and Ctrl-C.
fn end_on_signal(shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end");
        shutdown.cancel();
    })
}
