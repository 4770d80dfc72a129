//! What agents report: stored only where it says something new.

pub(crate) mod facts;
mod seen;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState, Failure, Rung};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{DeploymentId, EnrolmentId, Generation, SpaceId};
use keyfleet_core::standing::Standing;
use keyfleet_proto::{Invalid, timestamp, v1};
use keyfleet_seal::scrub;
use keyfleet_store::{Binding, Deployment, Event, EventScope, Evidence, Tx};

use super::step::begin_again;
use super::step::is_under_way;
use super::{App, KEYFLEET};
use crate::clock;
use crate::error::Error;

/// Longest text of a status that is kept, in characters.
const TEXT_CHARS_MAX: usize = 600;

/// A text is looked at for so many times of what is kept of it.
const READ_TIMES: usize = 16;

/// The agent a report comes from.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    pub(crate) deployment: DeploymentId,
    pub(crate) enrolment: EnrolmentId,
    pub(crate) certificate_serial: String,
    /// When its certificate ends, and the session with it.
    pub(crate) certificate_not_after: Timestamp,
}

/// A binding's status, checked.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    id: BindingId,
    running: Option<Assignment>,
    attempted: Option<Assignment>,
    attempt: u32,
    generation: Generation,
    state: BindingState,
    failure: Option<Failure>,
    baseline_ok: Option<bool>,
    proven_at: Option<Timestamp>,
    removed: bool,
    rung: Option<Rung>,
    references: u32,
}

impl App {
    /// Stores a status report. The caller answers the agent only after this.
    pub(crate) async fn report(
        &self,
        from: &Reporter,
        report: v1::StatusReport,
        agent_version: &str,
    ) -> Result<(), Error> {
        let facts = report.facts.map(facts::Said::read).transpose()?;
        let mut reports = Vec::with_capacity(report.bindings.len());
        for binding in report.bindings {
            reports.push(Report::read(from.deployment, binding)?);
        }
        self.tell_auth_from_egress(from.deployment, &mut reports)
            .await?;
        let (from, agent_version, now) = (from.clone(), agent_version.to_owned(), clock::now());
        let write = move |tx: &Tx<'_>| store(tx, &from, &agent_version, facts, &reports, now);
        self.store.write(write).await?;
        self.changed();
        Ok(())
    }

    /// Stores that the agent has, or refuses, a generation of its desired state. What it refuses stands in the
    /// deployment's history, and at the bindings that this generation was made for.
    pub(crate) async fn answered(
        &self,
        from: &Reporter,
        answer: v1::DesiredAnswer,
    ) -> Result<(), Error> {
        let (deployment, enrolment) = (from.deployment, from.enrolment);
        let generation = answer
            .generation
            .ok_or_else(|| Invalid::missing("generation"))?;
        let generation = Generation::from(generation);
        let (rejected, now) = (text(&answer.rejected), clock::now());
        let write =
            move |tx: &Tx<'_>| answer_of(tx, deployment, enrolment, generation, &rejected, now);
        self.store.write(write).await?;
        self.changed();
        Ok(())
    }

    /// Gives what was offered to an agent that was away a new beginning: its deadline counts from its return.
    pub(crate) async fn returned(&self, deployment: DeploymentId) -> Result<(), Error> {
        let bindings = self
            .store
            .read(move |tx| Ok::<_, Error>(tx.bindings_of(deployment)?))
            .await?;
        if !bindings.iter().any(is_under_way) {
            return Ok(());
        }
        let now = clock::now();
        let write = move |tx: &Tx<'_>| begin_again(tx, deployment, now);
        self.store.write(write).await
    }

