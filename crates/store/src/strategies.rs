//! Strategies, and how one is written down: by itself, and frozen in each rollout.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::StrategyName;
use keyfleet_core::rollout::{
    Action, Amount, Approval, Blackout, Budget, CatchUp, Deadlines, Gate, GateCheck, Offline, Per,
    Ramp, Rollback, Sample, Spread, Strategy, Wave, Window, Zone,
};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::rows::{SelectorRow, from_json, known, parse, to_json};
use crate::{Error, Tx};

const TABLE: &str = "strategies";

#[derive(Serialize, Deserialize)]
struct StrategyRow {
    waves: Vec<WaveRow>,
    #[serde(default)]
    ramp: Option<[u32; 2]>,
    #[serde(default)]
    max_per_minute: Option<u32>,
    deadline_millis: [u64; 4],
    budgets: Vec<BudgetRow>,
    offline_max_percent: u8,
    #[serde(default = "immediate")]
    catch_up: String,
    #[serde(default)]
    windows: Vec<WindowRow>,
    #[serde(default)]
    blackouts: Vec<BlackoutRow>,
    #[serde(default)]
    gates: Vec<GateRow>,
    rollback_concurrency: AmountRow,
    #[serde(default)]
    rollback_max_per_minute: Option<u32>,
    #[serde(default)]
    rollback_deadline_millis: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct WaveRow {
    name: String,
    selector: SelectorRow,
    sample: Option<AmountRow>,
    #[serde(default)]
    sample_spread: Option<String>,
    #[serde(default)]
    sample_min_matching: u32,
    concurrency: AmountRow,
    #[serde(default)]
    spread: Option<(String, u32)>,
    strict: bool,
    #[serde(default)]
    mandatory: bool,
    soak_millis: u64,
    #[serde(default)]
    approval: Option<(u32, bool)>,
}

#[derive(Serialize, Deserialize)]
struct BudgetRow {
    class: Option<String>,
    #[serde(default = "of_each_wave")]
    per: String,
    max: AmountRow,
    min_sample: u32,
    action: String,
}

#[derive(Serialize, Deserialize)]
struct WindowRow {
    cron: String,
    secs: u64,
    zone: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct BlackoutRow {
    from: String,
    until: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct GateRow {
    name: String,
    url: String,
    query: Option<String>,
    fail_if: Option<String>,
    interval_secs: u64,
    action: String,
    fail_after: u32,
    inconclusive_after: u32,
}

#[derive(Serialize, Deserialize)]
enum AmountRow {
    Count(u32),
    Percent(u8),
}

impl Tx<'_> {
    /// Every strategy, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn strategies(&self) -> Result<Vec<Strategy>, Error> {
        let mut statement = self
            .0
            .prepare_cached("SELECT name, spec FROM strategies ORDER BY name")?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let name = parse("strategies", &row.get::<_, String>(0)?)?;
            all.push(read_strategy(name, &row.get::<_, String>(1)?)?);
        }
        Ok(all)
    }

    /// Stores a strategy, new or changed; running rollouts keep theirs.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_strategy(&self, strategy: &Strategy) -> Result<(), Error> {
        self.0
            .prepare_cached("INSERT OR REPLACE INTO strategies VALUES (?1, ?2)")?
            .execute(params![strategy.name.as_str(), strategy_json(strategy)?])?;
        Ok(())
    }

    /// Deletes a strategy; running rollouts keep theirs.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_strategy(&self, name: &StrategyName) -> Result<(), Error> {
        self.0
            .prepare_cached("DELETE FROM strategies WHERE name = ?1")?
            .execute([name.as_str()])?;
        Ok(())
    }
}

