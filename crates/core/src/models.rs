//! What is known of models: how fit each is for a task, as Elastic measured it, and when it ends at OpenAI.
//!
//! This is dated data and no rule: it makes `plan` warn and never refuse. Elastic changed its scale three times and its
//! tasks with many a release, so that each table names where it is from and when it was read.

use std::fmt;

use jiff::civil::{Date, date};

/// Elastic does not recommend a model for a task where it is rated this much or less.
pub const UNFIT_MAX: Rating = Rating(500);

/// A shutdown within this many days is warned of.
pub const SOON_DAYS: i32 = 90;

/// Where the ratings are from.
pub const RATINGS: Source = Source {
    name: "Elastic's performance matrix of large language models, docs-content 08732db",
    read: "2026-11",
};

/// Where the dates are from on which models end.
pub const SHUTDOWNS: Source = Source {
    name: "OpenAI's page of deprecations, in part as others quote it",
    read: "2026-10-28",
};

/// Every model that is known: the rated ones by Elastic's overall rating, then those of which only the end is known.
pub const MODELS: &[Model] = &[
    model(
        "Claude Opus 4.7",
        &["claude-opus-4-7"],
        rated([829, 970, 970], 923),
    ),
    model(
        "Claude Sonnet 4.6",
        &["claude-sonnet-4-6"],
        rated([786, 910, 1_000], 899),
    ),
    model(
        "Claude Sonnet 4.5",
        &["claude-sonnet-4-5"],
        rated([786, 910, 1_000], 899),
    ),
    model("GPT-5.2", &["gpt-5.2"], rated([743, 830, 1_000], 858)),
    model(
        "Claude Opus 4.6",
        &["claude-opus-4-6"],
        rated([814, 750, 1_000], 855),
    ),
    model(
        "Gemini 2.5 Flash",
        &["gemini-2.5-flash"],
        rated([586, 950, 981], 839),
    ),
    model(
        "Claude Haiku 4.5",
        &["claude-haiku-4-5"],
        rated([671, 650, 1_000], 774),
    ),
    model(
        "GPT-5.4 Mini",
        &["gpt-5.4-mini"],
        rated([714, 350, 980], 681),
    ),
    model("GPT-4.1", &["gpt-4.1"], rated([629, 360, 960], 650)).ends(date(2027, 1, 14)),
    model("GPT-5.4", &["gpt-5.4"], rated([786, 530, 590], 635)),
    model(
        "GPT-OSS 120B",
        &["gpt-oss-120b"],
        rated([514, 300, 940], 585),
    ),
    model(
        "Gemma 4 31B",
        &["gemma-4-31b", "gemma-4-31b-it"],
        rated([700, 280, 750], 577),
    ),
    model(
        "DeepSeek V4 Pro",
        &["deepseek-v4-pro"],
        rated([586, 830, 310], 575),
    ),
    model(
        "GPT-5.4 Nano",
        &["gpt-5.4-nano"],
        rated([557, 100, 990], 549),
    )
    .ends(date(2027, 4, 1)),
    model("GPT-OSS 20B", &["gpt-oss-20b"], rated([543, 260, 400], 401)),
    model("Qwen 3.6 27B", &["qwen3.6-27b"], rated([714, 0, 410], 375)),
    model("GPT-4.1 Mini", &["gpt-4.1-mini"], rated([557, 420, 0], 326)).ends(date(2027, 1, 14)),
    model("GPT-5.1", &["gpt-5.1"], None).ends(date(2027, 4, 1)),
    model("GPT-5", &["gpt-5"], None).ends(date(2026, 12, 11)),
    model("GPT-5 Mini", &["gpt-5-mini"], None).ends(date(2026, 12, 11)),
    model("GPT-5 Nano", &["gpt-5-nano"], None).ends(date(2026, 12, 11)),
    model("GPT-5 Pro", &["gpt-5-pro"], None).ends(date(2026, 12, 11)),
    model("o3", &["o3"], None).ends(date(2026, 12, 11)),
    model("o3 Pro", &["o3-pro"], None).ends(date(2026, 12, 11)),
    model("GPT-4o", &["gpt-4o"], None).ends(date(2027, 1, 14)),
    model("GPT-4o of May 2024", &["gpt-4o-2024-05-13"], None).ends(date(2026, 10, 23)),
    model("GPT-4o Mini", &["gpt-4o-mini"], None).ends(date(2027, 1, 14)),
    model("GPT-4.1 Nano", &["gpt-4.1-nano"], None).ends(date(2026, 10, 23)),
    model("o4 Mini", &["o4-mini"], None).ends(date(2026, 10, 23)),
    model("o3 Mini", &["o3-mini"], None).ends(date(2026, 10, 23)),
    model("o1", &["o1"], None).ends(date(2026, 10, 23)),
    model("o1 Pro", &["o1-pro"], None).ends(date(2026, 10, 23)),
    model("GPT-4 Turbo", &["gpt-4-turbo"], None).ends(date(2026, 10, 23)),
    model("GPT-4", &["gpt-4", "gpt-4-0613"], None).ends(date(2026, 10, 23)),
    model(
        "GPT-3.5 Turbo",
        &["gpt-3.5-turbo", "gpt-3.5-turbo-0125"],
        None,
    )
    .ends(date(2026, 10, 23)),
];

