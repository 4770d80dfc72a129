//! The request log: a ring of the latest requests and exact counters that never forget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};

use crate::reply::{Call, Reply};

/// How many requests the ring keeps unless told otherwise.
pub(crate) const CAPACITY: usize = 50_000;
/// A longer body is logged as its length, so that a full ring stays small.
const BODY_BYTES_MAX: usize = 8_192;
const REMOVED: &str = "[removed]";
/// The classes of requests that make a provider work.
const RUNS: [&str; 3] = ["execute", "inference_call", "chat"];

/// One request as the log shows it; a `status` of `null` means that no answer was given (yet).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    pub(crate) method: String,
    pub(crate) path: String,
    /// What kind of route it is, for example `connector` or `execute`.
    pub(crate) class: &'static str,
    pub(crate) space: Option<String>,
    pub(crate) connector_id: Option<String>,
    /// The body as JSON with every secret removed.
    pub(crate) body: Value,
    pub(crate) status: Option<u16>,
}

#[derive(Default)]
struct Ring {
    next: u64,
    entries: VecDeque<Entry>,
    counters: BTreeMap<Kind, u64>,
    now: Crowd,
    most: Crowd,
    /// How many writes each connector has under way.
    writing: BTreeMap<String, u64>,
    writes_per_connector_max: u64,
}

/// What is counted as one: method, class and space of a request.
type Kind = (String, &'static str, Option<String>);

/// How many requests are under way.
#[derive(Debug, Default, Clone, Copy)]
struct Crowd {
    all: u64,
    writes: u64,
    runs: u64,
}

impl Crowd {
    fn most(self, other: Self) -> Self {
        Self {
            all: self.all.max(other.all),
            writes: self.writes.max(other.writes),
            runs: self.runs.max(other.runs),
        }
    }
}

/// A request that is under way until this is dropped.
pub(crate) struct InFlight<'a> {
    log: &'a Log,
    is_write: bool,
    is_run: bool,
    connector_id: Option<String>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut ring = self.log.lock();
        ring.now.all -= 1;
        ring.now.writes -= u64::from(self.is_write);
        ring.now.runs -= u64::from(self.is_run);
        let Some(id) = &self.connector_id else {
            return;
        };
        match ring.writing.get_mut(id) {
            Some(n_writes) if *n_writes > 1 => *n_writes -= 1,
            Some(_) | None => {
                ring.writing.remove(id);
            }
        }
    }
}

/// The log of one simulator.
pub(crate) struct Log {
    capacity: usize,
    ring: Mutex<Ring>,
}

/// Where a request belongs; the server that got it knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) class: &'static str,
    pub(crate) space: Option<String>,
    pub(crate) connector_id: Option<String>,
}

