//! A drawing of spans of time: one line each over a common axis.

use std::fmt::Write as _;

use crate::duration;
use crate::output::terminal_width;

/// Width where stdout is no terminal.
const WIDTH: usize = 100;

/// Fewer columns than this for the axis itself say nothing; a narrower terminal breaks the lines.
const AXIS_MIN: usize = 30;

/// Names longer than this are cut.
const NAME_MAX: usize = 20;

/// Two marks of the axis are at least this far apart, so that their texts do not touch.
const MARK_GAP: usize = 10;

/// Steps between two marks, in seconds: 1 s to 90 days.
const STEPS: [u64; 26] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
    86_400, 172_800, 345_600, 604_800, 1_209_600, 2_592_000, 3_888_000, 5_184_000, 7_776_000,
];

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    /// What it is about.
    pub(super) name: String,
    /// From when on it could have begun, in seconds from the start.
    pub(super) free_at: u64,
    /// When it began; nothing = never.
    pub(super) begins: Option<u64>,
    /// When its work was done.
    pub(super) worked_until: u64,
    /// When it was over.
    pub(super) ends: u64,
}

/// The three kinds of time, as characters that differ without colour.
#[derive(Debug, Clone, Copy)]
struct Strokes {
    waiting: char,
    work: char,
    soak: char,
}

/// On a terminal.
const BLOCKS: Strokes = Strokes {
    waiting: '·',
    work: '█',
    soak: '▒',
};

/// In a log, whatever reads it.
const ASCII: Strokes = Strokes {
    waiting: '.',
    work: '#',
    soak: '=',
};

/// The common axis.
#[derive(Debug)]
pub(super) struct Timeline {
    length: u64,
    width: usize,
    strokes: Strokes,
}

impl Timeline {
    /// An axis of so many seconds, as wide as the terminal.
    pub(super) fn new(length: u64) -> Self {
        let terminal = terminal_width();
        Self {
            length: length.max(1),
            width: terminal.unwrap_or(WIDTH),
            strokes: if terminal.is_some() { BLOCKS } else { ASCII },
        }
    }

    /// The lines: the axis, each lane, and what the strokes mean.
    pub(super) fn draw(&self, lanes: &[Lane]) -> Vec<String> {
        let name_chars = |lane: &Lane| lane.name.chars().count().min(NAME_MAX);
        let indent = lanes
            .iter()
            .map(name_chars)
            .max()
            .unwrap_or_default()
            .max(4)
            + 2;
        let columns = self.width.saturating_sub(indent).max(AXIS_MIN);
        let mut lines = vec![format!("{:indent$}{}", "WAVE", self.axis(columns))];
        for lane in lanes {
            let name: String = lane.name.chars().take(NAME_MAX).collect();
            let bar = self.bar(lane, columns);
            lines.push(format!("{name:indent$}{bar}").trim_end().to_owned());
        }
        let Strokes {
            waiting,
            work,
            soak,
        } = self.strokes;
        lines.push(format!(
            "{:indent$}{work} at work  {soak} soak  {waiting} waits",
            ""
        ));
        lines
    }

    /// Times at even distances.
    fn axis(&self, columns: usize) -> String {
        let gap = |step: u64| self.column(step, columns);
        let fits = STEPS.into_iter().find(|step| gap(*step) >= MARK_GAP);
        let step = fits.unwrap_or(self.length);
        let mut axis = String::new();
        let mut at = 0;
        while at <= self.length {
            let text = duration::short(at);
            let column = self.column(at, columns);
            let drawn = axis.chars().count();
            if column + text.chars().count() > columns {
                break;
            }
            // Writing to a String cannot fail.
            let _ = write!(axis, "{:1$}{text}", "", column.saturating_sub(drawn));
            at = at.saturating_add(step);
        }
        axis
    }

    fn bar(&self, lane: &Lane, columns: usize) -> String {
        let Strokes {
            waiting,
            work,
            soak,
        } = self.strokes;
        let Some(begins) = lane.begins else {
            return "never begins".to_owned();
        };
        let last = columns.saturating_sub(1);
        let from = self.column(lane.free_at, columns).min(last);
        let start = self.column(begins, columns).min(last).max(from);
        // Also what takes no time is to be seen.
        let worked = self.column(lane.worked_until, columns).max(start + 1);
        let end = self.column(lane.ends, columns).max(worked);
        let stroke = |c: char, n: usize| std::iter::repeat_n(c, n);
        let bar = stroke(' ', from)
            .chain(stroke(waiting, start - from))
            .chain(stroke(work, worked - start))
            .chain(stroke(soak, end - worked));
        bar.take(columns).collect()
    }

    /// The column of a moment.
    fn column(&self, secs: u64, columns: usize) -> usize {
        let columns = u128::try_from(columns).unwrap_or_default();
        let column = u128::from(secs) * columns / u128::from(self.length);
        usize::try_from(column).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str, times: [u64; 4]) -> Lane {
        let [free_at, begins, worked_until, ends] = times;
        Lane {
            name: name.into(),
            free_at,
            begins: Some(begins),
            worked_until,
            ends,
        }
    }

    #[test]
    fn waiting_work_and_soak_look_different() {
        let timeline = Timeline {
            length: 4_000,
            width: 46,
            strokes: ASCII,
        };
        let never = Lane {
            begins: None,
            ..lane("last", [4_000, 0, 4_000, 4_000])
        };
        let lanes = [
            lane("canary", [0, 0, 500, 1_000]),
            lane("rest", [1_000, 2_000, 4_000, 4_000]),
            lane("tiny", [4_000, 4_000, 4_000, 4_000]),
            never,
        ];
        // 38 columns for 4,000 s: 1,000 s are 9 and a half.
        let expect = [
            "WAVE    0s               30m              1h",
            "canary  ####=====",
            "rest             ..........###################",
            "tiny                                         #",
            "last    never begins",
            "        # at work  = soak  . waits",
        ];
        assert_eq!(timeline.draw(&lanes), expect);
    }

    #[test]
    fn an_axis_of_any_length_is_drawn() {
        for length in [0, 1, 59, 3_600, 86_400 * 30, u64::MAX] {
            let timeline = Timeline::new(length);
            let lines = timeline.draw(&[lane("w", [0, length / 2, length, u64::MAX])]);
            assert!(lines[0].starts_with("WAVE"), "{lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        }
    }
}