/// What the connectors of a placement are for: a column of Elastic's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Conversations and agents with tools.
    AgentBuilder,
    /// Finding attacks among alerts.
    AttackDiscovery,
    /// Translating rules and dashboards of another product.
    AutomaticMigration,
}

/// How fit a model is, in hundredths: 1.00 to 10.00, and 0.00 where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rating(pub u16);

/// Where data is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Whose, and which state of it.
    pub name: &'static str,
    /// When it was read: a day or a month.
    pub read: &'static str,
}

/// Elastic's ratings of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratings {
    tasks: [Rating; Task::ALL.len()],
    /// Elastic's own mean of everything it measured.
    pub overall: Rating,
}

/// One model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// For people.
    pub name: &'static str,
    /// What a connector calls it, in lower case, without a provider before it or a day behind it.
    pub ids: &'static [&'static str],
    /// How fit it is; `None` where Elastic's table does not have it.
    pub ratings: Option<Ratings>,
    /// When OpenAI shuts it down; it says nothing of other providers. `None` where no day is known.
    pub ends: Option<Date>,
}

/// What to tell an operator of the model of a connector, a fragment each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// What will not work well, or not for long.
    pub warnings: Vec<String>,
    /// What nobody knows.
    pub notes: Vec<String>,
}

/// What is known of a model, by the name that a connector gives it: `openai/gpt-4.1-2025-04-14` is GPT-4.1.
pub fn find(id: &str) -> Option<&'static Model> {
    let id = id.trim().to_lowercase();
    let id = id.rsplit('/').next().unwrap_or_default();
    let named = |id: &str| MODELS.iter().find(|model| model.ids.contains(&id));
    named(id).or_else(|| named(without_day(id)))
}

/// What an operator should know who uses this model for `task`. `is_openai`: OpenAI itself serves it, so that its dates hold.
pub fn advise(id: &str, task: Option<Task>, is_openai: bool, today: Date) -> Advice {
    let (known, mut advice) = (find(id), Advice::default());
    let ratings = known.and_then(|model| model.ratings);
    match (task, ratings.zip(task).map(|(ratings, task)| ratings.of(task))) {
        (Some(task), Some(rating)) if rating <= UNFIT_MAX => advice.warnings.push(format!(
            "model {id} is rated {rating} of 10 for {task}, and {UNFIT_MAX} or less is not recommended ({RATINGS})"
        )),
        (Some(task), None) => advice
            .notes
            .push(format!("model {id} has no rating for {task} ({RATINGS})")),
        (Some(_) | None, _) => {}
    }
    if let (Some(ends), true) = (known.and_then(|model| model.ends), is_openai) {
        let days = (ends - today).get_days();
        let how = if days > 0 { "ends" } else { "ended" };
        if days <= SOON_DAYS {
            advice.warnings.push(format!(
                "model {id} {how} on {ends}: choose another one ({SHUTDOWNS})"
            ));
        }
    }
    advice
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 3] = [
        Self::AgentBuilder,
        Self::AttackDiscovery,
        Self::AutomaticMigration,
    ];

    /// The name in manifests and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentBuilder => "agent-builder",
            Self::AttackDiscovery => "attack-discovery",
            Self::AutomaticMigration => "automatic-migration",
        }
    }

    /// The task of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.as_str() == text)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Ratings {
    /// The rating for a task.
    pub const fn of(&self, task: Task) -> Rating {
        let [agent_builder, attack_discovery, automatic_migration] = self.tasks;
        match task {
            Task::AgentBuilder => agent_builder,
            Task::AttackDiscovery => attack_discovery,
            Task::AutomaticMigration => automatic_migration,
        }
    }
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, read {}", self.name, self.read)
    }
}

impl Model {
    const fn ends(self, day: Date) -> Self {
        Self {
            ends: Some(day),
            ..self
        }
    }
}

const fn model(
    name: &'static str,
    ids: &'static [&'static str],
    ratings: Option<Ratings>,
) -> Model {
    Model {
        name,
        ids,
        ratings,
        ends: None,
    }
}

