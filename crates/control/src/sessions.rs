//! The connected agents, in memory: liveness is judged here and nowhere else.

mod boots;
mod looks;
mod pace;
mod proofs;
pub(crate) mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::Timestamp;
use keyfleet_core::id::DeploymentId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::limits::Bucket;
use boots::Boots;
pub(crate) use looks::Look;
use looks::Looks;
pub(crate) use pace::Pace;
use proofs::Proofs;

/// New sessions a second: a fleet of 10,000 is back within half a minute, and operators' calls stay quick meanwhile.
const ADMITTED_PER_SECOND: u32 = 500;

/// Sessions that may begin at once after a quiet second.
const ADMITTED_AT_ONCE: u32 = 1_000;

/// An agent that is not admitted comes back after this long, spread by its own jitter.
const COME_BACK: Duration = Duration::from_secs(5);

/// How soon the second of two agents with one identity may try again while an operator decides: only one has a
/// session, and neither gets keys.
const CLONE_COMES_BACK: Duration = Duration::from_secs(60);

/// Sessions that one deployment may begin at once, and one a second after that: nobody's agent keeps the others out, and
/// who has stolen its identity cannot make it forgotten by beginning many.
const SESSIONS_AT_ONCE: u32 = 20;

/// Certificates that one agent may ask for at once, and one a second after that: more is a fault or abuse.
const RENEWALS_AT_ONCE: u32 = 10;

/// Refused key requests of one agent that are written down at once, and one a second after that.
const REFUSALS_AT_ONCE: u32 = 20;

/// Every live session; cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions {
    live: Arc<Mutex<Live>>,
    /// The pace of the fleet's live calls.
    pub(crate) pace: Pace,
}

impl Sessions {
    /// `probes_per_minute` is for all agents together; 0 = no limit.
    pub(crate) fn new(probes_per_minute: u32) -> Self {
        let live = Live {
            next: 0,
            admission: Bucket::new(ADMITTED_PER_SECOND, ADMITTED_AT_ONCE, Instant::now()),
            left: BTreeMap::new(),
            by_deployment: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        Self {
            live: Arc::new(Mutex::new(live)),
            pace: Pace::new(probes_per_minute),
        }
    }
}

struct Live {
    next: u64,
    /// In front of the costly work of a new session.
    admission: Bucket,
    /// When agents that are away left.
    left: BTreeMap<DeploymentId, Timestamp>,
    by_deployment: BTreeMap<DeploymentId, Entry>,
    /// What outlives a session; a start of control forgets it.
    known: BTreeMap<DeploymentId, Known>,
}

/// What is known of a deployment's agent beside its session.
struct Known {
    boots: Boots,
    sessions: Bucket,
    renewals: Bucket,
    refusals: Bucket,
}

impl Default for Known {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            boots: Boots::default(),
            sessions: Bucket::new(1, SESSIONS_AT_ONCE, now),
            renewals: Bucket::new(1, RENEWALS_AT_ONCE, now),
            refusals: Bucket::new(1, REFUSALS_AT_ONCE, now),
        }
    }
}

/// Why a session is ended from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A newer session of the same deployment took the place.
    TakenOver,
    /// Its agent is not trusted any more; the sentence says why.
    Refused(String),
}

struct Entry {
    number: u64,
    boot: String,
    changed: Arc<Notify>,
    looks: Arc<Looks>,
    proofs: Arc<Proofs>,
    standings: Arc<AtomicU64>,
    end: CancellationToken,
    ending: Arc<OnceLock<Ending>>,
}

impl Entry {
    fn end(self, ending: Ending) {
        // The first reason stands.
        let _ = self.ending.set(ending);
        self.end.cancel();
    }
}

/// A session's place among the live ones; leaving is dropping it.
pub(crate) struct Seat {
    sessions: Sessions,
    deployment: DeploymentId,
    number: u64,
    /// Told when the deployment's desired state changed. One permit is kept: no change is missed.
    pub(crate) changed: Arc<Notify>,
    /// Told when somebody wants the agent to look at its Kibana.
    pub(crate) looks: Arc<Looks>,
    /// Told when proofs of the agent are too old.
    pub(crate) proofs: Arc<Proofs>,
    /// Counts changes of the deployment's standing.
    standings: Arc<AtomicU64>,
    /// Cancelled at the shutdown, and where somebody ended the session.
    pub(crate) end: CancellationToken,
    ending: Arc<OnceLock<Ending>>,
}

/// What a new session finds.
pub(crate) enum Entered {
    /// Its place.
    Seat(Seat),
    /// Its place, though another agent has taken over from it before: two agents use one identity.
    Back(Seat),
    /// Another agent of the same identity has the place while an operator decides: come back later.
    Held(Duration),
}

