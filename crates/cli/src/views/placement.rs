//! Placements and strategies.

use keyfleet_proto::v1;

use super::words;
use crate::output::{Cell, Table, View};

/// The table of placements.
pub(crate) fn table(placements: &[v1::Placement]) -> String {
    let mut table = Table::new(&[
        "NAME",
        "CONNECTORS…",
        "SELECTOR…",
        "SPACES…",
        "EXCEPT SPACES…",
        "ADOPTS…",
        "DEPLOYMENTS",
        "STRATEGY",
        "DRIFT",
        "TASK",
        "SET",
    ]);
    for placement in placements {
        table.row(vec![
            (&placement.name).into(),
            placement.connectors.join(", ").into(),
            if placement.selector.is_empty() {
                "every deployment".into()
            } else {
                (&placement.selector).into()
            },
            placement.spaces.join(", ").into(),
            placement.except_spaces.join(", ").into(),
            adopts(&placement.adopt).into(),
            placement.deployments.to_string().into(),
            (&placement.strategy).into(),
            words::drift_policy(placement.drift_policy).into(),
            (&placement.task).into(),
            (&placement.set).into(),
        ]);
    }
    table.without_empty_columns().to_string()
}

/// Which connectors that were there before become which.
fn adopts(all: &[v1::Adopt]) -> String {
    let each = |adopt: &v1::Adopt| match &adopt.by {
        Some(v1::adopt::By::Name(name)) => format!("{} by the name {name:?}", adopt.connector),
        Some(v1::adopt::By::Id(id)) => format!("{} by the id {id:?}", adopt.connector),
        None => adopt.connector.clone(),
    };
    all.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// The table of strategies: a line for each wave; wide, a line for each rule of all waves too.
pub(crate) fn strategies(strategies: &[v1::Strategy], view: &View) -> String {
    let mut table = Table::new(&["NAME", "SET", "WAVE", "HOW…"]);
    for strategy in strategies {
        if strategy.waves.is_empty() {
            let set = Cell::from(&strategy.set);
            table.row(vec![(&strategy.name).into(), set, "".into(), "".into()]);
        }
        for (index, wave) in strategy.waves.iter().enumerate() {
            let (name, set) = match (index, strategy.set.is_empty()) {
                (0, _) => (Cell::from(&strategy.name), Cell::from(&strategy.set)),
                (_, true) => (Cell::blank(), "".into()),
                (_, false) => (Cell::blank(), Cell::blank()),
            };
            table.row(vec![name, set, (index + 1).to_string().into(), wave.into()]);
        }
        for rule in strategy.rules.iter().filter(|_| view.wide) {
            let set = match strategy.set.is_empty() {
                true => "".into(),
                false => Cell::blank(),
            };
            table.row(vec![Cell::blank(), set, "all".into(), rule.into()]);
        }
    }
    table.without_empty_columns().to_string()
}
