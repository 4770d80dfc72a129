//! How many live calls the whole fleet makes a minute: agents ask, wait for their turn, and get a few at a time.
//!
//! First come, first served: whoever got some goes to the end of the line. One bucket of tokens for all, so that no
//! provider sees more than the setting says, however many agents there are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyfleet_core::id::DeploymentId;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most calls of one grant: an agent with many connectors does not keep the others waiting.
const GRANT_MAX: u32 = 10;

/// A wait that is longer than this is worth a sentence.
const LONG: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);

/// The pace of the fleet; cheap to clone.
#[derive(Clone)]
pub(crate) struct Pace {
    per_minute: u32,
    line: Arc<Mutex<Line>>,
}

/// Who waits, and what is left.
struct Line {
    next: u64,
    waiting: VecDeque<Waiting>,
    /// When each got something last.
    granted: BTreeMap<DeploymentId, Instant>,
    tokens: u32,
    /// Up to here what was earned is counted.
    filled_at: Instant,
}

struct Waiting {
    number: u64,
    deployment: DeploymentId,
    since: Instant,
    /// Told when it becomes the first.
    first: Arc<Notify>,
}

/// A place in the line; leaving is dropping it.
struct Place {
    pace: Pace,
    number: u64,
    first: Arc<Notify>,
}

