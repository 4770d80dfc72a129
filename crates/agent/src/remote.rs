//! Remote mode: one process is the agent of many Kibanas over the network.
//!
//! Each file of a directory, laid over a common one, is one deployment: with its own name, identity, state directory,
//! credentials and limits, as if it were a process of its own. Nothing that happens to one of them stops another: what
//! ends by an error or a bug begins again after a while, or as soon as its file changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keyfleet_telemetry::error_chain;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::config::{self, Config};

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A deployment that ended by an error is tried again: a person must act first, so nothing is gained by asking often.
const AGAIN: Backoff = Backoff {
    first: Duration::from_secs(30),
    longest: Duration::from_secs(600),
};

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be read.
    #[error("cannot read the directory of deployments {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no file in it.
    #[error("the directory of deployments {} has no file that ends with .toml: write one for each Kibana", path.display())]
    Empty {
        /// Which one.
        path: PathBuf,
    },
    /// There are, and not one of them runs.
    #[error("none of the {n} deployments in {} can run; {first}", path.display())]
    NoneRuns {
        /// Which directory.
        path: PathBuf,
        /// How many files it has.
        n: usize,
        /// What is wrong with the first one.
        first: String,
    },
}

/// Why one deployment does not run.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Run(#[from] crate::Error),
    #[error("{} have the same {what} `{value}`: give each deployment its own", files.join(" and "))]
    Twice {
        what: &'static str,
        value: String,
        files: Vec<String>,
    },
    #[error("it ended by a bug, which is described above; it begins again by itself")]
    Bug,
}

/// Runs every deployment of the directory until `stop` is cancelled, and then waits until all of them have ended.
///
/// A file that is added, or one that was no good and changes, is taken up within seconds. A file that changes while
/// its deployment runs, or goes away, takes effect at the next start of the process.
///
/// # Errors
/// Where nothing runs: a service manager shall see that. One good deployment is enough to go on.
///
/// # Panics
/// If the process has installed no `rustls` crypto provider.
pub async fn run(common: &Path, directory: &Path, stop: CancellationToken) -> Result<(), Error> {
    let mut remote = Remote {
        common: common.to_owned(),
        directory: directory.to_owned(),
        members: BTreeMap::new(),
        tasks: JoinSet::new(),
        names: HashMap::new(),
    };
    while !stop.is_cancelled() {
        remote.look(&stop)?;
        tokio::select! {
            () = stop.cancelled() => {}
            Some(ended) = remote.tasks.join_next_with_id(), if !remote.tasks.is_empty() => remote.on_end(ended, &stop),
            () = sleep(LOOK) => {}
        }
    }
    while let Some(ended) = remote.tasks.join_next_with_id().await {
        remote.on_end(ended, &stop);
    }
    Ok(())
}

/// Checks every deployment of the directory as [`crate::check`] does: what is wrong, by the name of the file.
///
/// # Errors
/// Where the directory cannot be read or has no file.
///
/// # Panics
/// If the process has installed no `rustls` crypto provider.
pub fn check(common: &Path, directory: &Path) -> Result<BTreeMap<String, Option<String>>, Error> {
    let files = files(directory)?;
    if files.is_empty() {
        let path = directory.to_owned();
        return Err(Error::Empty { path });
    }
    let load = |name: &String| {
        (
            name.clone(),
            Config::load_over(common, &directory.join(name)),
        )
    };
    let loaded = unique(files.keys().map(load).collect(), &BTreeMap::new());
    let problem = |config: Result<Config, Trouble>| {
        let checked = config.and_then(|config| Ok(crate::check(&config)?));
        checked.err().map(|trouble| error_chain(&trouble))
    };
    let checked = loaded.into_iter();
    Ok(checked
        .map(|(name, config)| (name, problem(config)))
        .collect())
}

/// What tells whether a file changed.
type Stamp = (Option<SystemTime>, u64);

/// All deployments.
struct Remote {
    common: PathBuf,
    directory: PathBuf,
    /// By the names of their files.
    members: BTreeMap<String, Member>,
    tasks: JoinSet<Result<(), crate::Error>>,
    /// Whose task this is.
    names: HashMap<Id, String>,
}

/// One deployment.
struct Member {
    stamp: Stamp,
    /// Since its file changed, or it ran well.
    n_failures: u32,
    state: State,
}

