//! What a model agent hears, and what it makes of it.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{Generation, KeyVersion};
use keyfleet_proto::{Invalid, v1};
use v1::control_message::Message as ToAgent;

use super::goal::{Slot, goal_of};
use super::{Agent, Memory};
use crate::simulate::kibana::{KeyId, Place};

impl Agent {
    /// Control says something.
    pub(crate) fn hear(&mut self, message: ToAgent, now: Timestamp) {
        match message {
            ToAgent::Welcome(welcome) => {
                self.memory.andon = welcome.andon;
                self.memory.is_welcome = true;
                self.memory.asked.clear();
                if welcome.report_full_state {
                    self.memory.outbox.report_everything();
                }
            }
            ToAgent::Desired(desired) => self.on_desired(desired, now),
            ToAgent::SealedKey(sealed) => {
                if let Ok(name) = sealed.key.parse() {
                    let key = (name, KeyVersion(sealed.version));
                    self.memory.asked.remove(&key);
                    if self.names(&key) {
                        self.memory.keys.insert(key);
                    }
                }
            }
            ToAgent::StatusAnswer(answer) => {
                self.memory.outbox.acknowledge(answer.sequence);
                if answer.report_full_state {
                    self.memory.outbox.report_everything();
                }
            }
            ToAgent::Andon(andon) => self.memory.andon = andon.on,
            ToAgent::KeyRefused(_)
            | ToAgent::GoAway(_)
            | ToAgent::RenewNow(_)
            | ToAgent::ProbeGrant(_)
            | ToAgent::CheckNow(_) => {}
            ToAgent::ProveNow(prove) => self.prove_again(prove.older_than_secs, now),
        }
    }

    /// What was proven longer ago is proven anew.
    fn prove_again(&mut self, older_than_secs: u32, now: Timestamp) {
        for entry in self.disk.entries.values_mut() {
            let Some(applied) = &mut entry.applied else {
                continue;
            };
            let is_old = |at: Timestamp| {
                now.as_second().saturating_sub(at.as_second()) > older_than_secs.into()
            };
            if applied.proven_at.is_some_and(is_old) {
                applied.proven_at = None;
            }
        }
    }

    fn names(&self, (name, version): &KeyId) -> bool {
        let wishes = self.memory.slots.values().map(|slot| &slot.wish);
        let mut named = wishes.filter_map(|wish| Some((&wish.key, wish.assignment?)));
        named.any(|(key, told)| key == name.as_str() && told.key_version == version.0)
    }

    fn on_desired(&mut self, desired: v1::Desired, now: Timestamp) {
        let mut answer = v1::DesiredAnswer {
            generation: desired.generation,
            digest: desired.digest.clone(),
            rejected: String::new(),
        };
        match self.judge(&desired) {
            Ok(true) => {
                self.disk.rejected = None;
                self.memory.desired_at = Some(now);
                self.adopt(desired);
            }
            Ok(false) => {}
            Err(why) => {
                answer.rejected = why;
                self.disk.rejected = Some(answer.clone());
            }
        }
        self.memory.outbox.answer(answer);
    }

    /// True where it is new.
    fn judge(&self, new: &v1::Desired) -> Result<bool, String> {
        if self.rejects {
            return Err("this agent's rules refuse the document".to_owned());
        }
        let generation =
            |desired: &v1::Desired| Generation::from(desired.generation.unwrap_or_default());
        let Some(held) = &self.disk.desired else {
            return Ok(true);
        };
        let (new_one, old_one) = (generation(new), generation(held));
        if new_one < old_one {
            return Err(format!("generation {new_one} is older than {old_one}"));
        } else if new_one > old_one {
            return Ok(true);
        } else if new.digest == held.digest {
            return Ok(false);
        }
        Err(format!(
            "generation {new_one} came before with another content"
        ))
    }

    /// Makes this the desired state. What did not change goes on undisturbed.
    pub(super) fn adopt(&mut self, desired: v1::Desired) {
        let wishes: BTreeMap<Place, v1::DesiredBinding> = desired
            .bindings
            .iter()
            .filter_map(|wish| Some((place_of(wish).ok()?, wish.clone())))
            .collect();
        let Memory { slots, outbox, .. } = &mut self.memory;
        slots.retain(|place, _| {
            let stays = wishes.contains_key(place);
            if !stays {
                outbox.forget(place);
            }
            stays
        });
        for (place, wish) in wishes {
            match self.memory.slots.get(&place) {
                Some(slot) if goal_of(&slot.wish) == goal_of(&wish) && !wish.remove => {
                    self.memory.outbox.renew(&place, desired.generation);
                    if slot.wish == wish {
                        continue;
                    }
                }
                Some(_) => {
                    self.memory.outbox.forget(&place);
                    self.disk.entries.entry(place.clone()).or_default().failure = None;
                }
                None => {}
            }
            self.memory.serial += 1;
            let slot = Slot::new(wish, self.memory.serial);
            self.memory.slots.insert(place, slot);
        }
        self.disk.desired = Some(desired);
        let kept: Vec<KeyId> = self.memory.keys.iter().cloned().collect();
        for key in kept {
            if !self.names(&key) {
                self.memory.keys.remove(&key);
            }
        }
    }
}

fn place_of(wish: &v1::DesiredBinding) -> Result<Place, Invalid> {
    let reference = wish.binding.as_ref();
    let reference = reference.ok_or_else(|| Invalid::missing("binding"))?;
    Ok((
        Invalid::parse("space", &reference.space)?,
        Invalid::parse("connector", &reference.connector)?,
    ))
}
