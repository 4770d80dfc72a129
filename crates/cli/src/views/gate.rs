//! The gates of a rollout: what each said last.

use keyfleet_proto::v1;

use super::words;
use crate::output::{Cell, Table, View, when};

/// The gates that let nothing new begin, with what they said.
pub(crate) fn not_passing(rollout: &v1::Rollout) -> impl Iterator<Item = String> {
    let gates = rollout.gates.iter().filter(|_| rollout.ended_at.is_none());
    gates
        .filter(|gate| gate.verdict() != v1::GateVerdict::Pass)
        .map(|gate| {
            let (verdict, _) = words::verdict(gate.verdict);
            match gate.text.is_empty() {
                true => format!("gate {}: {verdict}", gate.name),
                false => format!("gate {}: {verdict}, {}", gate.name, gate.text),
            }
        })
}

/// A row for each gate.
pub(crate) fn rows(rollout: &v1::Rollout, view: &View) -> Table {
    let mut table = Table::new(&["GATE", "VERDICT", "ASKED", "ANSWER…"]);
    for gate in &rollout.gates {
        let (verdict, tone) = words::verdict(gate.verdict);
        table.row(vec![
            (&gate.name).into(),
            Cell::toned(verdict, tone),
            when(gate.at, view).into(),
            (&gate.text).into(),
        ]);
    }
    table.without_empty_columns()
}
