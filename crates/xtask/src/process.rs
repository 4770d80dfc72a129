//! One child process: its log, its readiness, its end, its restart.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::registry::Registered;

/// Lines kept in memory to be waited for; the whole log is in the file.
const KEPT_LINES: usize = 10_000;
/// Lines of the log that an error shows.
const SHOWN_LINES: usize = 15;
/// How long a killed process may take to be gone, and its last output to be written to the log.
const SETTLE: Duration = Duration::from_secs(5);

type IsReady = Box<dyn Fn(&str) -> bool + Send>;

/// A child process with stdout and stderr captured in `<dir>/<name>.log`. It is killed on drop, and with this
/// process. A restart appends to the log.
pub struct Process {
    name: String,
    command: Command,
    log_path: PathBuf,
    is_ready: IsReady,
    deadline: Duration,
    running: Option<Running>,
}

struct Running {
    child: Registered,
    lines: Arc<Lines>,
    ready_line: String,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("log", &self.log_path)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Starts `command` and waits until one line of its output makes `is_ready` true.
    ///
    /// # Errors
    /// It cannot be started, ends before it is ready, or is not ready at the deadline (it is killed then). The text
    /// carries the last lines of the log.
    pub fn spawn(
        name: &str,
        mut command: Command,
        dir: &Path,
        is_ready: impl Fn(&str) -> bool + Send + 'static,
        deadline: Duration,
    ) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Self {
            name: name.to_owned(),
            command,
            log_path: dir.join(format!("{name}.log")),
            is_ready: Box::new(is_ready),
            deadline,
            running: None,
        };
        process.start()?;
        Ok(process)
    }

    /// Its name, which is also the name of its log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, while it runs.
    pub fn pid(&mut self) -> Option<u32> {
        self.is_running()
            .then(|| {
                self.running
                    .as_mut()
                    .map(|running| running.child.child().id())
            })
            .flatten()
    }

    /// Whether it runs now.
    pub fn is_running(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// The line that said it is ready; empty while it is stopped.
    pub fn ready_line(&self) -> &str {
        self.running
            .as_ref()
            .map_or("", |running| &running.ready_line)
    }

    /// Where the log is.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// The whole log so far, over all restarts.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log_path)
            .with_context(|| format!("cannot read {}", self.log_path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a line of the present run that makes `matches` true; lines that came before the call count too.
    ///
    /// # Errors
    /// The process is stopped or ends, or the deadline passes.
    pub fn wait_for_line(
        &self,
        deadline: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let Some(running) = &self.running else {
            bail!("{} is not running", self.name)
        };
        running
            .lines
            .wait_for(deadline, matches)
            .map_err(|missed| self.missed(missed, "the awaited line"))
    }

    /// Ends it at once (SIGKILL to its group) and waits until it is gone. A stopped process stays stopped.
    ///
    /// # Errors
    /// It is still there after some seconds.
    pub fn kill_hard(&mut self) -> Result<()> {
        self.end_with(Signal::KILL, SETTLE).map(drop)
    }

    /// Asks it to end (SIGTERM) and kills it where it has not ended at the deadline: then the status carries SIGKILL.
    /// `None` when it was stopped already.
    ///
    /// # Errors
    /// It is still there some seconds after it was killed.
    pub fn terminate(&mut self, deadline: Duration) -> Result<Option<ExitStatus>> {
        self.end_with(Signal::TERM, deadline)
    }

    /// Waits until it ends by itself. `None` when it was stopped already.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let Some(status) = running.child.wait(deadline)? else {
            bail!("{} still runs after {deadline:?}", self.name);
        };
        self.settle();
        Ok(Some(status))
    }

    /// Kills it where it still runs, starts the same command again and waits until it is ready.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill_hard()?;
        self.start()
    }

    /// Signals its group, for example to pause it with SIGSTOP.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.child.signal(signal);
        }
    }

    fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_path);
        let log = log.with_context(|| format!("cannot write {}", self.log_path.display()))?;
        let mut child = Registered::spawn(&mut self.command)
            .with_context(|| format!("cannot start {}", self.name))?;
        let lines = Arc::new(Lines::new());
        let (stdout, stderr) = (child.child().stdout.take(), child.child().stderr.take());
        lines.read_from(stdout, &log)?;
        lines.read_from(stderr, &log)?;
        let ready = lines.wait_for(self.deadline, &self.is_ready);
        self.running = Some(Running {
            child,
            lines,
            ready_line: String::new(),
        });
        match (ready, &mut self.running) {
            (Ok(line), Some(running)) => running.ready_line = line,
            (Ok(_), None) => {}
            (Err(missed), _) => {
                let error = self.missed(missed, "readiness");
                self.kill_hard()?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn end_with(&mut self, signal: Signal, deadline: Duration) -> Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        running.child.signal(signal);
        let mut status = running.child.wait(deadline)?;
        if status.is_none() {
            running.child.signal(Signal::KILL);
            status = running.child.wait(SETTLE)?;
        }
        if status.is_none() {
            bail!("{} is still there after SIGKILL", self.name);
        }
        self.settle();
        Ok(status)
    }

    /// Lets the readers write the last lines, then forgets the child.
    fn settle(&mut self) {
        if let Some(running) = self.running.take() {
            running.lines.wait_for_end(SETTLE);
        }
    }

    fn missed(&self, missed: Missed, what: &str) -> anyhow::Error {
        let why = match missed {
            Missed::Ended => "ended before",
            Missed::Deadline => "did not reach in time",
        };
        let log = self.log().unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        let tail = all
            .get(all.len().saturating_sub(SHOWN_LINES)..)
            .unwrap_or_default()
            .join("\n  ");
        anyhow::anyhow!(
            "{} {why} {what}; the end of {}:\n  {tail}",
            self.name,
            self.log_path.display()
        )
    }
}