impl Log {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            ring: Mutex::default(),
        }
    }

    /// Notes a request before it is answered, so that one that never gets an answer is seen too.
    pub(crate) fn begin(&self, call: &Call, place: Place) -> u64 {
        let mut ring = self.lock();
        let seq = ring.next;
        ring.next += 1;
        *ring
            .counters
            .entry((call.method.to_string(), place.class, place.space.clone()))
            .or_default() += 1;
        if ring.entries.len() >= self.capacity {
            ring.entries.pop_front();
        }
        ring.entries.push_back(Entry {
            seq,
            at_ms: now_ms(),
            method: call.method.to_string(),
            path: call.path.clone(),
            class: place.class,
            space: place.space,
            connector_id: place.connector_id,
            body: loggable(call),
            status: None,
        });
        seq
    }

    /// Counts a request as being under way until the guard is dropped.
    pub(crate) fn enter(&self, call: &Call, place: &Place) -> InFlight<'_> {
        let is_run = RUNS.contains(&place.class);
        let is_write = !call.method.is_safe() && !is_run;
        let connector_id = place.connector_id.clone().filter(|_| is_write);
        let mut ring = self.lock();
        ring.now.all += 1;
        ring.now.writes += u64::from(is_write);
        ring.now.runs += u64::from(is_run);
        ring.most = ring.most.most(ring.now);
        if let Some(id) = &connector_id {
            let n_writes = ring.writing.entry(id.clone()).or_default();
            *n_writes += 1;
            let n_writes = *n_writes;
            ring.writes_per_connector_max = ring.writes_per_connector_max.max(n_writes);
        }
        InFlight {
            log: self,
            is_write,
            is_run,
            connector_id,
        }
    }

    /// Notes the status a request was answered with.
    pub(crate) fn finish(&self, seq: u64, status: u16) {
        let mut ring = self.lock();
        let Some(first) = ring.entries.front().map(|entry| entry.seq) else {
            return;
        };
        let index = seq
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| ring.entries.get_mut(index)) {
            entry.status = Some(status);
        }
    }

    /// Answers `/_sim/requests` and what is below it; `None` for any other path.
    pub(crate) fn answer(&self, call: &Call) -> Option<Reply> {
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/_sim/requests") => Some(self.list(call)),
            ("GET", "/_sim/requests/count") => Some(self.count(call)),
            ("GET", "/_sim/requests/counts") => Some(self.counts(call)),
            ("DELETE", "/_sim/requests") => {
                self.forget();
                Some(Reply::empty())
            }
            _ => None,
        }
    }

    fn list(&self, call: &Call) -> Reply {
        let filter = match Filter::read(call) {
            Ok(filter) => filter,
            Err(reply) => return reply,
        };
        let ring = self.lock();
        let entries: Vec<&Entry> = ring
            .entries
            .iter()
            .filter(|entry| filter.matches(entry))
            .collect();
        Reply::json(200, &json!(entries))
    }

    /// Empties the log and its counters; what is under way stays so.
    fn forget(&self) {
        let mut ring = self.lock();
        *ring = Ring {
            now: ring.now,
            most: ring.now,
            writes_per_connector_max: ring.writing.values().copied().max().unwrap_or_default(),
            writing: std::mem::take(&mut ring.writing),
            ..Ring::default()
        };
    }

    /// Every counter, and the most that was ever under way at once.
    fn counts(&self, call: &Call) -> Reply {
        let filter = match Filter::read(call) {
            Ok(filter) if filter.needs_entries() => {
                let text = "only `method`, `class` and `space` can be asked for here";
                return Reply::sim_error(400, text);
            }
            Ok(filter) => filter,
            Err(reply) => return reply,
        };
        let ring = self.lock();
        let rows: Vec<Value> = ring
            .counters
            .iter()
            .filter(|(kind, _)| filter.counts(kind))
            .map(|((method, class, space), count)| {
                json!({ "method": method, "class": class, "space": space, "count": count })
            })
            .collect();
        Reply::json(
            200,
            &json!({
                "total": rows.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>(),
                "in_flight": ring.now.all,
                "in_flight_max": ring.most.all,
                "writes_in_flight_max": ring.most.writes,
                "runs_in_flight_max": ring.most.runs,
                "writes_per_connector_max": ring.writes_per_connector_max,
                "counts": rows,
            }),
        )
    }

    /// Counts from the counters when only method, class and space are asked for, else from what the ring still holds.
    fn count(&self, call: &Call) -> Reply {
        let filter = match Filter::read(call) {
            Ok(filter) => filter,
            Err(reply) => return reply,
        };
        let ring = self.lock();
        let forgotten = ring.next > u64::try_from(ring.entries.len()).unwrap_or(u64::MAX);
        if filter.needs_entries() {
            let count = ring
                .entries
                .iter()
                .filter(|entry| filter.matches(entry))
                .count();
            return Reply::json(200, &json!({ "count": count, "exact": !forgotten }));
        }
        let count: u64 = ring
            .counters
            .iter()
            .filter(|(kind, _)| filter.counts(kind))
            .map(|(_, count)| count)
            .sum();
        Reply::json(200, &json!({ "count": count, "exact": true }))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The query of a log request: what an entry must have.
struct Filter {
    method: Option<String>,
    class: Option<String>,
    path_contains: Option<String>,
    space: Option<String>,
    connector_id: Option<String>,
    status: Option<u16>,
    /// Only entries with a greater sequence number.
    after: Option<u64>,
}

impl Filter {
    const KEYS: [&'static str; 7] = [
        "method",
        "class",
        "path_contains",
        "space",
        "connector_id",
        "status",
        "after",
    ];

    fn read(call: &Call) -> Result<Self, Reply> {
        for (key, _) in url::form_urlencoded::parse(call.query.as_bytes()) {
            if !Self::KEYS.contains(&key.as_ref()) {
                let known = Self::KEYS.join(", ");
                let text = format!("unknown parameter `{key}`, expected one of {known}");
                return Err(Reply::sim_error(400, &text));
            }
        }
        Ok(Self {
            method: call.parameter("method"),
            class: call.parameter("class"),
            path_contains: call.parameter("path_contains"),
            space: call.parameter("space"),
            connector_id: call.parameter("connector_id"),
            status: number(call, "status")?,
            after: number(call, "after")?,
        })
    }

    fn needs_entries(&self) -> bool {
        self.path_contains.is_some()
            || self.connector_id.is_some()
            || self.status.is_some()
            || self.after.is_some()
    }

    fn counts(&self, (method, class, space): &Kind) -> bool {
        self.method_is(method)
            && self.class_is(class)
            && (self.space.is_none() || self.space == *space)
    }

    fn method_is(&self, method: &str) -> bool {
        self.method
            .as_ref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
    }

    fn class_is(&self, class: &str) -> bool {
        self.class.as_ref().is_none_or(|wanted| wanted == class)
    }

    fn matches(&self, entry: &Entry) -> bool {
        self.method_is(&entry.method)
            && self.class_is(entry.class)
            && self
                .path_contains
                .as_ref()
                .is_none_or(|part| entry.path.contains(part))
            && (self.space.is_none() || self.space == entry.space)
            && (self.connector_id.is_none() || self.connector_id == entry.connector_id)
            && (self.status.is_none() || self.status == entry.status)
            && self.after.is_none_or(|after| entry.seq > after)
    }
}

fn number<T: std::str::FromStr>(call: &Call, name: &str) -> Result<Option<T>, Reply> {
    let Some(text) = call.parameter(name) else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|_| Reply::sim_error(400, &format!("parameter `{name}` is not a number")))
}

