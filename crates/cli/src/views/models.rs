//! Models: how fit they are, and which end.

use keyfleet_core::models::{Model, RATINGS, Rating, SHUTDOWNS, Task, UNFIT_MAX};

use super::Page;
use crate::output::{Cell, Table, Tone, View};

/// The page of `keyfleet models`.
pub(crate) fn page(models: &[&Model], task: Option<Task>, view: &View) -> String {
    let mut headers = match task {
        Some(_) => vec!["MODEL", "RATING", "RECOMMENDED", "ENDS"],
        None => vec!["MODEL", "AGENTS", "ATTACKS", "MIGRATION", "OVERALL", "ENDS"],
    };
    if view.wide {
        headers.push("IDS");
    }
    let mut table = Table::new(&headers);
    for model in models {
        let rating = |task| model.ratings.map(|ratings| ratings.of(task));
        let mut row = vec![Cell::from(model.name)];
        match task {
            Some(task) => row.extend([fit(rating(task)), recommended(rating(task))]),
            None => {
                row.extend(Task::ALL.map(|task| fit(rating(task))));
                row.push(fit(model.ratings.map(|ratings| ratings.overall)));
            }
        }
        row.push(
            model
                .ends
                .map(|day| day.to_string())
                .unwrap_or_default()
                .into(),
        );
        if view.wide {
            row.push(model.ids.join(", ").into());
        }
        table.row(row);
    }
    let mut page = Page::default();
    page.line(&table);
    page.line("");
    if task.is_none() {
        let [agents, attacks, migration] = Task::ALL;
        page.sentence(&format!(
            "Tasks: AGENTS is {agents}, ATTACKS {attacks}, MIGRATION {migration}."
        ));
    }
    page.sentence(&format!(
        "Ratings go from 1 to 10, and Elastic does not recommend {UNFIT_MAX} or less: {RATINGS}."
    ));
    page.sentence(&format!(
        "ENDS is the day on which OpenAI itself shuts a model down: {SHUTDOWNS}."
    ));
    page.finish()
}

fn fit(rating: Option<Rating>) -> Cell {
    match rating {
        Some(rating) if rating <= UNFIT_MAX => Cell::toned(format!("{rating} !"), Tone::Bad),
        Some(rating) => rating.to_string().into(),
        None => "".into(),
    }
}

fn recommended(rating: Option<Rating>) -> Cell {
    match rating.is_some_and(|rating| rating > UNFIT_MAX) {
        true => Cell::toned("yes", Tone::Good),
        false => Cell::toned("no", Tone::Bad),
    }
}