enum State {
    Runs {
        claim: Claim,
        began: Instant,
    },
    /// It does not, and is begun again at this time.
    Rests {
        again_at: Instant,
        problem: String,
    },
}

/// What no other deployment may have.
struct Claim {
    name: String,
    state_dir: PathBuf,
}

impl Claim {
    fn of(config: &Config) -> Self {
        Self {
            name: config.deployment.name.to_string(),
            // Without the dots and slashes that make one directory look like two.
            state_dir: config.state_dir.components().collect(),
        }
    }
}

impl Remote {
    /// Begins what is new, was repaired, or has rested long enough.
    fn look(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let files = match files(&self.directory) {
            Ok(files) => files,
            // What runs goes on.
            Err(error) if !self.tasks.is_empty() => {
                tracing::warn!(reason = %error_chain(&error), "cannot look for changes");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // What does not run is forgotten with its file.
        self.members
            .retain(|name, member| files.contains_key(name) || member.runs());
        let now = Instant::now();
        let due: Vec<String> = files
            .iter()
            .filter(|(name, stamp)| match self.members.get(*name) {
                Some(member) => member.is_due(**stamp, now),
                None => true,
            })
            .map(|(name, _)| name.clone())
            .collect();
        if !due.is_empty() {
            self.begin_all(&due, &files, stop);
        }
        self.is_any_use()
    }

    fn is_any_use(&self) -> Result<(), Error> {
        if !self.tasks.is_empty() {
            return Ok(());
        }
        let path = self.directory.clone();
        let problem = |(name, member): (&String, &Member)| match &member.state {
            State::Runs { .. } => None,
            State::Rests { problem, .. } => Some(format!("{name}: {problem}")),
        };
        match self.members.iter().find_map(problem) {
            None => Err(Error::Empty { path }),
            Some(first) => Err(Error::NoneRuns {
                path,
                n: self.members.len(),
                first,
            }),
        }
    }

    fn begin_all(
        &mut self,
        due: &[String],
        files: &BTreeMap<String, Stamp>,
        stop: &CancellationToken,
    ) {
        let load = |name: &String| {
            let config = Config::load_over(&self.common, &self.directory.join(name));
            (name.clone(), config)
        };
        let running = self
            .members
            .iter()
            .filter_map(|(name, member)| match &member.state {
                State::Runs { claim, .. } => Some((name.clone(), claim)),
                State::Rests { .. } => None,
            });
        // The others that rest are loaded too: two that collide are both refused, whichever of them is due.
        let resting = files
            .keys()
            .filter(|name| !self.members.get(*name).is_some_and(Member::runs));
        let loaded = unique(resting.map(load).collect(), &running.collect());
        for (name, config) in loaded {
            if !due.contains(&name) {
                continue;
            }
            let stamp = files.get(&name).copied().unwrap_or_default();
            match config {
                Ok(config) => self.begin(name, stamp, config, stop),
                Err(trouble) => self.rest(&name, stamp, &trouble),
            }
        }
    }

    fn begin(&mut self, name: String, stamp: Stamp, config: Config, stop: &CancellationToken) {
        let claim = Claim::of(&config);
        let span = tracing::info_span!("deployment", name = %claim.name);
        tracing::info!(parent: &span, file = %name, "beginning");
        let agent = Box::pin(crate::run(config, stop.child_token())).instrument(span);
        let task = self.tasks.spawn(agent);
        self.names.insert(task.id(), name.clone());
        let before = self
            .members
            .get(&name)
            .filter(|member| member.stamp == stamp);
        let n_failures = before.map_or(0, |member| member.n_failures);
        let began = Instant::now();
        let state = State::Runs { claim, began };
        let member = Member {
            stamp,
            n_failures,
            state,
        };
        self.members.insert(name, member);
    }

    fn on_end(
        &mut self,
        ended: Result<(Id, Result<(), crate::Error>), JoinError>,
        stop: &CancellationToken,
    ) {
        let (id, trouble) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) => (id, Some(error.into())),
            Err(error) => (error.id(), Some(Trouble::Bug)),
        };
        let Some(name) = self.names.remove(&id) else {
            return;
        };
        match (trouble, self.members.get(&name)) {
            (Some(trouble), Some(member)) => {
                let stamp = member.stamp;
                self.rest(&name, stamp, &trouble);
            }
            _ if stop.is_cancelled() => tracing::info!(file = %name, "ended"),
            _ => {}
        }
    }