impl Seat {
    /// Why somebody ended the session; `None` = the shutdown.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get().cloned()
    }

    /// Changes when the standing of the deployment does: what was read before is out of date then.
    pub(crate) fn standings(&self) -> u64 {
        self.standings.load(Ordering::SeqCst)
    }

    /// The agent said what it found at its Kibana, and that is stored.
    pub(crate) fn found(&self, observed_at: Timestamp) {
        self.looks.found(observed_at);
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where a new session may begin now; else how long its agent should stay away. Who comes back behind another
    /// is never kept waiting by that one.
    pub(crate) fn admit(&self, deployment: DeploymentId, boot: &str) -> Option<Duration> {
        let (mut live, now) = (self.lock(), Instant::now());
        let known = live.known.entry(deployment).or_default();
        let may_begin = known.boots.is_back(boot) || known.sessions.take(now);
        (!may_begin || !live.admission.take(now)).then_some(COME_BACK)
    }

    /// Takes the deployment's place; an older session of it is told to end. While its standing is that two agents use
    /// its identity (`is_cloned`), whoever has the place keeps it.
    pub(crate) fn enter(
        &self,
        deployment: DeploymentId,
        boot: &str,
        is_cloned: bool,
        shutdown: &CancellationToken,
    ) -> Entered {
        let mut live = self.lock();
        let has_other = live
            .by_deployment
            .get(&deployment)
            .is_some_and(|entry| entry.boot != boot);
        if is_cloned && has_other {
            return Entered::Held(CLONE_COMES_BACK);
        }
        let is_back = live.known.entry(deployment).or_default().boots.begin(boot);
        live.next += 1;
        let number = live.next;
        let seat = Seat {
            sessions: self.clone(),
            deployment,
            number,
            changed: Arc::new(Notify::new()),
            looks: Arc::default(),
            proofs: Arc::default(),
            standings: Arc::new(AtomicU64::new(0)),
            end: shutdown.child_token(),
            ending: Arc::new(OnceLock::new()),
        };
        let entry = Entry {
            number,
            boot: boot.to_owned(),
            changed: seat.changed.clone(),
            looks: seat.looks.clone(),
            proofs: seat.proofs.clone(),
            standings: seat.standings.clone(),
            end: seat.end.clone(),
            ending: seat.ending.clone(),
        };
        live.left.remove(&deployment);
        if let Some(older) = live.by_deployment.insert(deployment, entry) {
            older.end(Ending::TakenOver);
        }
        drop(live);
        match is_back {
            true => Entered::Back(seat),
            false => Entered::Seat(seat),
        }
    }

    /// The standing of a deployment changed, and it is stored: its session sends nothing more before it has looked.
    pub(crate) fn standing_changed(&self, deployment: DeploymentId) {
        if let Some(entry) = self.lock().by_deployment.get(&deployment) {
            entry.standings.fetch_add(1, Ordering::SeqCst);
            entry.changed.notify_one();
        }
    }

    /// Ends the session of a deployment.
    pub(crate) fn end(&self, deployment: DeploymentId, why: &str) {
        let mut live = self.lock();
        if let Some(entry) = live.by_deployment.remove(&deployment) {
            live.left.insert(deployment, clock::now());
            entry.standings.fetch_add(1, Ordering::SeqCst);
            entry.end(Ending::Refused(why.to_owned()));
        }
    }

    /// Forgets which agents had the place of a deployment before: an operator has decided which is the right one.
    pub(crate) fn forget_boots(&self, deployment: DeploymentId) {
        self.lock().known.remove(&deployment);
    }

    /// True where the deployment's agent may ask for one more certificate.
    pub(crate) fn may_renew(&self, deployment: DeploymentId) -> bool {
        let mut live = self.lock();
        let known = live.known.entry(deployment).or_default();
        known.renewals.take(Instant::now())
    }

    /// True where one more refusal of the deployment's agent may be written down.
    pub(crate) fn may_note_refusal(&self, deployment: DeploymentId) -> bool {
        let mut live = self.lock();
        let known = live.known.entry(deployment).or_default();
        known.refusals.take(Instant::now())
    }

    /// Has the agent of a deployment look at its Kibana now; `None` where it is not connected.
    pub(crate) fn look(&self, deployment: DeploymentId) -> Option<Look> {
        let live = self.lock();
        let entry = live.by_deployment.get(&deployment)?;
        Some(entry.looks.ask())
    }

    /// Has the agents of these deployments prove what was proven longer ago than this; who is away is asked when it is
    /// needed again.
    pub(crate) fn ask_proofs(&self, deployments: &BTreeSet<DeploymentId>, older_than_secs: u32) {
        let live = self.lock();
        for deployment in deployments {
            if let Some(entry) = live.by_deployment.get(deployment) {
                entry.proofs.ask(older_than_secs);
            }
        }
    }

    /// The deployments whose agents are connected.
    pub(crate) fn online(&self) -> BTreeSet<DeploymentId> {
        let live = self.lock();
        live.by_deployment.keys().copied().collect()
    }

    /// When agents that are away left; what lies further back is in the database.
    pub(crate) fn left(&self) -> BTreeMap<DeploymentId, Timestamp> {
        self.lock().left.clone()
    }

    /// Takes those that left before `limit`, to be stored.
    pub(crate) fn take_left_before(&self, limit: Timestamp) -> BTreeMap<DeploymentId, Timestamp> {
        let mut live = self.lock();
        let (stored, kept) = std::mem::take(&mut live.left)
            .into_iter()
            .partition(|(_, at)| *at < limit);
        live.left = kept;
        stored
    }

    /// Tells the sessions of these deployments that their desired state changed.
    pub(crate) fn notify<'a>(&self, deployments: impl IntoIterator<Item = &'a DeploymentId>) {
        let live = self.lock();
        for deployment in deployments {
            if let Some(entry) = live.by_deployment.get(deployment) {
                entry.changed.notify_one();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = self.sessions.lock();
        let is_ours = live
            .by_deployment
            .get(&self.deployment)
            .is_some_and(|entry| entry.number == self.number);
        if is_ours {
            live.by_deployment.remove(&self.deployment);
            live.left.insert(self.deployment, clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        sessions: Sessions,
        shutdown: CancellationToken,
        deployment: DeploymentId,
    }

    impl World {
        fn new() -> Self {
            Self {
                sessions: Sessions::new(0),
                shutdown: CancellationToken::new(),
                deployment: DeploymentId::new(uuid::Uuid::from_u128(1)),
            }
        }

        fn enter(&self, boot: &str, is_cloned: bool) -> Entered {
            let Self {
                sessions,
                shutdown,
                deployment,
            } = self;
            sessions.enter(*deployment, boot, is_cloned, shutdown)
        }

        fn sit(&self, boot: &str) -> Seat {
            match self.enter(boot, false) {
                Entered::Seat(seat) => seat,
                Entered::Back(_) => panic!("{boot} is back"),
                Entered::Held(_) => panic!("{boot} is held"),
            }
        }
    }

    #[test]
    fn a_newer_session_ends_the_older_and_keeps_its_place() {
        let world = World::new();
        let (older, newer) = (world.sit("a"), world.sit("a"));
        assert!(older.end.is_cancelled() && !newer.end.is_cancelled());
        assert_eq!(
            (older.ending(), newer.ending()),
            (Some(Ending::TakenOver), None)
        );
        drop(older);
        assert!(world.sessions.online().contains(&world.deployment));
        drop(newer);
        assert!(world.sessions.online().is_empty());
    }

    #[test]
    fn an_agent_that_comes_back_behind_another_is_told_from_one_that_was_restarted() {
        let world = World::new();
        let _first = world.sit("a");
        let second = world.sit("b");
        let Entered::Back(_third) = world.enter("a", false) else {
            panic!("the first agent is back behind the second, and nobody noticed");
        };
        assert_eq!(second.ending(), Some(Ending::TakenOver));
        // While an operator decides, the place does not change hands any more.
        assert!(matches!(world.enter("b", true), Entered::Held(_)));
        assert!(matches!(world.enter("a", true), Entered::Seat(_)));
        world.sessions.forget_boots(world.deployment);
        let _decided = world.sit("b");
    }

    #[test]
    fn a_change_of_standing_is_seen_and_an_end_says_why() {
        let world = World::new();
        let seat = world.sit("a");
        let before = seat.standings();
        world.sessions.standing_changed(world.deployment);
        assert_ne!(seat.standings(), before);
        world.sessions.end(world.deployment, "revoked");
        assert_eq!(seat.ending(), Some(Ending::Refused("revoked".to_owned())));
        assert!(seat.end.is_cancelled() && world.sessions.online().is_empty());
        // Whoever ended it: a shutdown has no reason of its own.
        let other = world.sit("b");
        world.shutdown.cancel();
        assert!(other.end.is_cancelled() && other.ending().is_none());
    }

    #[test]
    fn who_begins_many_sessions_neither_hides_the_one_before_nor_keeps_others_out() {
        let world = World::new();
        let _rightful = world.sit("rightful");
        let mut begun = 0;
        for number in 0..5_000 {
            let boot = format!("stolen-{number}");
            if world.sessions.admit(world.deployment, &boot).is_none() {
                begun += 1;
                let _ = world.enter(&boot, false);
            }
        }
        assert!((SESSIONS_AT_ONCE..50).contains(&begun), "{begun}");
        let other = DeploymentId::new(uuid::Uuid::from_u128(2));
        assert_eq!(world.sessions.admit(other, "other"), None);
        assert_eq!(world.sessions.admit(world.deployment, "rightful"), None);
        assert!(matches!(world.enter("rightful", false), Entered::Back(_)));
    }

    #[test]
    fn one_agent_gets_so_many_certificates_and_no_more() {
        let world = World::new();
        let given = (0..100).filter(|_| world.sessions.may_renew(world.deployment));
        assert!((RENEWALS_AT_ONCE as usize..50).contains(&given.count()));
    }
}
