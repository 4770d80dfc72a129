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
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each reason: this is the table of sentences"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Andon(words) => {
                write!(f, "andon is on, nothing new leaves control: {words}")
            }
            Self::NotStarted => f.write_str("the rollout has not started"),
            Self::Change(sentence) => write!(f, "the run changes first: {sentence}"),
            Self::Paused(reason) => held(f, "paused", reason),
            Self::Halted(reason) => held(f, "halted", reason),
            Self::WaveNotStarted {
                wave,
                before,
                running,
            } => {
                let (name, number) = (&before.name, before.number);
                let why = if *running {
                    "is running"
                } else {
                    "comes first"
                };
                write!(
                    f,
                    "{wave} has not started: wave {number} \"{name}\" {why}"
                )
            }
            Self::Approval {
                wave,
                given,
                required,
                except,
            } => {
                write!(
                    f,
                    "{wave} waits for approval: {given} of {required} have agreed"
                )?;
                match except {
                    Some(author) => write!(f, ", {author} who started the rollout does not count"),
                    None => Ok(()),
                }
            }
            Self::Gate { name, text } => write!(f, "gate \"{name}\" does not pass: {text}"),
            Self::Window { opens, blackout } => window(f, *opens, blackout.as_deref()),
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
            Self::Ramp {
                wave,
                limit,
                concurrency,
                in_flight,
                missing,
            } => {
                write!(
                    f,
                    "ramp of wave \"{wave}\" allows {limit} of {concurrency} at a time: "
                )?;
                write!(
                    f,
                    "{in_flight} in flight, more once {missing} more are proven"
                )
            }
            Self::Rate { max, left } => rate(f, "rate", *max, *left),
            Self::Spread {
                wave,
                label,
                value,
                max,
                in_flight,
            } => {
                write!(f, "spread of wave \"{wave}\" allows {max} at a time ")?;
                match value {
                    Some(value) => write!(f, "with {label}={value}")?,
                    None => write!(f, "without label {label}")?,
                }
                write!(f, ": {in_flight} in flight")
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
            Self::Left => f.write_str(
                "left the rollout, so it is not offered the change: what it shall have instead waits for the end",
            ),
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
                    "{proven} of {deployments} deployments proven, {in_flight} in flight"
                )?;
                match left {
                    Some(left) => write!(f, " (wave deadline in {})", Human(*left)),
                    None => Ok(()),
                }
            }
            Self::Windows { waiting, opens } => {
                let waiting = Deployments(usize::try_from(*waiting).unwrap_or(usize::MAX));
                write!(f, "{waiting} left, outside of maintenance windows: ")?;
                match opens {
                    Some(opens) => write!(f, "the next opens in {}", Human(*opens)),
                    None => f.write_str("none opens within a year"),
                }
            }
            Self::Mandatory {
                proven,
                deployments,
                offline,
                broken_before,
            } => {
                write!(
                    f,
                    "mandatory, {proven} of {deployments} deployments proven: "
                )?;
                write!(
                    f,
                    "{offline} offline, {broken_before} failed as before the change; "
                )?;
                f.write_str("fast-forward to go on without them")
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
            Self::Rate { max, left } => rate(f, "rollback rate", *max, *left),
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

fn rate(f: &mut fmt::Formatter<'_>, what: &str, max: u32, left: Duration) -> fmt::Result {
    write!(
        f,
        "{what} of {max} a minute is used up: the next in {}",
        Human(left)
    )
}

fn window(
    f: &mut fmt::Formatter<'_>,
    opens: Option<Duration>,
    blackout: Option<&str>,
) -> fmt::Result {
    match blackout {
        Some(words) => write!(f, "blackout: {words}")?,
        None => f.write_str("outside of its maintenance windows")?,
    }
    match opens {
        Some(opens) => write!(f, " (the next change may begin in {})", Human(opens)),
        None => f.write_str(" (none opens within a year)"),
    }
}

#[cfg(test)]
mod tests;