    /// A 401 at one Kibana, while the key works from here, is the way out that is refused and not the key.
    async fn tell_auth_from_egress(
        &self,
        deployment: DeploymentId,
        reports: &mut [Report],
    ) -> Result<(), Error> {
        let is_auth = |report: &Report| {
            let class = report.failure.as_ref().map(|failure| failure.class);
            class == Some(FailureClass::Auth)
        };
        if !reports.iter().any(is_auth) {
            return Ok(());
        }
        let read = move |tx: &Tx<'_>| Ok::<_, Error>(tx.bindings_of(deployment)?);
        let bindings = self.store.read(read).await?;
        for report in reports.iter_mut().filter(|report| is_auth(report)) {
            // Only what was really told is asked about: no agent can make control use other keys.
            let binding = bindings.iter().find(|binding| binding.id == report.id);
            if !binding.is_some_and(|binding| report.answers(binding)) {
                continue;
            }
            let (Some(failure), Some(attempted)) = (&mut report.failure, report.attempted) else {
                continue;
            };
            let connector = &report.id.connector;
            if self.key_works_from_here(connector, attempted).await == Some(true) {
                failure.class = FailureClass::Egress;
                let text = "the same key works from the control service";
                failure.text = format!("{}; {text}", failure.text);
            }
        }
        Ok(())
    }
}

fn is_offered(binding: &Binding) -> bool {
    binding.progress.state == BindingState::Offered
}

/// Stores what a report says that is new.
pub(crate) fn store(
    tx: &Tx<'_>,
    from: &Reporter,
    agent_version: &str,
    facts: Option<facts::Said>,
    reports: &[Report],
    now: Timestamp,
) -> Result<(), Error> {
    if let Some(said) = facts {
        facts::store(tx, from, agent_version, said, now)?;
    }
    let known = tx.deployment(from.deployment)?;
    // An agent that was replaced has nothing to say any more.
    let enrolled = known.filter(|known| known.enrolment == from.enrolment);
    let standing = enrolled.map(|known| known.standing);
    for report in reports {
        match standing {
            Some(Standing::Active) => take(tx, from, report, now)?,
            // What it says it did is not believed; what it may hold is written down all the same.
            Some(_) => observe(tx, report, now)?,
            None => {}
        }
    }
    Ok(())
}

/// Stores the answer of an agent to a generation; `rejected` is empty where it has it.
pub(crate) fn answer_of(
    tx: &Tx<'_>,
    deployment: DeploymentId,
    enrolment: EnrolmentId,
    generation: Generation,
    rejected: &str,
    now: Timestamp,
) -> Result<(), Error> {
    // Of an agent that is not trusted no answer counts.
    let known = tx.deployment(deployment)?;
    let is_trusted =
        |known: &Deployment| known.enrolment == enrolment && known.standing == Standing::Active;
    if !known.as_ref().is_some_and(is_trusted) {
        return Ok(());
    }
    let bindings = tx.bindings_of(deployment)?;
    let failure = (!rejected.is_empty()).then(|| Failure {
        class: FailureClass::Rejected,
        text: rejected.to_owned(),
    });
    if failure.is_some() {
        let text = format!("the agent refuses generation {generation}: {rejected}");
        // An agent says it again after a reconnect, in case nobody heard; said twice it is no news.
        let last = tx.events(EventScope::Deployment(deployment), 1)?.pop();
        let is_of = |b: &&Binding| b.desired.is_some_and(|told| told.generation == generation);
        let mut of_it = bindings.iter().filter(is_of).peekable();
        let is_known = of_it.peek().is_some() && of_it.all(|b| b.progress.failure == failure);
        if is_known || last.is_some_and(|last| last.text == text) {
            return Ok(());
        }
        let event = Event {
            at: now,
            actor: KEYFLEET.to_owned(),
            text,
        };
        tx.add_event(EventScope::Deployment(deployment), &event)?;
    }
    for mut binding in bindings {
        let Some(told) = binding.desired else {
            continue;
        };
        let is_offered = told.generation <= generation && is_offered(&binding);
        let is_refused = told.generation == generation && failure.is_some();
        if !is_offered && !is_refused {
            continue;
        }
        binding.progress.at = now;
        binding.progress.state = match failure {
            None => BindingState::Received,
            Some(_) => BindingState::Failed,
        };
        if failure.is_some() {
            binding.progress.failure.clone_from(&failure);
        }
        tx.put_binding(&binding)?;
    }
    Ok(())
}

