//! Placements and strategies.

use keyfleet_proto::v1;

use super::words;
use crate::output::{Cell, Table};

/// The table of placements.
pub(crate) fn table(placements: &[v1::Placement]) -> String {
    let mut table = Table::new(&[
        "NAME",
        "CONNECTORS…",
        "SELECTOR…",
        "SPACES",
        "DEPLOYMENTS",
        "STRATEGY",
        "DRIFT",
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
            placement.deployments.to_string().into(),
            (&placement.strategy).into(),
            words::drift_policy(placement.drift_policy).into(),
        ]);
    }
    table.to_string()
}

/// The table of strategies: a line for each wave.
pub(crate) fn strategies(strategies: &[v1::Strategy]) -> String {
    let mut table = Table::new(&["NAME", "WAVE", "HOW…"]);
    for strategy in strategies {
        if strategy.waves.is_empty() {
            table.row(vec![(&strategy.name).into(), "".into(), "".into()]);
        }
        for (index, wave) in strategy.waves.iter().enumerate() {
            let name = if index == 0 {
                Cell::from(&strategy.name)
            } else {
                Cell::blank()
            };
            table.row(vec![name, (index + 1).to_string().into(), wave.into()]);
        }
    }
    table.to_string()
}
