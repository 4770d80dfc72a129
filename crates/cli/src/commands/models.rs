//! `keyfleet models`: what is known of models, without any control service.

use std::collections::BTreeMap;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use keyfleet_core::models::{MODELS, Model, RATINGS, Rating, SHUTDOWNS, Source, Task};
use serde::Serialize;

use super::Session;
use crate::error::Error;
use crate::exit::Exit;
use crate::views;

/// Arguments of `models`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  keyfleet models
  keyfleet models --task attack-discovery")]
pub(crate) struct ModelsArgs {
    /// Only this task, the fittest model first (`-o wide` names the ids of each)
    #[arg(long, value_parser = task_parser())]
    task: Option<Task>,
}

fn task_parser() -> impl clap::builder::TypedValueParser<Value = Task> {
    PossibleValuesParser::new(Task::ALL.map(Task::as_str))
        .try_map(|text| Task::parse(&text).ok_or("unknown task"))
}

/// The tables for machines.
#[derive(Serialize)]
struct Shown {
    ratings_from: From,
    shutdowns_from: From,
    models: Vec<ShownModel>,
}

#[derive(Serialize)]
struct From {
    source: &'static str,
    read: &'static str,
}

#[derive(Serialize)]
struct ShownModel {
    name: &'static str,
    ids: &'static [&'static str],
    ratings: BTreeMap<&'static str, f64>,
    overall: Option<f64>,
    ends: Option<String>,
}

pub(super) fn run(session: &Session<'_>, args: &ModelsArgs) -> Result<Exit, Error> {
    let models = chosen(args.task);
    if session.printer.is_machine() {
        let shown = Shown {
            ratings_from: from(RATINGS),
            shutdowns_from: from(SHUTDOWNS),
            models: models.iter().map(|model| shown(model, args.task)).collect(),
        };
        session.printer.machine(&shown)?;
    } else {
        session.printer.text(&views::models::page(
            &models,
            args.task,
            &session.printer.view(),
        ))?;
    }
    Ok(Exit::Ok)
}

/// For a task only the rated ones, the fittest first; else everything, in the order of the data.
fn chosen(task: Option<Task>) -> Vec<&'static Model> {
    let mut models: Vec<&Model> = MODELS.iter().collect();
    if let Some(task) = task {
        let rating = |model: &Model| model.ratings.map(|ratings| ratings.of(task));
        models.retain(|model| rating(model).is_some());
        models.sort_by_key(|model| std::cmp::Reverse(rating(model)));
    }
    models
}

fn from(source: Source) -> From {
    From {
        source: source.name,
        read: source.read,
    }
}

fn shown(model: &Model, task: Option<Task>) -> ShownModel {
    let number = |rating: Rating| f64::from(rating.0) / 100.0;
    let tasks = Task::ALL
        .into_iter()
        .filter(|one| task.is_none_or(|task| task == *one));
    ShownModel {
        name: model.name,
        ids: model.ids,
        ratings: model
            .ratings
            .map(|ratings| {
                tasks
                    .map(|task| (task.as_str(), number(ratings.of(task))))
                    .collect()
            })
            .unwrap_or_default(),
        overall: model.ratings.map(|ratings| number(ratings.overall)),
        ends: model.ends.map(|day| day.to_string()),
    }
}
