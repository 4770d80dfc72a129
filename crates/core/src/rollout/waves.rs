//! Which wave each deployment belongs to, frozen when a run starts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::fleet::Labels;
use crate::id::DeploymentId;

use super::strategy::{Amount, Strategy, Wave};

/// What a wave of a run amounts to in numbers; `keyfleet plan` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveShape {
    /// The wave's name.
    pub name: String,
    /// How many deployments belong to it.
    pub deployments: u32,
    /// How many of them may be in flight at a time.
    pub concurrency: u32,
    /// True where the failure that breaks a budget is the last one started.
    pub strict: bool,
    /// How many more deployments may fail, at worst, after the one that breaks a budget:
    /// 0 in a strict wave, else all others in flight. A budget's `min_sample` comes on top.
    pub overshoot_max: u32,
    /// True where every deployment has to be proven before the next wave begins.
    pub mandatory: bool,
    /// How long every deployment must have been proven before the next wave begins.
    pub soak: Duration,
    /// How many principals have to agree before it begins.
    pub approvals: u32,
    /// How its concurrency was calculated, in words, such as `10% of 9, rounded down, at least 1`; empty where it is a number.
    pub rule: String,
}

/// A deployment that no wave has taken yet: its id, its labels, and its place in the fleet as it was given.
type Free<'a> = (DeploymentId, &'a Labels, usize);

/// Gives every deployment its wave: an index into `strategy.waves` for each, in the order of `fleet`.
///
/// The first wave whose selector matches takes a deployment. A sample takes only its share of the matching, spread over
/// the values of a label where it says so, and leaves the rest to later waves; where fewer match than it asks for it takes
/// none. What no wave takes goes to the last. The order of `fleet` does not change where a deployment goes.
pub fn assign_waves(strategy: &Strategy, fleet: &[(DeploymentId, &Labels)]) -> Vec<usize> {
    let last = strategy.waves.len().saturating_sub(1);
    let mut waves = vec![last; fleet.len()];
    let mut free: Vec<Free<'_>> = fleet
        .iter()
        .zip(0..)
        .map(|((id, labels), index)| (*id, *labels, index))
        .collect();
    free.sort_by_key(|(id, _, _)| *id);
    for (number, wave) in strategy.waves.iter().enumerate() {
        let taken = taken(wave, &free);
        free.retain(|(id, _, index)| {
            let takes = taken.contains(id);
            if takes {
                waves[*index] = number;
            }
            !takes
        });
    }
    waves
}