/// The body as the log keeps it.
fn loggable(call: &Call) -> Value {
    match call.body.as_ref().map(Vec::len) {
        Some(n_bytes) if n_bytes > BODY_BYTES_MAX => Value::from(format!("[{n_bytes} bytes]")),
        Some(_) => call.json().map_or(Value::Null, without_secrets),
        None => Value::from("[too long]"),
    }
}

/// The same JSON without a secret: all below `secrets` goes, and so does any text that holds a key.
fn without_secrets(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| match key.as_str() {
                "secrets" => (key, removed(&value)),
                "api_key" => (key, Value::from(REMOVED)),
                _ => (key, without_secrets(value)),
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(without_secrets).collect(),
        Value::String(ref text) if holds_key(text) => Value::from(REMOVED),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Whether a word of the text has the shape of an OpenAI key.
fn holds_key(text: &str) -> bool {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.split(|c| !in_word(c))
        .any(|word| word.starts_with("sk-") && word.len() > 10)
}

/// Keeps the names of the secrets, which a test may want to see, and drops every value.
fn removed(value: &Value) -> Value {
    let names = value.as_object().map(|map| {
        map.keys()
            .map(|key| (key.clone(), Value::from(REMOVED)))
            .collect()
    });
    names.unwrap_or_else(|| Value::from(REMOVED))
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}
