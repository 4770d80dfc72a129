//! The sentences: how every reason is said.

use std::fmt;
use std::time::Duration;

use super::{RollbackHold, WaitingOn, WaveHold, WaveRef};

/// A number of deployments, in words that fit the number.
#[derive(Debug, Clone, Copy)]
pub(in crate::rollout) struct Deployments(pub(in crate::rollout) usize);

/// A duration in its two largest units, begun seconds counted whole: `1m 40s`.
#[derive(Debug, Clone, Copy)]
pub(in crate::rollout) struct Human(pub(in crate::rollout) Duration);

impl fmt::Display for WaveRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wave \"{}\" ({} of {})", self.name, self.number, self.of)
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Andon(words) => {
                write!(f, "andon is on, nothing new leaves control: {words}")
            }
            Self::NotStarted => f.write_str("the rollout has not started"),
            Self::Change(sentence) => write!(f, "the run changes first: {sentence}"),
            Self::Paused(reason) => held(f, "paused", reason),
            Self::Halted(reason) => held(f, "halted", reason),
            Self::WaveNotStarted { wave, running } => {
                let (running, number) = (&running.name, running.number);
                write!(
                    f,
                    "its {wave} has not started: wave {number} \"{running}\" is running"
                )
            }
            Self::Concurrency {
                wave,
                limit,
                in_flight,
            } => {
                write!(
                    f,
                    "concurrency {limit} of wave \"{wave}\" is used up: {in_flight} in flight"
                )
            }
            Self::Strict {
                wave,
                in_flight,
                away,
                budget_left,
            } => {
                let away = match away {
                    0 => String::new(),
                    away => format!("{away} offered and away, "),
                };
                let numbers = format!("{in_flight} in flight, {away}budget left {budget_left}");
                write!(f, "strict wave \"{wave}\": {numbers}")
            }
            Self::Step { deadline, left } => {
                let (missing, name) = (deadline.missing(), deadline.as_str());
                write!(f, "{missing} ({name} deadline in {})", Human(*left))
            }
            Self::Soaking { left, soak } => {
                write!(f, "soaking: {} of {} left", Human(*left), Human(*soak))
            }
            Self::Offline {
                offline,
                deployments,
                limit_percent,
                holds,
            } => {
                let effect = if *holds { "holds" } else { "does not hold" };
                let share = format!("offline {offline} of {deployments}, limit {limit_percent}%");
                write!(f, "offline: not connected; {effect} the wave up ({share})")
            }
            Self::Failed {
                class,
                broken_before,
            } => {
                let before = if *broken_before {
                    ", as before the change"
                } else {
                    ""
                };
                write!(f, "failed with {class}{before}; retry or roll back")
            }
            Self::Wave { wave, hold } => write!(f, "{wave}: {hold}"),
            Self::Rollback(hold) => write!(f, "{hold}"),
            Self::CutOff(sentence) => f.write_str(sentence),
        }
    }
}

impl fmt::Display for WaveHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running {
                proven,
                deployments,
                in_flight,
                left,
            } => {
                write!(
                    f,
                    "{proven} of {deployments} deployments proven, {in_flight} in flight "
                )?;
                write!(f, "(wave deadline in {})", Human(*left))
            }
            Self::Soaking { left } => write!(f, "soaking: {} left", Human(*left)),
            Self::Offline {
                offline,
                deployments,
                limit_percent,
            } => {
                write!(
                    f,
                    "{offline} of {deployments} deployments offline, limit {limit_percent}%"
                )
            }
            Self::Unproven {
                offline,
                broken_before,
                deployments,
            } => {
                let next = if *offline == 0 {
                    "; resume to go on"
                } else {
                    ""
                };
                let causes =
                    format!("{offline} offline, {broken_before} failed as before the change");
                write!(f, "0 of {deployments} deployments proven, ")?;
                write!(f, "so it says nothing about the next ({causes}){next}")
            }
        }
    }
}

impl fmt::Display for RollbackHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency { limit, in_progress } => {
                write!(
                    f,
                    "rollback concurrency {limit} is used up: {in_progress} on their way back"
                )
            }
            Self::Step { left } => {
                write!(
                    f,
                    "what it had before is not proven yet (deadline in {})",
                    Human(*left)
                )
            }
            Self::Offline => f.write_str("offline: goes back when it is connected again"),
            Self::Failed(class) => write!(f, "rollback failed with {class}; retry or abort"),
            Self::Impossible => {
                f.write_str("cannot go back: its last proven state cannot be had again; abort")
            }
            Self::Run {
                back,
                touched,
                in_progress,
            } => {
                write!(
                    f,
                    "rolling back: {back} of {touched} deployments are back, "
                )?;
                write!(f, "{in_progress} on their way")
            }
        }
    }
}

