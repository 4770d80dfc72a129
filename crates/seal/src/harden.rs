//! Keeps the memory of a process to itself.

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::Error;

/// No core dumps, and on Linux no debugger or `/proc/<pid>/mem` for other processes of the same user.
///
/// To be called first thing in `main`: what follows `execve` starts unhardened again.
///
/// # Errors
/// [`Error::Harden`] names the step that the system refused.
pub fn harden_process() -> Result<(), Error> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(refused("setting RLIMIT_CORE to 0"))?;
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(refused("setting the process not dumpable"))?;
    Ok(())
}

fn refused(step: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Harden {
        step,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_dumps_no_core() {
        harden_process().unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Core).maximum, Some(0));
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            DumpableBehavior::NotDumpable
        );
    }
}
