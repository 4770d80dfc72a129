//! `keyfleet rollout simulate`: what manifests would do, tried on a model of the fleet before anything is touched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keyfleet_core::rollout::Phase;
use keyfleet_proto::v1;
use keyfleet_proto::v1::simulate_rollout_response::Part;

use super::Session;
use super::plan::manifest_err;
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::views::{self, words};
use crate::watch::Trial;
use crate::{duration, files};

/// A made-up fleet may be as large as the largest that one control service has.
const FLEET_MAX: u32 = 20_000;

/// Control gives a simulation two minutes; beyond this it is not coming back.
const DEADLINE: Duration = Duration::from_secs(150);

/// Arguments of `rollout simulate`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  keyfleet rollout simulate -f fleet/
  keyfleet rollout simulate -f fleet/ --faults offline=10%,auth=2%
  keyfleet rollout simulate -f fleet/ --fleet 1000 --label 'region=eu|us' --seed 7

The control service plays the manifests through on a copy of its state, with its own
code and model agents in virtual time. Nothing is stored, and no agent hears of it.
The same seed gives the same answer.")]
pub(crate) struct SimulateArgs {
    /// Manifest file, folder with everything below it (*.yaml, *.yml), or - for standard input
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// The files are the whole of this named set
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    set: String,
    /// The real fleet with who is connected now, or a made-up one of so many deployments
    #[arg(long, default_value = "real", value_parser = fleet, value_name = "real|N")]
    fleet: Fleet,
    /// A label of a made-up fleet, its values taken in turn; may be repeated
    #[arg(long = "label", value_parser = label, value_name = "KEY=V1|V2")]
    labels: Vec<(String, String)>,
    /// What goes wrong, such as offline=10%,auth=2%,slow=5s
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "LIST"
    )]
    faults: String,
    /// Chooses who is hit by the faults
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// Which deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fleet {
    /// Those there are.
    Real,
    /// So many, made up.
    MadeUp(u32),
}

fn fleet(text: &str) -> Result<Fleet, String> {
    if text == "real" {
        return Ok(Fleet::Real);
    }
    let count = text.parse().ok().filter(|n| (1..=FLEET_MAX).contains(n));
    let count = count.map(Fleet::MadeUp);
    count.ok_or_else(|| format!("write `real` or a number from 1 to {FLEET_MAX}"))
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, values)) if !key.is_empty() && values.split('|').all(|v| !v.is_empty()) => {
            Ok((key.to_owned(), values.to_owned()))
        }
        _ => Err("write a label with its values, such as region=eu|us"),
    }
}

pub(super) async fn run(session: &Session<'_>, args: SimulateArgs) -> Result<Exit, Error> {
    let request = request(args)?;
    let client = session.waiting_client().await?.with_more_time(DEADLINE);
    let deadline = session.wait_deadline().unwrap_or(DEADLINE);
    let simulated = tokio::time::timeout(deadline, simulate(session, &client, request));
    let result = simulated
        .await
        .map_err(|_| Error::SimulatedTooLong(duration::short(deadline.as_secs())))??;
    let printer = session.printer;
    printer.show(&result, |view| views::simulation::page(&result, view))?;
    Ok(exit_of(&result))
}

fn request(args: SimulateArgs) -> Result<v1::SimulateRolloutRequest, Error> {
    let n_labels = args.labels.len();
    let labels: BTreeMap<String, String> = args.labels.into_iter().collect();
    if labels.len() < n_labels {
        return Err(Error::LabelTwice);
    }
    let deployments = match args.fleet {
        Fleet::Real if n_labels > 0 => return Err(Error::LabelsOfRealFleet),
        Fleet::Real => 0,
        Fleet::MadeUp(count) => count,
    };
    Ok(v1::SimulateRolloutRequest {
        files: files::manifests(&args.files)?,
        deployments,
        faults: args.faults,
        seed: args.seed,
        labels,
        set: args.set,
    })
}

/// Follows the simulation to its result.
async fn simulate(
    session: &Session<'_>,
    client: &Client,
    request: v1::SimulateRolloutRequest,
) -> Result<v1::SimulationResult, Error> {
    let stream = client
        .open(request, async |api, request| {
            api.simulate_rollout(request).await
        })
        .await;
    let mut stream = stream.map_err(manifest_err)?;
    let trial = Trial::new(session.printer);
    while let Some(response) = client.next(&mut stream).await.map_err(manifest_err)? {
        match response.part {
            Some(Part::Progress(progress)) => trial.update(&progress),
            Some(Part::Result(result)) => return Ok(result),
            None => {}
        }
    }
    Err(Error::Incomplete("result"))
}

/// Code 11 where a rollout would not complete, so that a pipeline can stop before the change is real.
fn exit_of(result: &v1::SimulationResult) -> Exit {
    let completes =
        |rollout: &v1::SimulatedRollout| words::phase(rollout.phase) == Some(Phase::Completed);
    if result.rollouts.iter().all(completes) {
        Exit::Ok
    } else {
        Exit::WouldFail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_real_or_a_number() {
        assert_eq!(fleet("real"), Ok(Fleet::Real));
        assert_eq!(fleet("20000"), Ok(Fleet::MadeUp(20_000)));
        for bad in ["", "0", "20001", "-1", "Real", "1k"] {
            assert!(fleet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_has_values() {
        let eu_us = ("region".to_owned(), "eu|us".to_owned());
        assert_eq!(label("region=eu|us"), Ok(eu_us));
        for bad in ["", "region", "region=", "=eu", "region=eu||us", "region=|"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }
}