pub(crate) fn strategy_json(strategy: &Strategy) -> Result<String, Error> {
    let Deadlines {
        ack,
        apply,
        prove,
        wave,
    } = strategy.deadlines;
    let row = StrategyRow {
        waves: strategy.waves.iter().map(WaveRow::from).collect(),
        ramp: strategy.ramp.map(|ramp| [ramp.start, ramp.factor_percent]),
        max_per_minute: strategy.max_per_minute,
        deadline_millis: [ack, apply, prove, wave].map(millis),
        budgets: strategy.budgets.iter().map(BudgetRow::from).collect(),
        offline_max_percent: strategy.offline.max_percent,
        catch_up: strategy.offline.catch_up.as_str().to_owned(),
        windows: strategy.windows.iter().map(WindowRow::from).collect(),
        blackouts: strategy.blackouts.iter().map(BlackoutRow::from).collect(),
        gates: strategy.gates.iter().map(GateRow::from).collect(),
        rollback_concurrency: strategy.rollback.concurrency.into(),
        rollback_max_per_minute: strategy.rollback.max_per_minute,
        rollback_deadline_millis: strategy.rollback.deadline.map(millis),
    };
    to_json(TABLE, &row)
}

pub(crate) fn read_strategy(name: StrategyName, spec: &str) -> Result<Strategy, Error> {
    let row: StrategyRow = from_json(TABLE, spec)?;
    let [ack, apply, prove, wave] = row.deadline_millis.map(Duration::from_millis);
    let catch_up = CatchUp::parse(&row.catch_up);
    Ok(Strategy {
        name,
        waves: row.waves.into_iter().map(Wave::from).collect(),
        ramp: row.ramp.map(|[start, factor_percent]| Ramp {
            start,
            factor_percent,
        }),
        max_per_minute: row.max_per_minute,
        deadlines: Deadlines {
            ack,
            apply,
            prove,
            wave,
        },
        budgets: all(row.budgets)?,
        offline: Offline {
            max_percent: row.offline_max_percent,
            catch_up: known(TABLE, &row.catch_up, catch_up)?,
        },
        windows: row.windows.into_iter().map(Window::from).collect(),
        blackouts: all(row.blackouts)?,
        gates: all(row.gates)?,
        rollback: Rollback {
            concurrency: row.rollback_concurrency.into(),
            max_per_minute: row.rollback_max_per_minute,
            deadline: row.rollback_deadline_millis.map(Duration::from_millis),
        },
    })
}

fn all<T: TryFrom<R, Error = Error>, R>(rows: Vec<R>) -> Result<Vec<T>, Error> {
    rows.into_iter().map(T::try_from).collect()
}

/// What strategies of before it could be chosen meant.
fn immediate() -> String {
    CatchUp::Immediate.as_str().to_owned()
}

