//! Identities, the CA, andon and the audit log of the fake, with state like the real ones.

use keyfleet_core::Timestamp;
use keyfleet_core::audit::{Entry, HASH_BYTES, Outcome};
use keyfleet_proto::v1;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::{State, before};

/// The CA's pins.
const PINS: [&str; 2] = [
    "3f9a0c1d22e47b58a1c09e6d5f4b3a2918070605040302010fedcba987654321",
    "b07c5e9d8a1f2034455667788990aabbccddeeff00112233445566778899aabb",
];

impl State {
    /// Adds an entry to the log, as ada.
    pub(crate) fn act(&mut self, action: &str, target: &str, reason: &str) {
        self.write_down(action, target, Outcome::Done, reason);
    }

    /// Adds an entry for what was refused.
    pub(crate) fn refuse(&mut self, action: &str, target: &str) {
        self.write_down(action, target, Outcome::Refused, "");
    }

    fn write_down(&mut self, action: &str, target: &str, outcome: Outcome, reason: &str) {
        let number = self.audit.len() as u64 + 1;
        // Nanoseconds that a rounding would lose.
        let at = prost_types::Timestamp {
            nanos: 123_456_789,
            ..before(630 - i64::try_from(number).unwrap()).unwrap()
        };
        let refused = outcome == Outcome::Refused;
        let detail = if refused {
            "the role viewer is not enough"
        } else {
            ""
        };
        let entry = Entry {
            number,
            at: Timestamp::new(at.seconds, at.nanos).unwrap(),
            principal: if refused { "vera" } else { "ada" }.into(),
            token: "0192f3a4-0000-7000-8000-00000000000a".into(),
            action: action.into(),
            target: target.into(),
            outcome,
            reason: reason.into(),
            detail: detail.into(),
        };
        let previous = match self.audit.last() {
            Some(last) => <[u8; HASH_BYTES]>::try_from(&last.hash[..]).unwrap(),
            None => [0; HASH_BYTES],
        };
        let hash = Sha256::digest(entry.hashed_bytes(&previous));
        self.audit.push(v1::AuditEntry {
            number,
            at: Some(at),
            principal: entry.principal,
            token: entry.token,
            action: entry.action,
            target: entry.target,
            outcome: outcome.as_str().into(),
            reason: entry.reason,
            detail: entry.detail,
            previous_hash: previous.to_vec().into(),
            hash: hash.to_vec().into(),
        });
    }

    /// What a stream of the log says.
    pub(super) fn read_audit(&mut self, request: v1::ReadAuditRequest) -> Vec<v1::AuditEntry> {
        if let Some((action, target, reason)) = self.audit_later.pop()
            && request.from > 0
        {
            self.act(action, target, reason);
        }
        let n = self.audit.len();
        let first = match request.last {
            0 => usize::try_from(request.from.max(1)).unwrap() - 1,
            last => n.saturating_sub(usize::try_from(last).unwrap()),
        };
        self.audit.iter().skip(first).cloned().collect()
    }

    fn deployment(&mut self, name: &str) -> Result<&mut v1::Deployment, Status> {
        let found = self.deployments.iter_mut().find(|d| d.name == name);
        found.ok_or_else(|| Status::not_found(format!("there is no deployment {name:?}")))
    }

    /// Puts a deployment into this standing.
    pub(super) fn stand(
        &mut self,
        name: &str,
        standing: v1::Standing,
        reason: &str,
    ) -> Result<v1::Deployment, Status> {
        let deployment = self.deployment(name)?;
        if deployment.standing() == standing {
            let word = standing.as_str_name().trim_start_matches("STANDING_");
            let text = format!("deployment {name} is {word} already");
            return Err(Status::failed_precondition(text));
        }
        deployment.standing = standing.into();
        deployment.standing_at = before(0);
        deployment.standing_reason = if standing == v1::Standing::Active {
            String::new()
        } else {
            format!("{reason} (ada)")
        };
        Ok(deployment.clone())
    }

