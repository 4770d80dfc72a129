//! `keyfleet-agent`: hardens the process, reads arguments and settings, runs until told to stop.

mod args;

use std::process::ExitCode;

use anyhow::Context;
use args::{Action, Args};
use keyfleet_agent::config::Config;
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
    let Args { action, file } = match args::parse(std::env::args_os().skip(1))? {
        args::Parsed::Say(text) => return args::say(&text),
        args::Parsed::Do(args) => args,
    };
    let config = Config::load(&file)?;
    keyfleet_telemetry::init(config.log.format, &config.log.filter, keyfleet_seal::scrub)?;
    match action {
        Action::CheckConfig => keyfleet_agent::check(&config)
            .map_err(Into::into)
            .and_then(|()| args::say("the settings are usable")),
        Action::Run => run(config),
    }
}

fn run(config: Config) -> anyhow::Result<()> {
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
            let agent = Box::pin(keyfleet_agent::run(config, stop));
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
