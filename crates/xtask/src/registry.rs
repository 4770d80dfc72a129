//! Everything this process must end before it ends itself: process groups and directories.
//!
//! **Invariant:** a child is born and entered under one lock, and that lock is closed by [`end_all`]; so no child can
//! slip out between the last look and the exit.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpid,
};

use crate::wait;

/// How long children may take to end by themselves after SIGTERM. OpenBao needs up to 2 seconds.
const GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to end a killed group.
const KILL: Duration = Duration::from_secs(5);
/// The exit code shells give for "ended by Ctrl-C".
const EXIT_INTERRUPTED: i32 = 130;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    closed: false,
    next: 0,
    groups: BTreeMap::new(),
    dirs: BTreeMap::new(),
});
static HANDLER: Once = Once::new();

struct Registry {
    closed: bool,
    next: u64,
    groups: BTreeMap<u64, Pid>,
    dirs: BTreeMap<u64, PathBuf>,
}

/// A child that is ended with this process, whatever ends it.
#[derive(Debug)]
pub struct Registered {
    entry: u64,
    group: Pid,
    child: Child,
}

impl Registered {
    /// Starts `command` in a process group of its own.
    ///
    /// # Errors
    /// The program cannot be started, or this process is ending.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        install_handler()?;
        let mut registry = lock();
        if registry.closed {
            bail!("this process is ending and starts nothing any more");
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let group = Pid::from_child(&child);
        let entry = registry.take_number();
        registry.groups.insert(entry, group);
        Ok(Self {
            entry,
            group,
            child,
        })
    }

    /// The child, to take its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has. The entry leaves the registry under the same lock under which the child is reaped,
    /// so that a number the kernel gives out again is never signalled.
    pub fn try_wait(&mut self) -> Result<Option<std::process::ExitStatus>> {
        let mut registry = lock();
        let status = self.child.try_wait().context("cannot wait for a child")?;
        if status.is_some() {
            // A leader that ended by itself may leave members of its group behind.
            let _ = kill_process_group(self.group, Signal::KILL);
            registry.groups.remove(&self.entry);
        }
        Ok(status)
    }

    /// Sends a signal to the whole group. A group that is gone is no error.
    pub fn signal(&self, signal: Signal) {
        if lock().groups.contains_key(&self.entry) {
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Waits until it ended or the deadline has passed (`None`).
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<std::process::ExitStatus>> {
        wait::until(deadline, || self.try_wait().transpose()).transpose()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.wait(KILL);
        lock().groups.remove(&self.entry);
    }
}

/// A directory that is removed on drop and when this process is ended by a signal.
#[derive(Debug)]
pub struct Dir {
    entry: u64,
    path: PathBuf,
    keep: bool,
}

impl Dir {
    /// Makes a new directory inside `parent`, which is made too where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new_in(parent: &Path, prefix: &str) -> Result<Self> {
        install_handler()?;
        let in_parent = || format!("cannot make a directory in {}", parent.display());
        std::fs::create_dir_all(parent).with_context(in_parent)?;
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(parent)
            .with_context(in_parent)?
            .keep();
        let mut registry = lock();
        let entry = registry.take_number();
        registry.dirs.insert(entry, path.clone());
        Ok(Self {
            entry,
            path,
            keep: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory on disk, for a person to look at.
    pub fn keep(&mut self) {
        self.keep = true;
        lock().dirs.remove(&self.entry);
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !self.keep {
            lock().dirs.remove(&self.entry);
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl Registry {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// Ends every registered group (SIGTERM, after a while SIGKILL), removes every registered directory and lets nothing
/// new start. Called by the signal handler; call it before `std::process::exit`, which runs no destructors.
pub fn end_all() {
    let mut registry = lock();
    registry.closed = true;
    let groups: Vec<Pid> = registry.groups.values().copied().collect();
    signal_all(&groups, Signal::TERM);
    if wait::until(GRACE, || {
        groups.iter().all(|group| is_gone(*group)).then_some(())
    })
    .is_none()
    {
        signal_all(&groups, Signal::KILL);
        wait::until(KILL, || {
            groups.iter().all(|group| is_gone(*group)).then_some(())
        });
    }
    registry.groups.clear();
    for dir in std::mem::take(&mut registry.dirs).into_values() {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// How many groups are registered now.
pub fn n_groups() -> usize {
    lock().groups.len()
}

fn signal_all(groups: &[Pid], signal: Signal) {
    for group in groups {
        let _ = kill_process_group(*group, signal);
    }
}

/// Reaps the leader (a dead but unreaped one still counts as a member) and says whether the group has no member left.
fn is_gone(group: Pid) -> bool {
    let _ = waitpid(Some(group), WaitOptions::NOHANG);
    test_kill_process_group(group).is_err()
}

fn install_handler() -> Result<()> {
    let mut result = Ok(());
    HANDLER.call_once(|| {
        result = ctrlc::set_handler(|| {
            end_all();
            std::process::exit(EXIT_INTERRUPTED);
        });
    });
    result.context("cannot install the handler for Ctrl-C and SIGTERM")
}

fn lock() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