/// What budgets of before it could be chosen meant.
fn of_each_wave() -> String {
    Per::Wave.as_str().to_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Wave> for WaveRow {
    fn from(wave: &Wave) -> Self {
        Self {
            name: wave.name.clone(),
            selector: (&wave.selector).into(),
            sample: wave.sample.as_ref().map(|sample| sample.amount.into()),
            sample_spread: wave.sample.as_ref().and_then(|s| s.spread.clone()),
            sample_min_matching: wave.sample.as_ref().map_or(0, |s| s.min_matching),
            concurrency: wave.concurrency.into(),
            spread: wave
                .spread
                .as_ref()
                .map(|spread| (spread.label.clone(), spread.max)),
            strict: wave.strict,
            mandatory: wave.mandatory,
            soak_millis: millis(wave.soak),
            approval: wave
                .approval
                .map(|approval| (approval.required, approval.not_author)),
        }
    }
}

impl From<WaveRow> for Wave {
    fn from(row: WaveRow) -> Self {
        Self {
            name: row.name,
            selector: row.selector.into(),
            sample: row.sample.map(|amount| Sample {
                amount: amount.into(),
                spread: row.sample_spread,
                min_matching: row.sample_min_matching,
            }),
            concurrency: row.concurrency.into(),
            spread: row.spread.map(|(label, max)| Spread { label, max }),
            strict: row.strict,
            mandatory: row.mandatory,
            soak: Duration::from_millis(row.soak_millis),
            approval: row.approval.map(|(required, not_author)| Approval {
                required,
                not_author,
            }),
        }
    }
}

impl From<&Budget> for BudgetRow {
    fn from(budget: &Budget) -> Self {
        Self {
            class: budget.class.map(|class| class.as_str().to_owned()),
            per: budget.per.as_str().to_owned(),
            max: budget.max.into(),
            min_sample: budget.min_sample,
            action: budget.action.as_str().to_owned(),
        }
    }
}

impl TryFrom<BudgetRow> for Budget {
    type Error = Error;

    fn try_from(row: BudgetRow) -> Result<Self, Error> {
        let class = row
            .class
            .map(|class| known(TABLE, &class, FailureClass::parse(&class)))
            .transpose()?;
        Ok(Self {
            class,
            per: known(TABLE, &row.per, Per::parse(&row.per))?,
            max: row.max.into(),
            min_sample: row.min_sample,
            action: known(TABLE, &row.action, Action::parse(&row.action))?,
        })
    }
}

impl From<&Window> for WindowRow {
    fn from(window: &Window) -> Self {
        Self {
            cron: window.cron.clone(),
            secs: window.duration.as_secs(),
            zone: match &window.zone {
                Zone::Named(name) => Some(name.clone()),
                Zone::OfDeployment => None,
            },
        }
    }
}

impl From<WindowRow> for Window {
    fn from(row: WindowRow) -> Self {
        Self {
            cron: row.cron,
            duration: Duration::from_secs(row.secs),
            zone: row.zone.map_or(Zone::OfDeployment, Zone::Named),
        }
    }
}

impl From<&Blackout> for BlackoutRow {
    fn from(blackout: &Blackout) -> Self {
        Self {
            from: blackout.from.to_string(),
            until: blackout.until.to_string(),
            reason: blackout.reason.clone(),
        }
    }
}

impl TryFrom<BlackoutRow> for Blackout {
    type Error = Error;

    fn try_from(row: BlackoutRow) -> Result<Self, Error> {
        Ok(Self {
            from: parse(TABLE, &row.from)?,
            until: parse(TABLE, &row.until)?,
            reason: row.reason,
        })
    }
}

impl From<&Gate> for GateRow {
    fn from(gate: &Gate) -> Self {
        let (url, query, fail_if) = match &gate.check {
            GateCheck::Http { url } => (url, None, None),
            GateCheck::Prometheus {
                url,
                query,
                fail_if,
            } => (url, Some(query.clone()), Some(fail_if.to_string())),
        };
        Self {
            name: gate.name.clone(),
            url: url.to_string(),
            query,
            fail_if,
            interval_secs: gate.interval.as_secs(),
            action: gate.action.as_str().to_owned(),
            fail_after: gate.fail_after,
            inconclusive_after: gate.inconclusive_after,
        }
    }
}

impl TryFrom<GateRow> for Gate {
    type Error = Error;

    fn try_from(row: GateRow) -> Result<Self, Error> {
        let url = parse(TABLE, &row.url)?;
        let check = match (row.query, row.fail_if) {
            (Some(query), Some(fail_if)) => GateCheck::Prometheus {
                url,
                query,
                fail_if: parse(TABLE, &fail_if)?,
            },
            (None, _) | (_, None) => GateCheck::Http { url },
        };
        Ok(Self {
            name: row.name,
            check,
            interval: Duration::from_secs(row.interval_secs),
            action: known(TABLE, &row.action, Action::parse(&row.action))?,
            fail_after: row.fail_after,
            inconclusive_after: row.inconclusive_after,
        })
    }
}

impl From<Amount> for AmountRow {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Count(count),
            Amount::Percent(percent) => Self::Percent(percent),
        }
    }
}

impl From<AmountRow> for Amount {
    fn from(row: AmountRow) -> Self {
        match row {
            AmountRow::Count(count) => Self::Count(count),
            AmountRow::Percent(percent) => Self::Percent(percent),
        }
    }
}