impl Pace {
    /// `per_minute` of 0 = no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        let line = Line {
            next: 0,
            waiting: VecDeque::new(),
            granted: BTreeMap::new(),
            tokens: per_minute.min(GRANT_MAX),
            filled_at: Instant::now(),
        };
        Self {
            per_minute,
            line: Arc::new(Mutex::new(line)),
        }
    }

    /// True where agents must ask before they make a live call.
    pub(crate) fn is_limited(&self) -> bool {
        self.per_minute > 0
    }

    /// Waits for the turn of an agent that wants to make `count` live calls, and takes what it may make now: at least
    /// one, at most ten. Whoever stops waiting has taken nothing.
    pub(crate) async fn turn(self, deployment: DeploymentId, count: u32) -> u32 {
        let wanted = count.clamp(1, GRANT_MAX);
        if !self.is_limited() {
            return wanted;
        }
        let place = self.join(deployment);
        loop {
            match self.try_take(&place, wanted) {
                Ok(granted) => return granted,
                // Cancel-safe: nothing is taken before the next round.
                Err(Some(until)) => tokio::time::sleep_until(until).await,
                Err(None) => place.first.notified().await,
            }
        }
    }

    /// The deployments whose agents have waited for more than a minute, and how long the first of them has.
    pub(crate) fn held_up(&self) -> (Vec<DeploymentId>, Duration) {
        let (line, now) = (self.lock(), Instant::now());
        let waited = |waiting: &Waiting| now.saturating_duration_since(waiting.since);
        let long = line.waiting.iter().filter(|w| waited(w) > LONG);
        let longest = line.waiting.iter().map(waited).max();
        (
            long.map(|waiting| waiting.deployment).collect(),
            longest.unwrap_or_default(),
        )
    }

    /// How long ago each got its turn; zero for those that wait for it. Nobody is late with what others hold up: the
    /// deadlines of live calls count from here. Without a limit nobody waits, and nobody is listed.
    pub(crate) fn turns(&self) -> BTreeMap<DeploymentId, Duration> {
        let (line, now) = (self.lock(), Instant::now());
        let granted = line.granted.iter();
        let mut turns: BTreeMap<_, _> = granted
            .map(|(id, at)| (*id, now.saturating_duration_since(*at)))
            .collect();
        let waiting = line.waiting.iter();
        turns.extend(waiting.map(|waiting| (waiting.deployment, Duration::ZERO)));
        turns
    }

    /// Calls a minute, all agents together.
    pub(crate) fn per_minute(&self) -> u32 {
        self.per_minute
    }

    fn join(&self, deployment: DeploymentId) -> Place {
        let mut line = self.lock();
        line.next += 1;
        let (number, first) = (line.next, Arc::new(Notify::new()));
        line.waiting.push_back(Waiting {
            number,
            deployment,
            since: Instant::now(),
            first: first.clone(),
        });
        Place {
            pace: self.clone(),
            number,
            first,
        }
    }

    /// What the first of the line may have now; else when there is something for it, or `None` where others are before.
    fn try_take(&self, place: &Place, wanted: u32) -> Result<u32, Option<Instant>> {
        let mut line = self.lock();
        let is_first = line.waiting.front().map(|it| it.number) == Some(place.number);
        if !is_first {
            return Err(None);
        }
        let each = MINUTE / self.per_minute;
        line.fill(each, self.per_minute.min(GRANT_MAX));
        if line.tokens == 0 {
            return Err(Some(line.filled_at + each));
        }
        let granted = wanted.min(line.tokens);
        line.tokens -= granted;
        let now = Instant::now();
        if let Some(deployment) = line.waiting.front().map(|it| it.deployment) {
            line.granted.insert(deployment, now);
        }
        Ok(granted)
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn fill(&mut self, each: Duration, most: u32) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.filled_at);
        // A pace of more than one a nanosecond is none.
        let earned = passed.as_nanos() / each.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned >= most - self.tokens {
            (self.tokens, self.filled_at) = (most, now);
        } else {
            self.tokens += earned;
            self.filled_at += each * earned;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.pace.lock();
        line.waiting.retain(|it| it.number != self.number);
        if let Some(first) = line.waiting.front() {
            first.first.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use uuid::Uuid;

    fn id(number: u128) -> DeploymentId {
        DeploymentId::new(Uuid::from_u128(number))
    }

    /// Asks until it has made `calls` live calls; when each was made, in milliseconds.
    async fn agent(pace: &Pace, number: u128, calls: u32) -> Vec<u128> {
        let begin = Instant::now();
        let mut made = Vec::new();
        while let Some(left) = calls.checked_sub(u32::try_from(made.len()).unwrap()) {
            if left == 0 {
                break;
            }
            let granted = pace.clone().turn(id(number), left).await;
            assert!((1..=GRANT_MAX.min(left)).contains(&granted));
            made.extend((0..granted).map(|_| begin.elapsed().as_millis()));
        }
        made
    }

    #[tokio::test(start_paused = true)]
    async fn the_fleet_never_makes_more_than_the_setting_says() {
        let pace = Pace::new(600);
        let begin = Instant::now();
        let agents = (0..50).map(|number| agent(&pace, number, 30));
        let mut made: Vec<u128> = join_all(agents).await.concat();
        made.sort_unstable();
        assert_eq!(made.len(), 1_500);
        let took = begin.elapsed().as_secs_f64();
        assert!((148.0..151.0).contains(&took), "{took}");
        for (index, at) in made.iter().enumerate() {
            let within = made[index..].iter().take_while(|it| **it < at + 60_000);
            assert!(within.count() <= 610, "from {at} on");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_much_and_who_wants_little_take_turns() {
        let pace = Pace::new(60);
        let greedy = agent(&pace, 1, 500);
        let modest = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            let begin = Instant::now();
            agent(&pace, 2, 3).await;
            begin.elapsed()
        };
        tokio::select! {
            _ = greedy => panic!("500 calls at 60 a minute take longer"),
            waited = modest => assert!(waited < Duration::from_secs(8), "{waited:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_nothing_and_holds_nobody_up() {
        let pace = Pace::new(6);
        assert_eq!(pace.clone().turn(id(1), 100).await, 6);
        for number in 0..100 {
            let turn = pace.clone().turn(id(number), 10);
            let left = tokio::time::timeout(Duration::from_millis(1), turn).await;
            assert!(left.is_err(), "the bucket is empty");
        }
        let begin = Instant::now();
        assert_eq!(pace.clone().turn(id(2), 10).await, 1);
        assert!(begin.elapsed() <= Duration::from_secs(10));
        assert!(pace.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_its_turn_is_not_late() {
        let pace = Pace::new(1);
        assert_eq!(pace.clone().turn(id(1), 1).await, 1);
        let watch = async {
            tokio::time::sleep(Duration::from_secs(45)).await;
            let turns = pace.turns();
            assert_eq!((turns[&id(1)].as_secs(), turns[&id(2)].as_secs()), (45, 0));
        };
        tokio::join!(pace.clone().turn(id(2), 1), watch);
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(pace.turns()[&id(2)].as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_told() {
        let pace = Pace::new(1);
        assert_eq!(pace.clone().turn(id(1), 1).await, 1);
        let wait = join_all((2..5).map(|number| pace.clone().turn(id(number), 1)));
        let watch = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(pace.held_up().0, []);
            tokio::time::sleep(Duration::from_secs(60)).await;
            let (long, longest) = pace.held_up();
            assert_eq!((long, longest.as_secs()), (vec![id(3), id(4)], 90));
        };
        tokio::select! {
            _ = wait => panic!("three calls at one a minute take three minutes"),
            () = watch => {}
        }
        assert_eq!(pace.held_up().0, [], "who has gone does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_is_no_wait() {
        let pace = Pace::new(0);
        assert_eq!(pace.clone().turn(id(1), 1_000_000).await, GRANT_MAX);
        assert_eq!(pace.turn(id(1), 0).await, 1);
    }
}
