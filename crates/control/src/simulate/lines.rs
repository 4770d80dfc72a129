//! The network: messages of a session keep their order, sessions do not; a message that is lost takes its session along.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::DeploymentId;
use keyfleet_proto::v1;
use v1::agent_message::Message as FromAgent;
use v1::control_message::Message as ToAgent;

use super::{Event, Simulation};

/// How long a message takes on average.
const TRAVEL: Duration = Duration::from_millis(40);

/// How long an agent stays away on average before it dials again.
const REDIAL: Duration = Duration::from_secs(2);

/// How long control takes on average to notice that a session is dead: keepalives are this far apart.
const HALF_OPEN: Duration = Duration::from_secs(10);

/// What is known of the wires.
#[derive(Debug, Default)]
pub(super) struct Lines {
    n_sessions: u64,
    /// When the last message of a session arrives, at control and at the agent.
    last: BTreeMap<u64, (Timestamp, Timestamp)>,
}

impl Simulation {
    /// An agent opens a session, where it can; false where it cannot.
    pub(super) fn dial(&mut self, id: DeploymentId) -> bool {
        let Some(agent) = self.agents.get_mut(&id) else {
            return false;
        };
        if agent.session.is_some() || !agent.has_network || !agent.is_running {
            return false;
        }
        if !self.is_up {
            let wait = self.random.about(REDIAL);
            self.push(wait, Event::Dial(id));
            return false;
        }
        self.lines.n_sessions += 1;
        let session = self.lines.n_sessions;
        self.lines.last.insert(session, (self.now, self.now));
        agent.session = Some(session);
        let hello = agent.hello();
        self.send_control(id, session, FromAgent::Hello(hello));
        self.go_on(id);
        true
    }

    /// An agent says something.
    pub(super) fn send_control(&mut self, id: DeploymentId, session: u64, message: FromAgent) {
        if self.is_lost(id, session) {
            return;
        }
        let at = self.arrival(session, true);
        self.push_at(at, Event::ToControl(id, session, Box::new(message)));
    }

    /// Control says something.
    pub(super) fn send_agent(&mut self, id: DeploymentId, session: u64, message: ToAgent) {
        if self.is_lost(id, session) {
            return;
        }
        let at = self.arrival(session, false);
        self.push_at(at, Event::ToAgent(id, session, Box::new(message)));
    }

    fn is_lost(&mut self, id: DeploymentId, session: u64) -> bool {
        // What is said into a session that is dead already is lost too.
        let is_dead = self
            .agents
            .get(&id)
            .is_none_or(|agent| agent.session != Some(session));
        if is_dead {
            return true;
        }
        let is_lost = self.random.chance(self.loss);
        if is_lost {
            self.note_of(id, || {
                "a message is lost, and its session with it".to_owned()
            });
            self.break_session(id);
        }
        is_lost
    }

    fn arrival(&mut self, session: u64, at_control: bool) -> Timestamp {
        let travel = self.random.about(TRAVEL);
        let at = self.now.checked_add(travel).unwrap_or(Timestamp::MAX);
        let last = self.lines.last.entry(session).or_insert((at, at));
        let last = if at_control { &mut last.0 } else { &mut last.1 };
        *last = at.max(*last);
        *last
    }

    /// The session of an agent breaks: what is under way may still arrive up to some message, and late; the agent
    /// dials again, and control notices by and by.
    pub(super) fn break_session(&mut self, id: DeploymentId) {
        let Some(session) = self
            .agents
            .get_mut(&id)
            .and_then(|agent| agent.session.take())
        else {
            return;
        };
        self.lines.last.remove(&session);
        let mine = |event: &Event| matches!(event, Event::ToControl(of, number, _) if *of == id && *number == session);
        let flying: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, event)| mine(event))
            .map(|(key, _)| *key)
            .collect();
        let n_arriving = self
            .random
            .below(u64::try_from(flying.len()).unwrap_or(0) + 1);
        let mut at = self.now;
        for (index, key) in (0_u64..).zip(flying) {
            let Some(event) = self.queue.remove(&key) else {
                continue;
            };
            if index < n_arriving {
                let late = self.random.about(REDIAL);
                at = at.checked_add(late).unwrap_or(at);
                self.push_at(at, event);
            }
        }
        let notices = self.random.about(HALF_OPEN);
        self.push(notices, Event::Gone(id, session));
        let redials = self.random.about(REDIAL);
        self.push(redials, Event::Dial(id));
    }
}