#[derive(Debug, Clone, Copy)]
enum Missed {
    Ended,
    Deadline,
}

/// The latest lines of one run, filled by one thread per pipe.
struct Lines {
    state: Mutex<LineState>,
    changed: Condvar,
}

struct LineState {
    kept: VecDeque<String>,
    /// Number of lines that were ever added.
    added: u64,
    open_pipes: usize,
}

impl Lines {
    fn new() -> Self {
        Self {
            state: Mutex::new(LineState {
                kept: VecDeque::new(),
                added: 0,
                open_pipes: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Starts the thread that copies a pipe to the log. It ends when the last holder of the pipe does.
    fn read_from(
        self: &Arc<Self>,
        pipe: Option<impl Read + Send + 'static>,
        log: &File,
    ) -> Result<()> {
        let Some(pipe) = pipe else { return Ok(()) };
        let log = log.try_clone().context("cannot share the log")?;
        let lines = Arc::clone(self);
        lines.lock().open_pipes += 1;
        std::thread::Builder::new()
            .name("log-reader".to_owned())
            .spawn(move || {
                copy_lines(pipe, log, &lines);
                lines.close();
            })
            .context("cannot start the thread that reads a log")?;
        Ok(())
    }

    fn add(&self, line: String) {
        let mut state = self.lock();
        if state.kept.len() == KEPT_LINES {
            state.kept.pop_front();
        }
        state.kept.push_back(line);
        state.added += 1;
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().open_pipes -= 1;
        self.changed.notify_all();
    }

    fn wait_for(
        &self,
        deadline: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Result<String, Missed> {
        let end = Instant::now() + deadline;
        let mut seen = 0;
        let mut state = self.lock();
        loop {
            let new = usize::try_from(state.added - seen)
                .unwrap_or(usize::MAX)
                .min(state.kept.len());
            if let Some(line) = state
                .kept
                .iter()
                .skip(state.kept.len() - new)
                .find(|line| matches(line))
            {
                return Ok(line.clone());
            }
            seen = state.added;
            if state.open_pipes == 0 {
                return Err(Missed::Ended);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Missed::Deadline);
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wait_for_end(&self, deadline: Duration) {
        let state = self.lock();
        drop(
            self.changed
                .wait_timeout_while(state, deadline, |state| state.open_pipes > 0),
        );
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies line by line, so that lines of the two pipes never mix inside one line of the log.
fn copy_lines(pipe: impl Read, mut log: File, lines: &Lines) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        let _ = log.write_all(&bytes);
        lines.add(String::from_utf8_lossy(&bytes).trim_end().to_owned());
        bytes.clear();
    }
}