/// Whom of those that are left, in order of their ids, the wave takes.
fn taken(wave: &Wave, free: &[Free<'_>]) -> BTreeSet<DeploymentId> {
    let matching = free
        .iter()
        .filter(|(_, labels, _)| wave.selector.matches(labels));
    let Some(sample) = &wave.sample else {
        return matching.map(|(id, _, _)| *id).collect();
    };
    let mut groups: BTreeMap<Option<&String>, Vec<DeploymentId>> = BTreeMap::new();
    let mut total = 0;
    for (id, labels, _) in matching {
        let value = sample.spread.as_ref().and_then(|label| labels.get(label));
        groups.entry(value).or_default().push(*id);
        total += 1;
    }
    let total = count(total);
    if total < sample.min_matching {
        return BTreeSet::new();
    }
    let size = usize::try_from(sample.amount.of_at_least_one(total)).unwrap_or(usize::MAX);
    in_turn(groups.into_values().collect()).take(size).collect()
}

/// One of each group, then a second one of each, and so on.
fn in_turn(groups: Vec<Vec<DeploymentId>>) -> impl Iterator<Item = DeploymentId> {
    let mut ranked: Vec<(usize, usize, DeploymentId)> = groups
        .into_iter()
        .enumerate()
        .flat_map(|(group, ids)| {
            let ranks = ids.into_iter().enumerate();
            ranks.map(move |(rank, id)| (rank, group, id))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, id)| id)
}

/// Counts what each wave of the strategy amounts to, given the wave of every target.
pub fn wave_shapes(strategy: &Strategy, waves_of_targets: &[usize]) -> Vec<WaveShape> {
    let shape = |(index, wave): (usize, &Wave)| {
        let deployments = count(waves_of_targets.iter().filter(|&&of| of == index).count());
        let concurrency = wave.concurrency.of_at_least_one(deployments);
        let in_flight_max = concurrency.min(deployments);
        let overshoot_max = if wave.strict {
            0
        } else {
            in_flight_max.saturating_sub(1)
        };
        WaveShape {
            name: wave.name.clone(),
            deployments,
            concurrency,
            strict: wave.strict,
            overshoot_max,
            mandatory: wave.mandatory,
            soak: wave.soak,
            approvals: wave.approval.map_or(0, |approval| approval.required),
            rule: match wave.concurrency {
                Amount::Count(_) => String::new(),
                percent @ Amount::Percent(_) => {
                    format!("{percent} of {deployments}, rounded down, at least 1")
                }
            },
        }
    };
    strategy.waves.iter().enumerate().map(shape).collect()
}

/// A length as the number that strategies count in.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Selector;
    use crate::rollout::strategy::{Sample, default_strategy};

    fn id(number: u128) -> DeploymentId {
        DeploymentId::new(uuid::Uuid::from_u128(number))
    }

    fn tier(value: &str) -> Labels {
        Labels::from([("tier".to_owned(), value.to_owned())])
    }

    /// Waves from (label of the selector or "", sample); the last has no sample.
    fn strategy(waves: &[(&str, Option<Amount>)]) -> Strategy {
        let mut strategy = default_strategy("test".parse().unwrap());
        let blank = strategy.waves[2].clone();
        let wave = |(label, sample): &(&str, Option<Amount>)| Wave {
            selector: match *label {
                "" => Selector::default(),
                label => Selector::from_labels(&tier(label)),
            },
            sample: sample.map(|amount| Sample {
                amount,
                spread: None,
                min_matching: 0,
            }),
            ..blank.clone()
        };
        strategy.waves = waves.iter().map(wave).collect();
        strategy
    }

    #[test]
    fn the_first_wave_that_takes_a_deployment_has_it() {
        use Amount::{Count, Percent};
        let check = |waves: &[(&str, Option<Amount>)], fleet: &[&str], expected: &[usize]| {
            let labels: Vec<Labels> = fleet.iter().map(|label| tier(label)).collect();
            let fleet: Vec<_> = labels.iter().zip(1..).map(|(of, n)| (id(n), of)).collect();
            assert_eq!(
                assign_waves(&strategy(waves), &fleet),
                expected,
                "{waves:?}"
            );
        };
        check(&[], &["a"], &[0]);
        check(&[("", None)], &["a", "b"], &[0, 0]);
        check(&[("b", None), ("", None)], &["a", "b", "a"], &[1, 0, 1]);
        // A sample takes the lowest ids and leaves the rest to the next wave that matches.
        check(
            &[("b", Some(Count(1))), ("", None)],
            &["a", "b", "b"],
            &[1, 0, 1],
        );
        check(&[("", Some(Count(9))), ("", None)], &["a", "b"], &[0, 0]);
        // Half of five is two; a tenth of two is none, so one.
        check(
            &[("", Some(Percent(50))), ("", None)],
            &["a"; 5],
            &[0, 0, 1, 1, 1],
        );
        check(
            &[("b", Some(Percent(10))), ("", None)],
            &["a", "b", "b"],
            &[1, 0, 1],
        );
        // A percentage is of what no earlier wave took.
        let halves = [("", Some(Percent(50))), ("", Some(Percent(50))), ("", None)];
        check(&halves, &["a"; 8], &[0, 0, 0, 0, 1, 1, 2, 2]);
        // What no wave takes goes to the last, whatever that selects.
        check(&[("a", None), ("b", None)], &["a", "b", "c"], &[0, 1, 1]);
        check(&[("c", Some(Count(1))), ("", None)], &["a"], &[1]);
    }

    #[test]
    fn a_sample_is_spread_over_a_label_and_needs_enough() {
        let check = |amount, min_matching, fleet: &[&str], expected: &[usize]| {
            let mut strategy = strategy(&[("", Some(amount)), ("", None)]);
            if let Some(sample) = &mut strategy.waves[0].sample {
                sample.spread = Some("tier".to_owned());
                sample.min_matching = min_matching;
            }
            let labels: Vec<Labels> = fleet
                .iter()
                .map(|value| match *value {
                    "" => Labels::new(),
                    value => tier(value),
                })
                .collect();
            let fleet: Vec<_> = labels.iter().zip(1..).map(|(of, n)| (id(n), of)).collect();
            assert_eq!(
                assign_waves(&strategy, &fleet),
                expected,
                "{amount} of {fleet:?}"
            );
        };
        let fleet = ["a", "a", "a", "b", "b", "c"];
        check(Amount::Count(3), 0, &fleet, &[0, 1, 1, 0, 1, 0]);
        check(Amount::Count(2), 0, &fleet, &[0, 1, 1, 0, 1, 1]);
        check(Amount::Count(5), 0, &fleet, &[0, 0, 1, 0, 0, 0]);
        check(Amount::Percent(50), 6, &fleet, &[0, 1, 1, 0, 1, 0]);
        check(Amount::Percent(50), 7, &fleet, &[1; 6]);
        check(Amount::Count(9), 0, &fleet, &[0; 6]);
        // Those without the label have one value together.
        check(Amount::Count(2), 0, &["b", "", "", "b"], &[0, 0, 1, 1]);
        check(Amount::Count(1), 1, &[], &[]);
    }

    #[test]
    fn the_order_of_the_fleet_moves_nobody() {
        let strategy = strategy(&[("", Some(Amount::Percent(30))), ("", None)]);
        let labels = tier("a");
        let forth: Vec<_> = (1..=10).map(|n| (id(n), &labels)).collect();
        let back: Vec<_> = forth.iter().rev().copied().collect();
        let mut waves = assign_waves(&strategy, &back);
        waves.reverse();
        assert_eq!(assign_waves(&strategy, &forth), waves);
    }

    #[test]
    fn shapes_state_concurrency_and_the_worst_overshoot() {
        let strategy = default_strategy("test".parse().unwrap());
        let targets: Vec<usize> = [vec![0], vec![1; 9], vec![2; 90]].concat();
        let shapes = wave_shapes(&strategy, &targets);
        let numbers: Vec<_> = shapes
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.deployments,
                    s.concurrency,
                    s.strict,
                    s.overshoot_max,
                )
            })
            .collect();
        let expected = [
            ("canary", 1, 1, true, 0),
            ("early", 9, 2, false, 1),
            ("fleet", 90, 9, false, 8),
        ];
        assert_eq!(numbers, expected);
        let rules: Vec<_> = shapes.iter().map(|shape| shape.rule.as_str()).collect();
        let early = "25% of 9, rounded down, at least 1";
        let fleet = "10% of 90, rounded down, at least 1";
        assert_eq!(rules, ["", early, fleet]);
        assert_eq!(shapes[0].soak, Duration::from_secs(600));
        assert_eq!(wave_shapes(&strategy, &[])[2].overshoot_max, 0);
    }
}
