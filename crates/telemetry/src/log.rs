//! Sets up the log of a process.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The filter where none is given. `rustify` and `vaultrs` log every refused call several times over; our own Vault
/// crate logs what matters.
pub const DEFAULT_FILTER: &str = "info,rustify=off,vaultrs=off";

/// Masks whatever looks like a key; borrowed where there was nothing to mask.
pub type Scrub = fn(&str) -> Cow<'_, str>;

static SCRUBBED: AtomicU64 = AtomicU64::new(0);

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter has a mistake.
    #[error(
        "the log filter `{filter}` cannot be read; an example is `info,keyfleet_control=debug`"
    )]
    Filter {
        /// As given.
        filter: String,
        /// Where the mistake is.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The format has another name.
    #[error("there is no log format `{name}`; use `text` or `json`")]
    Format {
        /// As given.
        name: String,
    },
    /// It was set up before.
    #[error("logging is set up twice in one process")]
    Twice {
        /// The subscriber's own words.
        source: tracing_subscriber::util::TryInitError,
    },
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::Format {
                name: name.to_owned(),
            }),
        }
    }
}

/// Sets up the log of this process on stderr, every line through `scrub`.
///
/// `filter` is in the language of `tracing_subscriber::EnvFilter`; empty means [`DEFAULT_FILTER`].
///
/// # Errors
/// The filter cannot be read, or logging is set up already.
pub fn init(format: Format, filter: &str, scrub: Scrub) -> Result<(), Error> {
    let ansi = io::stderr().is_terminal();
    subscriber(
        format,
        filter,
        ansi,
        ScrubbingWriter {
            scrub,
            to: io::stderr,
        },
    )?
    .try_init()
    .map_err(|source| Error::Twice { source })
}

/// How many lines had to be masked since the start. More than 0 is a bug.
pub fn scrubbed() -> u64 {
    SCRUBBED.load(Ordering::Relaxed)
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    ansi: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = if filter.trim().is_empty() {
        DEFAULT_FILTER
    } else {
        filter
    };
    let parsed = EnvFilter::try_new(filter);
    let parsed = parsed.map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let registry = tracing_subscriber::registry().with(parsed);
    Ok(match format {
        Format::Text => Box::new(registry.with(layer().with_ansi(ansi).with_writer(writer))),
        Format::Json => {
            Box::new(registry.with(layer().json().flatten_event(true).with_writer(writer)))
        }
    })
}

fn layer<S: tracing::Subscriber + for<'a> LookupSpan<'a>>() -> tracing_subscriber::fmt::Layer<S> {
    tracing_subscriber::fmt::layer()
}

/// Masks each event before it is written. The formatter hands over one whole event at a time.
#[derive(Debug, Clone, Copy)]
struct ScrubbingWriter<M> {
    scrub: Scrub,
    to: M,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for ScrubbingWriter<M> {
    type Writer = ScrubbingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        ScrubbingWriter {
            scrub: self.scrub,
            to: self.to.make_writer(),
        }
    }
}

impl<W: Write> Write for ScrubbingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let masked = (self.scrub)(&text);
        if matches!(masked, Cow::Owned(_)) {
            SCRUBBED.fetch_add(1, Ordering::Relaxed);
        }
        self.to.write_all(masked.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn mask(text: &str) -> Cow<'_, str> {
        if text.contains("canary") {
            text.replace("canary", "***").into()
        } else {
            text.into()
        }
    }

    /// What `body` logs under this format and filter.
    pub(crate) fn captured(format: Format, filter: &str, body: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let to = buffer.clone();
        let writer = ScrubbingWriter {
            scrub: mask,
            to: move || to.clone(),
        };
        tracing::subscriber::with_default(subscriber(format, filter, false, writer).unwrap(), body);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn masks_and_counts() {
        let before = scrubbed();
        for format in [Format::Text, Format::Json] {
            let log = captured(format, "", || {
                tracing::info!(key = "the canary", "with canary");
                tracing::info!("harmless");
            });
            assert!(
                !log.contains("canary") && log.contains("***") && log.contains("harmless"),
                "{log}"
            );
            assert_eq!(log.lines().count(), 2);
        }
        assert_eq!(scrubbed() - before, 2);
    }

    #[test]
    fn the_default_filter_silences_the_two_noisy_crates() {
        let log = captured(Format::Json, "  ", || {
            tracing::error!(target: "rustify::client", "noise");
            tracing::error!(target: "vaultrs::api", "noise");
            tracing::debug!("detail");
            tracing::warn!("signal");
        });
        assert!(
            log.contains("signal") && !log.contains("noise") && !log.contains("detail"),
            "{log}"
        );
        let chosen = captured(
            Format::Text,
            "rustify=trace",
            || tracing::trace!(target: "rustify", "wanted"),
        );
        assert!(chosen.contains("wanted"));
    }

    #[test]
    fn mistakes_are_errors() {
        let error = init(Format::Text, "info,=", mask).unwrap_err().to_string();
        assert!(error.contains("info,="), "{error}");
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert!("yaml".parse::<Format>().is_err());
    }
}