    /// Changes the labels, or says what that would do: without `env`, the placement no longer selects it.
    pub(super) fn label(
        &mut self,
        request: &v1::LabelDeploymentRequest,
    ) -> Result<v1::PlanResult, Status> {
        let deployment = self.deployment(&request.name)?;
        let mut labels = deployment.labels.clone();
        let mut details = Vec::new();
        for (key, value) in &request.set {
            let old = labels.insert(key.clone(), value.clone());
            let old = old.unwrap_or_else(|| "(none)".into());
            details.push(format!("labels.{key}: {old} -> {value}"));
        }
        for key in &request.unset {
            labels.remove(key);
            details.push(format!("labels.{key}: taken away"));
        }
        let mut result = v1::PlanResult::default();
        if !labels.contains_key("env") {
            result.deployments = vec![removal(&request.name)];
        }
        if !result.deployments.is_empty() && !request.yes && !request.plan {
            return Err(Status::failed_precondition("this removes 1 binding"));
        }
        result.objects = vec![change("Deployment", &request.name, v1::ChangeKind::Update)];
        result.objects[0].details = details;
        if !request.plan {
            deployment.labels = labels;
            self.act(
                "deployment.label",
                &format!("deployment {}", request.name),
                &request.reason,
            );
        }
        Ok(result)
    }

    /// Deletes an object, or says what that would do.
    pub(super) fn delete(
        &mut self,
        request: &v1::DeleteObjectRequest,
    ) -> Result<v1::PlanResult, Status> {
        let key = (request.kind.clone(), request.name.clone());
        if !self.objects.contains_key(&key) {
            let text = format!("there is no {} {:?}", request.kind, request.name);
            return Err(Status::not_found(text));
        }
        let placement = self.objects.keys().find(|(kind, _)| kind == "Placement");
        if let (Some((_, placement)), "Connector") = (placement, request.kind.as_str()) {
            let text = format!("placement {placement} names connector {}", request.name);
            return Err(Status::failed_precondition(text));
        }
        let mut result = v1::PlanResult {
            objects: vec![change(&request.kind, &request.name, v1::ChangeKind::Remove)],
            ..v1::PlanResult::default()
        };
        if request.kind == "Placement" {
            result.deployments = self.deployments.iter().map(|d| removal(&d.name)).collect();
            let bindings = result.deployments.iter_mut().flat_map(|d| &mut d.bindings);
            bindings.for_each(|binding| binding.references = self.references);
        }
        if !request.plan {
            assert!(request.yes || result.deployments.is_empty());
            self.objects.remove(&key);
            let target = format!("{} {}", request.kind.to_lowercase(), request.name);
            let action = format!("{}.delete", request.kind.to_lowercase());
            self.act(&action, &target, &request.reason);
        }
        Ok(result)
    }

    /// The CA, with what a rotation waits for.
    pub(super) fn ca(&self) -> v1::GetCaResponse {
        let n = u32::try_from(self.deployments.len()).unwrap();
        let ca = |index: usize, deployments| v1::Ca {
            pin: PINS[index].into(),
            not_after: before(-86_400 * 3_000 - 60),
            deployments,
            certificate_pem: self.ca_pems[index].clone(),
        };
        match self.ca_rotation {
            None => v1::GetCaResponse {
                current: Some(ca(0, n)),
                ..v1::GetCaResponse::default()
            },
            Some(false) => v1::GetCaResponse {
                current: Some(ca(0, 1)),
                next: Some(ca(1, n - 1)),
                ends_after: before(-86_400 - 60),
                waiting: vec![
                    "kibana-b has not renewed: it is not connected since 3 minutes".into(),
                ],
            },
            Some(true) => v1::GetCaResponse {
                current: Some(ca(1, n - 1)),
                ..v1::GetCaResponse::default()
            },
        }
    }

    /// Ends a rotation.
    pub(super) fn finish_ca(&mut self, yes: bool) -> Result<(), Status> {
        match (self.ca_rotation, yes) {
            (Some(false), true) => self.ca_rotation = Some(true),
            (Some(false), false) => {
                return Err(Status::failed_precondition("1 deployment has not renewed"));
            }
            _ => return Err(Status::failed_precondition("no rotation is under way")),
        }
        Ok(())
    }
}

fn change(kind: &str, name: &str, change: v1::ChangeKind) -> v1::ObjectChange {
    v1::ObjectChange {
        kind: kind.into(),
        name: name.into(),
        change: change.into(),
        details: vec![],
    }
}

fn removal(deployment: &str) -> v1::DeploymentChange {
    v1::DeploymentChange {
        deployment: deployment.into(),
        bindings: vec![v1::BindingChange {
            binding: Some(v1::BindingRef {
                space: "default".into(),
                connector: "assistant".into(),
            }),
            change: v1::ChangeKind::Remove.into(),
            from: Some(v1::Assignment {
                revision: 1,
                key_version: 7,
            }),
            why: "no placement selects it any more".into(),
            ..v1::BindingChange::default()
        }],
    }
}
