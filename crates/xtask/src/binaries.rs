//! The project's own binaries: where they are, and how they are built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::registry::Registered;

/// The workspace's root directory.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// The directory that holds the running binary and its siblings, `target/<profile>`.
///
/// # Errors
/// The running program was not built by cargo inside `target/`.
pub fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot tell where the running program is")?;
    profile_dir_of(&exe)
        .with_context(|| format!("{} is not inside target/; run it with cargo", exe.display()))
}

/// The `target` directory, for everything that is fetched or written.
///
/// # Errors
/// As [`profile_dir`].
pub fn target_dir() -> Result<PathBuf> {
    let profile = profile_dir()?;
    profile
        .parent()
        .map(Path::to_path_buf)
        .context("the program's directory has no parent")
}

/// The path of one of our binaries, for example `keyfleet-control`.
///
/// # Errors
/// It has not been built.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = profile_dir()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built; run `cargo xtask test`, which builds every binary first",
            path.display()
        );
    }
    Ok(path)
}

/// Builds every binary of the workspace; cargo's own progress is shown.
///
/// # Errors
/// The build fails.
pub fn build() -> Result<()> {
    run("cargo", &["build", "--workspace", "--bins"])
}

/// Runs a tool in the workspace's root with its output shown, and waits until it ends.
///
/// # Errors
/// It cannot be started or ends with another code than 0.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with(program, arguments, &[])
}

/// As [`run`], with more in the tool's environment.
///
/// # Errors
/// As [`run`].
pub fn run_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(workspace())
        .stdin(std::process::Stdio::null());
    forget_own_package(&mut command);
    let mut child = Registered::spawn(&mut command)?;
    let status = loop {
        // A build has no sensible deadline; whoever started it can press Ctrl-C, which ends it.
        if let Some(status) = child.wait(std::time::Duration::from_secs(60))? {
            break status;
        }
    };
    if !status.success() {
        bail!("`{program} {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}

/// What a tool says on its standard output, run in the workspace's root; what it says of itself is shown.
///
/// # Errors
/// It cannot be started or ends with another code than 0.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(workspace())
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit());
    forget_own_package(&mut command);
    let output = command.output();
    let output = output.with_context(|| format!("cannot start `{program}`"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({})",
        arguments.join(" "),
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `cargo run` tells a program which package it is. A cargo that this program starts would hand that on to build
/// scripts, some of which (ring's) then rebuild half of the tree each time.
fn forget_own_package(command: &mut Command) {
    let is_own = |name: &str| {
        [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ]
        .iter()
        .any(|beginning| name.starts_with(beginning))
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_own) {
            command.env_remove(name);
        }
    }
}

/// Whether a tool is on the PATH.
pub fn has_tool(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Tests run from `target/<profile>/deps/`, binaries from `target/<profile>/`.
fn profile_dir_of(exe: &Path) -> Option<PathBuf> {
    let dir = exe.parent()?;
    let profile = if dir.ends_with("deps") {
        dir.parent()?
    } else {
        dir
    };
    let is_in_target = profile
        .ancestors()
        .skip(1)
        .any(|ancestor| ancestor.join("CACHEDIR.TAG").is_file());
    is_in_target.then(|| profile.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_directories_and_names_the_command_that_builds() {
        assert!(workspace().join("Cargo.toml").is_file());
        assert!(target_dir().unwrap().join("CACHEDIR.TAG").is_file());
        let error = path("keyfleet-no-such-binary").unwrap_err().to_string();
        assert!(error.contains("cargo xtask test"), "{error}");
    }

    #[test]
    fn refuses_a_program_outside_target() {
        assert_eq!(profile_dir_of(Path::new("/usr/bin/tool")), None);
    }
}
