//! `keyfleet-agent`: hardens the process, reads arguments and settings, runs until told to stop.

mod args;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use args::{Action, Args};
use keyfleet_agent::config::{Config, Log};
use keyfleet_agent::remote;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    keyfleet_telemetry::install_panic_hook();
    match harden().and_then(|()| act()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            args::complain(&keyfleet_telemetry::error_chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn harden() -> anyhow::Result<()> {
    keyfleet_seal::harden_process()?;
    // The Err of a second installation cannot happen here and would be harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

fn act() -> anyhow::Result<()> {
    let Args {
        action,
        file,
        deployments,
    } = match args::parse(std::env::args_os().skip(1))? {
        args::Parsed::Say(text) => return args::say(&text),
        args::Parsed::Do(args) => args,
    };
    let Some(directory) = deployments else {
        let config = Config::load(&file)?;
        init(&config.log)?;
        return match action {
            Action::CheckConfig => keyfleet_agent::check(&config)
                .map_err(Into::into)
                .and_then(|()| args::say("the settings are usable")),
            Action::Run => run(async |stop| Ok(Box::pin(keyfleet_agent::run(config, stop)).await?)),
        };
    };
    init(&Log::load(&file)?)?;
    match action {
        Action::CheckConfig => check_all(&file, &directory),
        Action::Run => run(async |stop| Ok(remote::run(&file, &directory, stop).await?)),
    }
}

fn init(log: &Log) -> anyhow::Result<()> {
    keyfleet_telemetry::init(log.format, &log.filter, keyfleet_seal::scrub)?;
    Ok(())
}

fn check_all(file: &Path, directory: &Path) -> anyhow::Result<()> {
    let checked = remote::check(file, directory)?;
    let n_bad = checked.values().flatten().count();
    for (name, problem) in &checked {
        let verdict = problem.as_deref().unwrap_or("the settings are usable");
        args::say(&keyfleet_seal::scrub(&format!("{name}: {verdict}")))?;
    }
    if n_bad > 0 {
        anyhow::bail!("{n_bad} of {} deployments cannot run", checked.len());
    }
    Ok(())
}

/// Runs an agent, or many, until a signal comes.
fn run(agent: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("cannot start the runtime")?
        .block_on(async {
            let stop = CancellationToken::new();
            let mut terminate =
                signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
            let mut interrupt =
                signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
            let stopper = stop.clone();
            let agent = Box::pin(agent(stop));
            let signals = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("stopping");
                stopper.cancel();
                // The agent ends by itself now, within a deadline; further signals change nothing.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = agent => ended?,
                () = signals => {}
            }
            // The agent has no page of metrics: more than 0 is a bug, and this is where it shows.
            tracing::info!(
                log_lines_scrubbed = keyfleet_telemetry::scrubbed(),
                "agent ended"
            );
            Ok(())
        })
}