    fn rest(&mut self, name: &str, stamp: Stamp, trouble: &Trouble) {
        let problem = error_chain(trouble);
        tracing::error!(file = %name, reason = %problem, "a deployment does not run; the others go on, and this one is tried again when its file changes, or later");
        let before = self.members.get(name).filter(|member| !member.ran_well());
        let before = before.filter(|member| member.stamp == stamp);
        let n_failures = before
            .map_or(0, |member| member.n_failures)
            .saturating_add(1);
        let again_at = Instant::now() + AGAIN.wait(n_failures);
        let state = State::Rests { again_at, problem };
        let member = Member {
            stamp,
            n_failures,
            state,
        };
        self.members.insert(name.to_owned(), member);
    }
}

impl Member {
    fn runs(&self) -> bool {
        matches!(self.state, State::Runs { .. })
    }

    fn ran_well(&self) -> bool {
        matches!(&self.state, State::Runs { began, .. } if began.elapsed() > AGAIN.longest)
    }

    fn is_due(&self, stamp: Stamp, now: Instant) -> bool {
        match &self.state {
            State::Runs { .. } => false,
            State::Rests { again_at, .. } => self.stamp != stamp || *again_at <= now,
        }
    }
}

/// Refuses what would be another deployment a second time: two that begin together, or one that runs already.
fn unique(
    loaded: BTreeMap<String, Result<Config, config::Error>>,
    running: &BTreeMap<String, &Claim>,
) -> BTreeMap<String, Result<Config, Trouble>> {
    let mut claimed: BTreeMap<(&'static str, String), BTreeSet<String>> = BTreeMap::new();
    let mut claim = |file: &String, claim: &Claim| {
        let state_dir = claim.state_dir.display().to_string();
        for key in [("name", claim.name.clone()), ("state directory", state_dir)] {
            claimed.entry(key).or_default().insert(file.clone());
        }
    };
    for (file, config) in &loaded {
        if let Ok(config) = config {
            claim(file, &Claim::of(config));
        }
    }
    for (file, running) in running {
        claim(file, running);
    }
    let twice = |file: &String| {
        let other = claimed
            .iter()
            .find(|(_, files)| files.len() > 1 && files.contains(file));
        other.map(|((what, value), files)| Trouble::Twice {
            what,
            value: value.clone(),
            files: files.iter().cloned().collect(),
        })
    };
    loaded
        .into_iter()
        .map(|(file, config)| match (config, twice(&file)) {
            (Ok(_), Some(twice)) => (file, Err(twice)),
            (config, _) => (file, config.map_err(Trouble::from)),
        })
        .collect()
}

/// The files of the directory that are deployments. Hidden ones are an editor's, or a mount's own.
fn files(directory: &Path) -> Result<BTreeMap<String, Stamp>, Error> {
    let broken = |source| Error::Directory {
        path: directory.to_owned(),
        source,
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        // What is gone again, or cannot be read, shows when it is loaded.
        let stamp = fs::metadata(&path).map(|data| (data.modified().ok(), data.len()));
        files.insert(name.into_owned(), stamp.unwrap_or_default());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bug() -> Result<(), crate::Error> {
        panic!("a bug")
    }

    #[tokio::test]
    async fn a_bug_in_one_is_noted_and_begins_again_later() {
        let stamp = Stamp::default();
        let claim = Claim {
            name: "eu".to_owned(),
            state_dir: "/state/eu".into(),
        };
        let began = Instant::now();
        let member = Member {
            stamp,
            n_failures: 0,
            state: State::Runs { claim, began },
        };
        let mut remote = Remote {
            common: "/nowhere".into(),
            directory: "/nowhere".into(),
            members: [("eu.toml".to_owned(), member)].into(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
        };
        let id = remote.tasks.spawn(bug()).id();
        remote.names.insert(id, "eu.toml".to_owned());
        let ended = remote.tasks.join_next_with_id().await.unwrap();
        remote.on_end(ended, &CancellationToken::new());
        let member = &remote.members["eu.toml"];
        let State::Rests { again_at, problem } = &member.state else {
            panic!("it rests")
        };
        assert!(problem.contains("bug") && *again_at <= began + AGAIN.first * 2);
        assert!(!member.is_due(stamp, began) && member.is_due((None, 1), began));
        assert!(
            remote
                .is_any_use()
                .unwrap_err()
                .to_string()
                .contains("eu.toml: it ended by a bug")
        );
    }
}
