//! Which starts of an agent had a deployment's place: how two agents with one identity are told from one that was
//! restarted.
//!
//! Each start of an agent's process has a boot id of its own, and a process that was replaced never comes back. Two
//! agents that live at the same time do: each takes the place from the other.

use std::collections::VecDeque;

/// Older starts that are remembered. Two agents in turn need two; but who has stolen an identity may begin a session
/// under a new name every second, and must not outrun the way back of the rightful agent by that.
const OLDER_MAX: usize = 64;

/// The starts of one deployment's agent.
#[derive(Default)]
pub(super) struct Boots {
    last: Option<String>,
    /// Those that another took over from.
    older: VecDeque<String>,
}

impl Boots {
    /// True where another took over from this boot.
    pub(super) fn is_back(&self, boot: &str) -> bool {
        self.older.iter().any(|older| older == boot)
    }

    /// A session of this boot begins; true where another had taken over from it before.
    pub(super) fn begin(&mut self, boot: &str) -> bool {
        let is_back = self.is_back(boot);
        self.older.retain(|older| older != boot);
        match self.last.replace(boot.to_owned()) {
            Some(last) if last != boot => self.older.push_back(last),
            Some(_) | None => {}
        }
        if self.older.len() > OLDER_MAX {
            self.older.pop_front();
        }
        is_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(boots: &[&str], back: &[bool]) {
        let mut seen = Boots::default();
        let found: Vec<bool> = boots.iter().map(|boot| seen.begin(boot)).collect();
        assert_eq!(found, back, "{boots:?}");
    }

    #[test]
    fn only_who_comes_back_behind_another_is_one_too_many() {
        check(&["a", "a", "a"], &[false, false, false]);
        check(&["a", "b", "b", "c"], &[false, false, false, false]);
        check(&["a", "b", "a"], &[false, false, true]);
        check(&["a", "b", "a", "b"], &[false, false, true, true]);
        check(&["a", "b", "c", "b"], &[false, false, false, true]);
    }
}
