//! What the fake makes of manifests: lines `KIND NAME TEXT`; a line with `broken` is refused.

use keyfleet_proto::v1;
use tonic::Status;

use super::State;

impl State {
    /// The rollout of this full id.
    pub(super) fn rollout(&self, id: &str) -> Result<v1::Rollout, Status> {
        let found = self.rollouts.iter().find(|rollout| rollout.id == id);
        found
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no rollout {id}")))
    }

    /// What these files would change.
    pub(super) fn plan(&self, files: &[v1::ManifestFile]) -> Result<v1::PlanResult, Status> {
        let mut result = v1::PlanResult::default();
        for file in files {
            for (index, line) in file.text.lines().enumerate() {
                if line.contains("broken") {
                    let text = format!("{}:{}: unknown field `spec.broken`", file.name, index + 1);
                    return Err(Status::invalid_argument(text));
                }
                result.objects.push(self.object_change(line));
            }
        }
        if result
            .objects
            .iter()
            .any(|object| object.change() != v1::ChangeKind::Unchanged)
        {
            self.effects(&mut result);
        }
        let is_removal = |object: &v1::ObjectChange| object.change() == v1::ChangeKind::Remove;
        if result.objects.iter().any(is_removal) {
            let bindings = result.deployments.iter_mut().flat_map(|d| &mut d.bindings);
            for binding in bindings {
                binding.change = v1::ChangeKind::Remove.into();
                binding.to = None;
                binding.cannot_roll_back.clear();
                binding.why = "the connector is deleted".into();
                binding.references = self.references;
            }
        }
        Ok(result)
    }

    fn object_change(&self, line: &str) -> v1::ObjectChange {
        let (key, text) = parse(line);
        let (change, details) = match self.objects.get(&key) {
            None => (v1::ChangeKind::Create, vec![]),
            Some(old) if *old == text => (v1::ChangeKind::Unchanged, vec![]),
            Some(_) if text == "gone" => (v1::ChangeKind::Remove, vec![]),
            Some(old) => (
                v1::ChangeKind::Update,
                vec![format!("spec.config.defaultModel: {old} -> {text}")],
            ),
        };
        v1::ObjectChange {
            kind: key.0,
            name: key.1,
            change: change.into(),
            details,
        }
    }

    /// What a strategy says beside its waves.
    pub(super) fn rules(&self) -> Vec<String> {
        let news = [
            "ramp: 1 at first, twice as many each time as many more are proven",
            "gate errors: every 30s, pause when it fails 2 times in a row",
            "budget AUTH: none of a wave may fail, else rollback",
        ];
        let rules = news.iter().filter(|_| self.has_news);
        rules.map(|&rule| rule.to_owned()).collect()
    }

    fn effects(&self, result: &mut v1::PlanResult) {
        let assignment = |revision| {
            Some(v1::Assignment {
                revision,
                key_version: 7,
            })
        };
        result.deployments = self
            .deployments
            .iter()
            .enumerate()
            .map(|(index, deployment)| v1::DeploymentChange {
                deployment: deployment.name.clone(),
                bindings: vec![v1::BindingChange {
                    binding: Some(v1::BindingRef {
                        space: "default".into(),
                        connector: "assistant".into(),
                    }),
                    change: if index == 0 {
                        v1::ChangeKind::Create
                    } else {
                        v1::ChangeKind::Update
                    }
                    .into(),
                    from: if index == 0 { None } else { assignment(1) },
                    to: assignment(2),
                    why: "the connector has a new revision".into(),
                    cannot_roll_back: if index == 1 {
                        "the key's old version cannot be read again (KV v1)"
                    } else {
                        ""
                    }
                    .into(),
                    adoption: self.adoptions.get(index).cloned(),
                    references: 0,
                }],
            })
            .collect();
        let n_deployments = u32::try_from(self.deployments.len()).unwrap();
        let wave = |name: &str, deployments, strict, overshoot_max| v1::PlannedWave {
            name: name.into(),
            deployments,
            concurrency: 1 + overshoot_max,
            strict,
            overshoot_max,
            mandatory: strict && self.has_news,
            soak_secs: if strict { 600 } else { 0 },
            approvals: if self.has_news && !strict { 2 } else { 0 },
            rule: if strict {
                "1"
            } else {
                "30% of 9, rounded down, at least 1"
            }
            .into(),
        };
        let waves = vec![
            wave("canary", 1, true, 0),
            wave("rest", n_deployments - 1, false, 1),
        ];
        result.rollouts = vec![v1::PlannedRollout {
            strategy: "careful".into(),
            waves,
            rules: self.rules(),
        }];
        result.conflicts = self.conflicts.clone();
        result.warnings = vec!["connector type .gen-ai is deprecated from Kibana 9.5".into()];
        result.notes = vec!["connector assistant: model gpt-9 has no rating".into()];
        result.probe_calls = 2 * n_deployments;
    }
}

/// A line as (kind, name) and text.
pub(super) fn parse(line: &str) -> ((String, String), String) {
    let mut words = line.splitn(3, ' ').map(str::to_owned);
    let mut next = || words.next().unwrap_or_default();
    ((next(), next()), next())
}
