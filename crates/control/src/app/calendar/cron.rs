//! Five cron fields: minute, hour, day of month, month, day of week.
//!
//! Each field is `*`, a number, a range `1-5`, either with a step (`*/15`, `0-30/10`), or several of these separated by commas;
//! months and days of the week also by their first three letters, Sunday being 0 and 7. As in Vixie's cron, a day has to
//! match both day fields where one of them begins with `*`, and one of them where neither does.

use jiff::civil::Date;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The most days that a month may have, from January.
const MONTH_DAYS: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// The five fields, each as the set of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// One of the day fields begins with `*`: a day has to match both.
    both_days: bool,
}

/// What a field may hold.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of its values, beginning with `first`.
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    first: 0,
    last: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    first: 0,
    last: 23,
    names: &[],
};
const DAY: Field = Field {
    name: "day of month",
    first: 1,
    last: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    first: 1,
    last: 12,
    names: &MONTHS,
};
const WEEKDAY: Field = Field {
    name: "day of week",
    first: 0,
    last: 7,
    names: &DAYS,
};

impl Cron {
    /// Reads the fields; the error says what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!(
                "has {} of five fields: write minute, hour, day of month, month and day of week, such as \"0 22 * * 1-5\"",
                parts.len()
            ));
        };
        let weekdays = WEEKDAY.parse(weekday)?;
        let cron = Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            // 7 is Sunday as well.
            weekdays: weekdays | (weekdays >> 7),
            both_days: day.starts_with('*') || weekday.starts_with('*'),
        };
        if cron.both_days && !cron.has_a_date() {
            return Err(format!(
                "{text:?} names a day that never comes: change the day or the month"
            ));
        }
        Ok(cron)
    }

    /// Nothing ever begins.
    pub(super) fn never() -> Self {
        Self {
            minutes: 0,
            hours: 0,
            days: 0,
            months: 0,
            weekdays: 0,
            both_days: true,
        }
    }

    /// True where something begins on this day.
    pub(super) fn is_on(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = match self.both_days {
            true => day && weekday,
            false => day || weekday,
        };
        fits && has(self.months, date.month())
    }

    /// Hour and minute of each beginning on a day that fits, in order.
    pub(super) fn times(&self) -> impl DoubleEndedIterator<Item = (i8, i8)> {
        let hours = (0..24).filter(|hour| has(self.hours, *hour));
        hours.flat_map(|hour| {
            let minutes = (0..60).filter(|minute| has(self.minutes, *minute));
            minutes.map(move |minute| (hour, minute))
        })
    }

    /// False for a 30th of February.
    fn has_a_date(&self) -> bool {
        let mut months = (1..).zip(MONTH_DAYS);
        months.any(|(month, last)| {
            has(self.months, month) && (1..=last).any(|day| has(self.days, day))
        })
    }
}

impl Field {
    /// The values as bits.
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',')
            .try_fold(0, |set, item| Ok(set | self.item(item)?))
    }

    fn item(&self, item: &str) -> Result<u64, String> {
        let wrong = || self.wrong(item);
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, self.step(step).ok_or_else(wrong)?),
            None => (item, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((from, to)) => (
                self.value(from).ok_or_else(wrong)?,
                self.value(to).ok_or_else(wrong)?,
            ),
            // A step needs something to step through.
            None if step > 1 || item.contains('/') => return Err(wrong()),
            None => {
                let value = self.value(range).ok_or_else(wrong)?;
                (value, value)
            }
        };
        if from > to {
            let name = self.name;
            return Err(format!(
                "{item:?} is no {name}: the range ends before it begins; write two with a comma between"
            ));
        }
        let values = (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        Ok(values.fold(0, |set, value| set | (1 << value)))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(index) => self.first + u32::try_from(index).ok()?,
            None => digits(text)?,
        };
        (self.first..=self.last).contains(&value).then_some(value)
    }

    fn step(&self, text: &str) -> Option<u32> {
        digits(text).filter(|step| (1..=self.last).contains(step))
    }

    fn wrong(&self, item: &str) -> String {
        let Self {
            name, first, last, ..
        } = self;
        format!(
            "{item:?} is no {name}: use * or {first} to {last}, a range such as {first}-{last}, or either with a step such as */5"
        )
    }
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set & (1 << value) != 0)
}

/// A number without a sign.
fn digits(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_fits_as_in_cron() {
        let check = |text: &str, date: &str, on: bool| {
            let cron = Cron::parse(text).unwrap();
            assert_eq!(cron.is_on(date.parse().unwrap()), on, "{text} on {date}");
        };
        // 2026-11-23 is a Monday.
        check("0 22 * * 1-4", "2026-11-23", true);
        check("0 22 * * 1-4", "2026-11-22", false);
        check("0 22 * * 0", "2026-11-22", true);
        check("0 22 * * 7", "2026-11-22", true);
        check("0 22 * * sun,Mon", "2026-11-23", true);
        check("0 22 1 * *", "2026-11-23", false);
        check("0 22 */2 * MON", "2026-11-23", true);
        check("0 22 */2 * MON", "2026-11-30", false);
        check("0 22 30 * MON", "2026-11-23", true);
        check("0 22 * jan-mar *", "2026-11-23", false);
        check("0 22 30 2 MON", "2027-02-01", true);
    }

    #[test]
    fn times_come_in_order() {
        let times = |text: &str| Cron::parse(text).unwrap().times().collect::<Vec<_>>();
        assert_eq!(times("*/30 1,3 * * *"), [(1, 0), (1, 30), (3, 0), (3, 30)]);
        assert_eq!(times("5-15/10 23 * * *"), [(23, 5), (23, 15)]);
        assert_eq!(times("* * * * *").len(), 1440);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, part: &str| {
            let problem = Cron::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        };
        check("", "0 of five fields");
        check("0 22 * *", "4 of five fields");
        check("0 22 * * * Europe/Berlin", "6 of five fields");
        check("60 * * * *", "\"60\" is no minute: use * or 0 to 59");
        check("0 24 * * *", "is no hour");
        check("0 0 0 * *", "is no day of month");
        check("0 0 * 13 *", "is no month");
        check("0 0 * * 8", "is no day of week");
        check(
            "0 0 * * 5-1",
            "\"5-1\" is no day of week: the range ends before",
        );
        check("*/0 * * * *", "is no minute");
        check("5/10 * * * *", "is no minute");
        check("+5 * * * *", "is no minute");
        check("1,,2 * * * *", "\"\" is no minute");
        check("*/99999999999 * * * *", "is no minute");
        check("0 0 30 2 *", "never comes");
    }
}
