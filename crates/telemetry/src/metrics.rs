//! The metrics of a service, in OpenMetrics text.
//!
//! A set of labels is an array of (name, value) pairs: `Family<[(&'static str, &'static str); 1], Counter>`. The
//! derive macro of `prometheus-client` is not re-exported, because its code works only for crates that depend on it.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
pub use prometheus_client::metrics::{counter, family, gauge, histogram};
pub use prometheus_client::registry::{Registry, Unit};

/// The `Content-Type` of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry whose names begin with `keyfleet_`. It holds `keyfleet_log_lines_scrubbed_total` from the start.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("keyfleet");
    registry.register_collector(Box::new(Scrubbed));
    registry
}

/// Every metric as text, for `/metrics`.
///
/// # Errors
/// A metric of our own refuses to be written, which is a bug.
pub fn encode(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrubbed;

impl Collector for Scrubbed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = counter::ConstCounter::new(crate::scrubbed());
        let help = "Log lines in which something like a key had to be masked; more than 0 is a bug";
        count.encode(encoder.encode_descriptor(
            "log_lines_scrubbed",
            help,
            None,
            count.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_text_with_our_prefix() {
        let mut registry = registry();
        let pushes = counter::Counter::<u64>::default();
        registry.register("pushes", "Generations pushed", pushes.clone());
        pushes.inc();
        let failures =
            family::Family::<[(&'static str, &'static str); 1], counter::Counter>::default();
        registry.register("failures", "Failures by class", failures.clone());
        failures.get_or_create(&[("class", "AUTH")]).inc();
        let text = encode(&registry).unwrap();
        assert!(text.contains("keyfleet_pushes_total 1"), "{text}");
        assert!(
            text.contains(r#"keyfleet_failures_total{class="AUTH"} 1"#),
            "{text}"
        );
        assert!(
            text.contains("keyfleet_log_lines_scrubbed_total "),
            "{text}"
        );
    }
}