impl Report {
    pub(crate) fn read(deployment: DeploymentId, wire: v1::BindingStatus) -> Result<Self, Invalid> {
        let state = BindingState::try_from(wire.state())?;
        let class = wire.failure_class();
        let failure = if class != v1::FailureClass::Unspecified {
            Some(Failure {
                class: class.try_into()?,
                text: text(&wire.text),
            })
        } else if state == BindingState::Drifted {
            // Somebody else changed the connector; the text names the fields.
            Some(Failure {
                class: FailureClass::Conflict,
                text: text(&wire.text),
            })
        } else if state == BindingState::Failed {
            return Err(Invalid::missing("bindings.failure_class"));
        } else {
            None
        };
        let proven_at = timestamp("bindings.proven_at", wire.proven_at)?;
        // What nobody understands is no call.
        let rung = Rung::try_from(wire.rung()).ok();
        let generation = wire
            .generation
            .ok_or_else(|| Invalid::missing("bindings.generation"))?
            .into();
        let binding = wire
            .binding
            .ok_or_else(|| Invalid::missing("bindings.binding"))?;
        let space: SpaceId = Invalid::parse("bindings.binding.space", &binding.space)?;
        let connector = Invalid::parse("bindings.binding.connector", &binding.connector)?;
        Ok(Self {
            id: BindingId {
                deployment,
                space,
                connector,
            },
            running: assignment("bindings.running", wire.running)?,
            attempted: assignment("bindings.attempted", wire.attempted)?,
            attempt: wire.attempt,
            generation,
            state,
            failure,
            baseline_ok: wire.baseline_ok,
            proven_at,
            removed: wire.removed,
            rung,
            references: wire.references,
        })
    }

    /// True where it answers what the binding is told now, and not something older.
    fn answers(&self, binding: &Binding) -> bool {
        self.is_sound()
            && binding.desired.is_some_and(|told| {
                told.assignment == self.attempted
                    && (!self.removed || told.assignment.is_none())
                    && self.generation >= told.generation
                    && (told.attempt == self.attempt || told.assignment.is_none())
            })
    }

    /// True where an agent may say this at all: what it did and saw, and nothing that contradicts itself.
    fn is_sound(&self) -> bool {
        match self.state {
            BindingState::Proven => self.removed || self.running == self.attempted,
            BindingState::Received
            | BindingState::Applied
            | BindingState::Failed
            | BindingState::Drifted => true,
            BindingState::Waiting
            | BindingState::Offered
            | BindingState::Waived
            | BindingState::Unknown => false,
        }
    }
}

/// What was assigned, in numbers that control can have given.
fn assignment(field: &str, wire: Option<v1::Assignment>) -> Result<Option<Assignment>, Invalid> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    for (part, number) in [
        ("revision", wire.revision),
        ("key_version", wire.key_version),
    ] {
        if i64::try_from(number).is_err() {
            let problem = format!("is {number}, which is more than any number that is given");
            return Err(Invalid::new(format!("{field}.{part}"), problem));
        }
    }
    Ok(Some(wire.into()))
}

/// Takes of a report what runs, and nothing that would count as done.
fn observe(tx: &Tx<'_>, report: &Report, now: Timestamp) -> Result<(), Error> {
    let Some(binding) = tx.binding(&report.id)? else {
        return Ok(());
    };
    let mut new = binding.clone();
    seen::take(tx, &mut new, report, now)?;
    let observed = Binding {
        running: new.running,
        ..binding.clone()
    };
    if observed != binding {
        tx.put_binding(&observed)?;
    }
    Ok(())
}

/// Takes one report into its binding's row.
fn take(tx: &Tx<'_>, from: &Reporter, report: &Report, now: Timestamp) -> Result<(), Error> {
    let Some(binding) = tx.binding(&report.id)? else {
        if report.running.is_some() {
            seen::unknown_binding(tx, &report.id, now)?;
        }
        return Ok(());
    };
    let mut new = binding.clone();
    seen::take(tx, &mut new, report, now)?;
    if report.answers(&binding) {
        if report.removed {
            return removed(tx, new, now);
        }
        progress(&mut new, report, now);
        new.rung = report.rung;
    }
    if report.is_sound() {
        new.references = report.references;
    }
    if new.progress.state == BindingState::Proven && report.answers(&binding) {
        let is_news = binding.progress.state != BindingState::Proven;
        prove(tx, from, &mut new, report, (is_news, now))?;
    } else if new.progress != binding.progress && voids_evidence(new.progress.state) {
        tx.void_evidence(&new.id)?;
    }
    if new != binding {
        tx.put_binding(&new)?;
    }
    Ok(())
}

