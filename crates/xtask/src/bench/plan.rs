//! The bars of the decision: one `plan` over 100,000 bindings, beside sorting and merging their ids.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Bar;
use crate::binaries;

/// How much longer than sorting and merging a decision may take.
const TIMES_FLOOR: f64 = 10.0;

/// How much more a binding may cost among ten times as many: growing linearly, with room for smaller caches.
const GROWTH_MAX: f64 = 1.5;

/// Builds with optimisation, measures, and says both bars.
pub(super) fn bars() -> Result<Vec<Bar>> {
    let output = Command::new("cargo")
        .args(["bench", "--quiet", "--package", "xtask", "--bench", "plan"])
        .current_dir(binaries::workspace())
        .output()
        .context("cargo bench does not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo bench failed: {text}");
    read(&String::from_utf8_lossy(&output.stdout))
}

fn read(line: &str) -> Result<Vec<Bar>> {
    let figures: serde_json::Value =
        serde_json::from_str(line.trim()).context("the bench of plan printed something else")?;
    let secs = |name: &str| {
        let figure = figures.get(name).and_then(serde_json::Value::as_f64);
        figure.with_context(|| format!("the bench of plan says no {name}"))
    };
    let (floor, whole, tenth) = (secs("floor_secs")?, secs("plan_secs")?, secs("tenth_secs")?);
    Ok(vec![
        Bar {
            name: "plan: 100,000 bindings",
            unit: "ms",
            ours: whole * 1e3,
            floor: Some(floor * 1e3),
            bar: Some(floor * 1e3 * TIMES_FLOOR),
        },
        Bar {
            name: "plan: each of them, to 10,000",
            unit: "times",
            ours: whole / tenth / 10.0,
            floor: Some(1.0),
            bar: Some(GROWTH_MAX),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_bars() {
        let check = |whole: f64, tenth: f64, passed: [bool; 2]| {
            let line =
                format!("{{\"floor_secs\":0.01,\"plan_secs\":{whole},\"tenth_secs\":{tenth}}}\n");
            let passes: Vec<bool> = read(&line).unwrap().iter().map(Bar::pass).collect();
            assert_eq!(passes, passed);
        };
        check(0.02, 0.002, [true, true]);
        check(0.2, 0.02, [false, true]);
        check(0.02, 0.001, [true, false]);
        assert!(read("warning: unused").is_err());
        assert!(read("{}").is_err());
    }
}
