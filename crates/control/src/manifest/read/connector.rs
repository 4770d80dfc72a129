//! Connectors: what the driver of the type says of config and live call, each with its line.

use std::time::Duration;

use keyfleet_core::connector::{ConnectorSpec, Probe};
use keyfleet_core::id::ConnectorName;
use keyfleet_kibana::{Driver, InvalidConfig, check_display_name, driver, driver_types};
use serde_json::Value;

use super::{Reader, invalid};
use crate::manifest::yaml::{ConnectorForm, ProbeForm};
use crate::manifest::{InvalidManifest, Object};

/// How often at most a connector that nobody changed is proven: each proof is a call that costs.
const INTERVAL_MIN: Duration = Duration::from_secs(10);

/// The longest a proof may count: a year.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

impl Reader<'_> {
    pub(super) fn connector(&self) -> Result<Object, InvalidManifest> {
        let (name, form): (ConnectorName, ConnectorForm) = self.document()?;
        let Some(driver) = driver(&form.connector_type.value) else {
            let known: Vec<&str> = driver_types().collect();
            let problem = format!(
                "unknown connector type {:?}: this version knows {}",
                form.connector_type.value,
                known.join(", ")
            );
            return Err(self.wrong_at(&form.connector_type, "spec.type", problem));
        };
        let display_name = form.display_name.value.trim().to_owned();
        check_display_name(&display_name)
            .map_err(|err| self.wrong_at(&form.display_name, "spec.displayName", err.problem))?;
        let config = self.config(driver, &form)?;
        let if_supported = self.if_supported(driver, &config, &form)?;
        let probe = self.probe(driver, &config, &form.probe)?;
        if let Some(older) = form.replaces.as_ref().filter(|older| older.value.0 == name) {
            let problem = "is this connector itself: name the older one whose place it takes";
            return Err(self.wrong_at(older, "spec.replaces", problem));
        }
        let spec = ConnectorSpec {
            connector_type: form.connector_type.value,
            display_name,
            config,
            key: form.key.0,
            if_supported,
            probe,
            replaces: form.replaces.map(|older| older.value.0),
        };
        Ok(Object::Connector(name, spec))
    }

    fn config(&self, driver: &dyn Driver, form: &ConnectorForm) -> Result<String, InvalidManifest> {
        let fields = form.config.iter();
        let fields = fields.map(|(key, value)| (key.clone(), value.value.clone()));
        let text = Value::Object(fields.collect()).to_string();
        driver.canonical(&text).map_err(|problems| {
            let Some(first) = problems.first() else {
                return invalid(self.begin(), "spec.config", "is not valid");
            };
            let key = first.field.strip_prefix("config.").unwrap_or(&first.field);
            let key = key.split(['.', '[']).next().unwrap_or(key);
            let field = format!("spec.{}", first.field);
            match form.config.get(key) {
                Some(value) => self.wrong_at(value, &field, &first.problem),
                None => self.wrong(&field, &first.problem),
            }
        })
    }

    fn if_supported(
        &self,
        driver: &dyn Driver,
        config: &str,
        form: &ConnectorForm,
    ) -> Result<Vec<String>, InvalidManifest> {
        let names = form.if_supported.iter().map(|name| name.value.clone());
        let mut names: Vec<String> = names.collect();
        driver.check_if_supported(config, &names).map_err(|err| {
            let index = err.field.trim_start_matches("ifSupported[");
            let index: Option<usize> = index.trim_end_matches(']').parse().ok();
            let field = format!("spec.{}", err.field);
            match index.and_then(|index| form.if_supported.get(index)) {
                Some(name) => self.wrong_at(name, &field, err.problem),
                None => self.wrong(&field, err.problem),
            }
        })?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn probe(
        &self,
        driver: &dyn Driver,
        config: &str,
        form: &ProbeForm,
    ) -> Result<Probe, InvalidManifest> {
        self.probe_fits(form)?;
        let body = form.body.as_ref();
        let probe = Probe {
            body: body.map(|body| canonical(body.value.clone().into_iter().collect())),
            max_tokens: form.max_tokens.as_ref().map(|tokens| tokens.value),
            model: form.model.as_ref().map(|it| it.value.trim().to_owned()),
            interval: form.interval.as_ref().map(|interval| interval.value.0.0),
        };
        match driver.check_probe(config, &probe) {
            Ok(()) => Ok(probe),
            Err(problems) => match problems.first() {
                Some(first) => Err(self.probe_wrong(form, first)),
                None => Err(self.wrong("spec.probe", "is not valid")),
            },
        }
    }

    /// Checks what holds for every type.
    fn probe_fits(&self, form: &ProbeForm) -> Result<(), InvalidManifest> {
        let wrong = |field: &str, problem: &str| {
            let (field, problem) = (format!("probe.{field}"), problem.to_owned());
            Err(self.probe_wrong(form, &InvalidConfig { field, problem }))
        };
        let alone = "stands beside spec.probe.body, which is the whole call: keep one of the two";
        if form.body.is_some() && form.max_tokens.is_some() {
            return wrong("maxTokens", alone);
        }
        if form.body.is_some() && form.model.is_some() {
            return wrong("model", alone);
        }
        if form.max_tokens.as_ref().is_some_and(|it| it.value == 0) {
            return wrong("maxTokens", "must be at least 1");
        }
        if form
            .model
            .as_ref()
            .is_some_and(|it| it.value.trim().is_empty())
        {
            return wrong("model", "is blank: name a model, or leave it away");
        }
        match form.interval.as_ref().map(|it| it.value.0.0) {
            Some(span) if !span.is_zero() && span < INTERVAL_MIN => {
                wrong("interval", "must be at least 10s, or 0s for never")
            }
            Some(span) if span.subsec_nanos() > 0 => {
                wrong("interval", "must be a number of whole seconds")
            }
            Some(span) if span > INTERVAL_MAX => {
                wrong("interval", "must be at most a year; 0s for never")
            }
            Some(_) | None => Ok(()),
        }
    }

    fn probe_wrong(&self, form: &ProbeForm, err: &InvalidConfig) -> InvalidManifest {
        let field = format!("spec.{}", err.field);
        let key = err.field.strip_prefix("probe.").unwrap_or_default();
        let line = match key.split(['.', '[']).next() {
            Some("body") => form.body.as_ref().map(|it| it.referenced.line()),
            Some("maxTokens") => form.max_tokens.as_ref().map(|it| it.referenced.line()),
            Some("model") => form.model.as_ref().map(|it| it.referenced.line()),
            Some("interval") => form.interval.as_ref().map(|it| it.referenced.line()),
            Some(_) | None => None,
        };
        match line {
            Some(line) => invalid(self.place(line), &field, &err.problem),
            None => self.wrong(&field, &err.problem),
        }
    }
}

