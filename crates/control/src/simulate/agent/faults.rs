//! What tests do to a model agent, and ask it.

use std::collections::BTreeSet;

use keyfleet_core::id::Generation;

use super::{Agent, Memory, Task};
use crate::simulate::kibana::KeyId;
use crate::simulate::random::Random;

impl Agent {
    /// The keys in its memory.
    pub(crate) fn keys(&self) -> &BTreeSet<KeyId> {
        &self.memory.keys
    }

    /// The generation it has.
    pub(crate) fn generation(&self) -> Option<Generation> {
        let desired = self.disk.desired.as_ref();
        desired.and_then(|desired| desired.generation.map(Into::into))
    }

    /// Its process dies. A write in flight may have been carried out all the same.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for (place, job) in std::mem::take(&mut self.memory.busy) {
            if self.kibana.is_down || !random.chance(5_000) {
                continue;
            }
            match job.task {
                Task::Write(goal, key) => self.kibana.write(&place, goal.held(key)),
                Task::Delete => self.kibana.delete(&place),
                Task::Baseline | Task::Prove(_) => {}
            }
        }
        (self.is_running, self.session) = (false, None);
        self.memory = Memory {
            andon: true,
            ..Memory::default()
        };
    }

    /// Its process starts again, with what it kept.
    pub(crate) fn start(&mut self) {
        self.boot += 1;
        self.is_running = true;
        if let Some(desired) = self.disk.desired.clone() {
            self.adopt(desired);
        }
        // Nobody knows whether control heard it before the agent ended.
        if let Some(answer) = self.disk.rejected.clone() {
            self.memory.outbox.answer(answer);
        }
    }

    /// Control asked for nothing, and hears everything again.
    pub(crate) fn repeat_everything(&mut self) {
        self.memory.outbox.report_everything();
    }

    /// What held it back is over: everything is tried again at once.
    pub(crate) fn try_again(&mut self) {
        for slot in self.memory.slots.values_mut() {
            (slot.strain, slot.n_failures) = (None, 0);
        }
    }
}
