//! What a panic leaves in the log.

use std::io::Write as _;
use std::panic::PanicHookInfo;

/// Makes a panic log its place and its thread, and never its payload: a message formatted from a foreign error can
/// hold a secret. Call it first thing in `main`.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(report));
}

fn report(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current()
        .name()
        .unwrap_or("unnamed")
        .to_owned();
    if tracing::dispatcher::has_been_set() {
        tracing::error!(%place, %thread, "panicked; this is a bug, please report the place");
    } else {
        // Before logging is set up stderr is all there is, and a closed one leaves nothing to do.
        let _ = writeln!(
            std::io::stderr().lock(),
            "panicked at {place} (thread {thread}); this is a bug"
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::log::tests::captured;

    #[test]
    fn a_panic_logs_its_place_and_not_its_payload() {
        let log = captured(crate::Format::Text, "info", || {
            super::install_panic_hook();
            let value = std::hint::black_box("canary-in-a-panic");
            let caught =
                std::panic::catch_unwind(|| std::panic::panic_any(format!("{value} leaks")));
            assert!(caught.is_err());
            drop(std::panic::take_hook());
        });
        assert!(log.contains("src/panic.rs:"), "{log}");
        assert!(!log.contains("canary"), "{log}");
    }
}