const fn rated([a, b, c]: [u16; 3], overall: u16) -> Option<Ratings> {
    Some(Ratings {
        tasks: [Rating(a), Rating(b), Rating(c)],
        overall: Rating(overall),
    })
}

/// Without `-2025-04-14` or `-20250414` at the end.
fn without_day(id: &str) -> &str {
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((rest, day)) = id.rsplit_once('-')
        && digits(day, 8)
    {
        return rest;
    }
    let mut parts = id.rsplitn(4, '-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(day), Some(month), Some(year), Some(rest))
            if digits(day, 2) && digits(month, 2) && digits(year, 4) =>
        {
            rest
        }
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_what_connectors_call_it() {
        for (id, expected) in [
            ("gpt-4.1", Some("GPT-4.1")),
            (" GPT-4.1-2025-04-14 ", Some("GPT-4.1")),
            ("openai/gpt-oss-120b", Some("GPT-OSS 120B")),
            ("claude-haiku-4-5-20251001", Some("Claude Haiku 4.5")),
            ("gpt-4o-2024-05-13", Some("GPT-4o of May 2024")),
            ("gpt-4o-2024-11-20", Some("GPT-4o")),
            ("gpt-4.1-nano", Some("GPT-4.1 Nano")),
            ("gpt-4.15", None),
            ("gpt-9", None),
            ("-2025-04-14", None),
            ("", None),
        ] {
            assert_eq!(find(id).map(|model| model.name), expected, "{id:?}");
        }
    }

    #[test]
    fn every_id_names_one_model_and_every_rating_is_on_the_scale() {
        let ids: Vec<_> = MODELS.iter().flat_map(|model| model.ids).collect();
        for model in MODELS {
            for id in model.ids {
                assert_eq!(find(id), Some(model));
                assert_eq!(ids.iter().filter(|other| **other == id).count(), 1, "{id}");
            }
            let ratings = model.ratings.into_iter();
            let all = ratings.flat_map(|r| Task::ALL.map(|task| r.of(task)));
            assert!(all.into_iter().all(|rating| rating <= Rating(1_000)));
            assert!(model.ratings.is_some() || model.ends.is_some());
        }
        let overall = MODELS.iter().map(|model| model.ratings.map(|r| r.overall));
        assert!(overall.is_sorted_by(|before, after| before >= after));
    }

    #[test]
    fn advice_names_model_task_rating_source_and_date() {
        let check = |id, task, is_openai, today, warnings: &[&str], notes: &[&str]| {
            let advice = advise(id, task, is_openai, today);
            let fits = |said: &[String], expected: &[&str]| {
                let pairs = || said.iter().zip(expected);
                said.len() == expected.len() && pairs().all(|(text, part)| text.contains(part))
            };
            assert!(fits(&advice.warnings, warnings), "{id}: {advice:?}");
            assert!(fits(&advice.notes, notes), "{id}: {advice:?}");
        };
        let (attacks, early, late) = (
            Some(Task::AttackDiscovery),
            date(2026, 1, 1),
            date(2026, 11, 23),
        );
        let unfit = "model gpt-4.1 is rated 3.60 of 10 for attack-discovery, and 5.00 or less is not recommended (Elastic's performance matrix of large language models, docs-content 08732db, read 2026-11)";
        let ends = "model gpt-4.1 ends on 2027-01-14: choose another one (OpenAI's page of deprecations, in part as others quote it, read 2026-10-28)";
        check("gpt-4.1", attacks, true, early, &[unfit], &[]);
        check("gpt-4.1", attacks, true, late, &[unfit, ends], &[]);
        check("gpt-4.1", attacks, false, late, &[unfit], &[]);
        check("gpt-4.1", None, false, late, &[], &[]);
        check("gpt-5.2", attacks, true, late, &[], &[]);
        check("o1", None, true, late, &["ended on 2026-10-23"], &[]);
        let unknown = "model gpt-9 has no rating for attack-discovery (Elastic";
        check("gpt-9", attacks, true, late, &[], &[unknown]);
        check("gpt-9", None, true, late, &[], &[]);
    }

    #[test]
    fn the_edges_of_unfit_and_soon() {
        let days = |n: i64| date(2027, 1, 14) - jiff::Span::new().days(n);
        let count = |today| advise("gpt-4.1", None, true, today).warnings.len();
        assert_eq!((count(days(91)), count(days(90))), (0, 1));
        assert!(advise("gpt-4.1", None, true, days(0)).warnings[0].contains("ended on"));
        let fit = |rating: u16| Rating(rating) > UNFIT_MAX;
        assert!(fit(501) && !fit(500));
        assert_eq!(Rating(5).to_string(), "0.05");
        for task in Task::ALL {
            assert_eq!(Task::parse(task.as_str()), Some(task));
        }
    }
}