/// A rewrite of the connector, a failed probe and drift each make older proofs worthless.
fn voids_evidence(state: BindingState) -> bool {
    matches!(
        state,
        BindingState::Applied | BindingState::Failed | BindingState::Drifted
    )
}

fn progress(binding: &mut Binding, report: &Report, now: Timestamp) {
    let progress = &mut binding.progress;
    let is_news = progress.state != report.state || progress.failure != report.failure;
    if is_news {
        progress.state = report.state;
        progress.at = now;
        progress.failure.clone_from(&report.failure);
    }
    // The first answer stands: on the way back the agent tries the change that is taken away.
    progress.baseline_ok = progress.baseline_ok.or(report.baseline_ok);
}

/// A live call succeeded: evidence for this version, and no other version is held any more.
fn prove(
    tx: &Tx<'_>,
    from: &Reporter,
    binding: &mut Binding,
    report: &Report,
    (is_news, now): (bool, Timestamp),
) -> Result<(), Error> {
    let Some(assignment) = report.attempted else {
        return Ok(());
    };
    // A clock that runs ahead must not make a proof outlive its time.
    let at = report.proven_at.unwrap_or(now).min(now);
    // Said again after our clock was set back, it is still the same proof.
    let is_known = binding.proven_at.is_some_and(|known| at <= known);
    if !is_news && binding.last_proven == Some(assignment) && is_known {
        return Ok(());
    }
    let connector = tx.connector(&binding.id.connector, assignment.revision)?;
    let key = connector.map(|connector| connector.revision.spec.key);
    let versions = key
        .as_ref()
        .map_or(Ok(Vec::new()), |key| tx.key_versions(key))?;
    let mut versions = versions.iter();
    // What was given up since it was told is no place to return to, whether it works or not.
    if versions.any(|it| it.version == assignment.key_version && it.state.may_be_assigned()) {
        binding.last_proven = Some(assignment);
        binding.proven_at = Some(at);
    }
    // What was proven before the agent was trusted again is not evidence: the next probe is.
    let trusted_since = tx
        .deployment(from.deployment)?
        .and_then(|known| known.standing_at);
    if trusted_since.is_some_and(|since| at < since) {
        return Ok(());
    }
    let Some(key) = key else {
        return Ok(());
    };
    tx.put_evidence(&Evidence {
        binding: binding.id.clone(),
        key: key.clone(),
        version: assignment.key_version,
        revision: assignment.revision,
        enrolment: from.enrolment,
        certificate_serial: from.certificate_serial.clone(),
        at,
    })?;
    let by = format!("proof of {key} {}", assignment.key_version);
    tx.close_holdings(&binding.id, Some((&key, assignment.key_version)), &by, now)?;
    Ok(())
}

fn removed(tx: &Tx<'_>, mut binding: Binding, now: Timestamp) -> Result<(), Error> {
    tx.close_holdings(&binding.id, None, "confirmed removal", now)?;
    tx.void_evidence(&binding.id)?;
    if binding.progress.state == BindingState::Proven && binding.running.is_none() {
        return Ok(());
    }
    binding.running = None;
    binding.last_proven = None;
    binding.proven_at = None;
    binding.rung = None;
    binding.references = 0;
    binding.progress.state = BindingState::Proven;
    binding.progress.at = now;
    binding.progress.failure = None;
    tx.put_binding(&binding)?;
    Ok(())
}

/// A foreign text for people, as long as a status may be.
fn text(foreign: &str) -> String {
    text_within(foreign, TEXT_CHARS_MAX)
}

/// A foreign text for people: masked once more, and of bounded length. It is cut before too, between two words, because
/// masking takes its time and the text may be as long as a message.
fn text_within(foreign: &str, chars_max: usize) -> String {
    let end = foreign.char_indices().nth(READ_TIMES * chars_max);
    let begin = end.and_then(|(end, _)| foreign.get(..end));
    let begin = begin.map_or(foreign, |begin| {
        begin
            .rsplit_once(char::is_whitespace)
            .map_or(begin, |(words, _)| words)
    });
    scrub(begin).chars().take(chars_max).collect()
}