/// One text for one meaning: keys in order, no spaces.
fn canonical(object: serde_json::Map<String, Value>) -> String {
    let mut value = Value::Object(object);
    value.sort_all_objects();
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    const CONNECTOR: &str = "apiVersion: keyfleet/v1
kind: Connector
metadata: {name: assistant}
spec:
  type: .gen-ai
  displayName: OpenAI GPT-4.1
  key: openai
  config:
    apiProvider: OpenAI
    apiUrl: https://api.openai.com/v1/chat/completions
    defaultModel: gpt-4.1
";

    fn spec(rest: &str) -> Result<ConnectorSpec, String> {
        let manifests = read("f.yaml", &format!("{CONNECTOR}{rest}"));
        let manifest = manifests.map_err(|err| err.to_string())?.remove(0);
        let Object::Connector(_, spec) = manifest.object else {
            unreachable!()
        };
        Ok(spec)
    }

    fn refused(rest: &str, says: &str) {
        let found = spec(rest).unwrap_err();
        assert!(found.starts_with(says), "{rest}: {found}");
    }

    #[test]
    fn what_may_be_left_out_is_a_field_that_is_there_and_not_everywhere() {
        let with = |list: &str| format!("    temperature: 0.2\n  ifSupported: {list}\n");
        let found = spec(&with("[temperature, defaultModel, temperature]")).unwrap();
        assert_eq!(found.if_supported, ["defaultModel", "temperature"]);
        refused(&with("[headers]"), "f.yaml:13: spec.ifSupported[0]");
        refused(&with("[1]"), "f.yaml:13: spec.ifSupported[0]");
        let listed = with("\n    - temperature\n    - apiUrl");
        refused(&listed, "f.yaml:15: spec.ifSupported[1]");
    }

    #[test]
    fn a_connector_says_how_it_is_proven() {
        assert_eq!(spec("").unwrap().probe, Probe::default());
        let found = spec("  probe: {maxTokens: 16, model: gpt-5.2-mini, interval: 1h 30m}\n");
        let probe = found.unwrap().probe;
        assert_eq!(probe.max_tokens, Some(16));
        assert_eq!(probe.model.as_deref(), Some("gpt-5.2-mini"));
        assert_eq!(probe.interval, Some(Duration::from_secs(5_400)));
        let never = spec("  probe: {interval: 0s}\n").unwrap().probe;
        assert_eq!(never.interval, Some(Duration::ZERO));
        let body = "  probe:\n    body: {messages: [{role: user, content: hi}], b: {d: 1, c: 2}}\n";
        assert_eq!(
            spec(body).unwrap().probe.body.as_deref(),
            Some(r#"{"b":{"c":2,"d":1},"messages":[{"content":"hi","role":"user"}]}"#)
        );
    }

    #[test]
    fn a_live_call_that_cannot_be_is_named_with_its_line() {
        for (rest, says) in [
            ("  probe: {maxTokns: 1}\n", "f.yaml:12: spec.probe"),
            (
                "  probe:\n    maxTokens: 0\n",
                "f.yaml:13: spec.probe.maxTokens: must",
            ),
            (
                "  probe:\n    maxTokens: -1\n",
                "f.yaml:13: spec.probe.maxTokens",
            ),
            (
                "  probe:\n    maxTokens: many\n",
                "f.yaml:13: spec.probe.maxTokens",
            ),
            (
                "  probe:\n    model: x\n    interval: 1s\n",
                "f.yaml:14: spec.probe.interval: must be at least",
            ),
            (
                "  probe: {interval: 1ms}\n",
                "f.yaml:12: spec.probe.interval: must",
            ),
            (
                "  probe: {interval: often}\n",
                "f.yaml:12: spec.probe.interval",
            ),
            (
                "  probe: {interval: 99999h}\n",
                "f.yaml:12: spec.probe.interval: must",
            ),
            (
                "  probe: {model: \" \"}\n",
                "f.yaml:12: spec.probe.model: is blank",
            ),
            ("  probe: {body: [1]}\n", "f.yaml:12: spec.probe.body"),
            (
                "  probe:\n    body: {messages: []}\n    maxTokens: 5\n",
                "f.yaml:14: spec.probe.maxTokens: stands beside",
            ),
            (
                "  probe:\n    model: m\n    body: {messages: []}\n",
                "f.yaml:13: spec.probe.model: stands beside",
            ),
        ] {
            refused(rest, says);
        }
    }

    #[test]
    fn a_connector_takes_the_place_of_another() {
        let found = spec("  replaces: older\n").unwrap().replaces;
        assert_eq!(found.map(|name| name.to_string()).as_deref(), Some("older"));
        refused(
            "  replaces: assistant\n",
            "f.yaml:12: spec.replaces: is this",
        );
        refused("  replaces: Not A Name\n", "f.yaml:12: spec.replaces");
    }
}