impl fmt::Display for Deployments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 deployment"),
            count => write!(f, "{count} deployments"),
        }
    }
}

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begun = u64::from(self.0.subsec_nanos() > 0);
        let seconds = self.0.as_secs().saturating_add(begun);
        let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
        let (large, small) = match seconds {
            0..60 => (format!("{seconds}s"), (0, 's')),
            60..3_600 => (format!("{minutes}m"), (seconds % 60, 's')),
            3_600..86_400 => (format!("{hours}h"), (minutes % 60, 'm')),
            _ => (format!("{days}d"), (hours % 24, 'h')),
        };
        match small {
            (0, _) => f.write_str(&large),
            (count, unit) => write!(f, "{large} {count}{unit}"),
        }
    }
}

fn held(f: &mut fmt::Formatter<'_>, state: &str, reason: &str) -> fmt::Result {
    match reason {
        "" => f.write_str(state),
        reason => write!(f, "{state}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureClass;
    use crate::rollout::waiting::Deadline;

    const LEFT: Duration = Duration::from_secs(100);

    /// One line for each reason.
    fn sentences(reasons: &[WaitingOn]) -> String {
        reasons.iter().map(|reason| format!("{reason}\n")).collect()
    }

    fn wave(name: &str, number: usize) -> WaveRef {
        WaveRef {
            name: name.to_owned(),
            number,
            of: 2,
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [
            (0, "0s"),
            (1, "1s"),
            (1_000, "1s"),
            (1_001, "2s"),
            (100_000, "1m 40s"),
            (600_000, "10m"),
            (7_500_000, "2h 5m"),
            (100_000_000, "1d 3h"),
        ];
        for (millis, text) in cases {
            assert_eq!(Human(Duration::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn a_deployment_waits_for_a_rule_and_a_number() {
        let step = |deadline| WaitingOn::Step {
            deadline,
            left: LEFT,
        };
        let name = || "canary".to_owned();
        let strict = |away| WaitingOn::Strict {
            wave: name(),
            in_flight: 1,
            away,
            budget_left: 0,
        };
        let offline = |holds| WaitingOn::Offline {
            offline: 1,
            deployments: 10,
            limit_percent: 20,
            holds,
        };
        let failed = |broken_before| WaitingOn::Failed {
            class: FailureClass::Model,
            broken_before,
        };
        insta::assert_snapshot!(sentences(&[
            WaitingOn::Andon("ada since noon: the provider is down".to_owned()),
            WaitingOn::NotStarted,
            WaitingOn::Change("2 deployments passed a deadline".to_owned()),
            WaitingOn::Paused("by ada: lunch".to_owned()),
            WaitingOn::Halted(String::new()),
            WaitingOn::WaveNotStarted {
                wave: wave("fleet", 2),
                running: wave("canary", 1)
            },
            WaitingOn::Concurrency {
                wave: name(),
                limit: 2,
                in_flight: 2
            },
            strict(0),
            strict(1),
            step(Deadline::Ack),
            step(Deadline::Apply),
            step(Deadline::Prove),
            WaitingOn::Soaking {
                left: LEFT,
                soak: Duration::from_secs(600)
            },
            offline(false),
            offline(true),
            failed(false),
            failed(true),
        ]));
    }

    #[test]
    fn a_wave_waits_for_a_rule_and_a_number() {
        let (deployments, limit_percent) = (10, 20);
        let holds = [
            WaveHold::Running {
                proven: 3,
                deployments,
                in_flight: 2,
                left: LEFT,
            },
            WaveHold::Soaking { left: LEFT },
            WaveHold::Offline {
                offline: 3,
                deployments,
                limit_percent,
            },
            WaveHold::Unproven {
                offline: 1,
                broken_before: 0,
                deployments: 1,
            },
        ];
        let on = |hold| WaitingOn::Wave {
            wave: wave("fleet", 2),
            hold,
        };
        insta::assert_snapshot!(sentences(&holds.map(on)));
    }

    #[test]
    fn a_rollback_waits_for_a_rule_and_a_number() {
        let holds = [
            RollbackHold::Concurrency {
                limit: 2,
                in_progress: 2,
            },
            RollbackHold::Step { left: LEFT },
            RollbackHold::Offline,
            RollbackHold::Failed(FailureClass::Timeout),
            RollbackHold::Impossible,
            RollbackHold::Run {
                back: 3,
                touched: 5,
                in_progress: 2,
            },
        ];
        insta::assert_snapshot!(sentences(&holds.map(WaitingOn::Rollback)));
    }
}
