//! The deployments of the fake, and what becomes of them.

use keyfleet_proto::v1;
use tonic::Status;

use super::{State, before};

impl State {
    pub(super) fn described(&self, name: &str) -> Result<v1::GetDeploymentResponse, Status> {
        let found = self.deployments.iter().find(|it| it.name == name);
        let missing = || Status::not_found(format!("there is no deployment {name:?}"));
        let deployment = found.cloned().ok_or_else(missing)?;
        let bindings = self.bindings.iter();
        let event = v1::Event {
            at: before(65),
            actor: "keyfleet".into(),
            text: "enrolled with token 01ab".into(),
        };
        Ok(v1::GetDeploymentResponse {
            deployment: Some(deployment),
            bindings: bindings
                .filter(|binding| binding.deployment == name)
                .cloned()
                .collect(),
            events: vec![event],
        })
    }

    /// An agent that is connected looks at once, unless it hangs.
    pub(super) fn preflight(
        &self,
        request: &v1::PreflightDeploymentRequest,
    ) -> Result<v1::PreflightDeploymentResponse, Status> {
        let mut deployment = self.described(&request.name)?.deployment;
        let fresh = request.fresh && !self.hangs && deployment.iter().all(|it| it.connected);
        let facts = deployment.as_mut().and_then(|it| it.facts.as_mut());
        if let (true, Some(facts)) = (fresh, facts) {
            facts.observed_at = before(0);
        }
        Ok(v1::PreflightDeploymentResponse { deployment, fresh })
    }

    pub(super) fn change_deployment(
        &mut self,
        request: &v1::ChangeDeploymentRequest,
    ) -> Result<v1::ChangeDeploymentResponse, Status> {
        let (standing, verb) = match request.verb() {
            v1::DeploymentVerb::Suspend => (v1::Standing::Suspended, "suspend"),
            v1::DeploymentVerb::Revoke => (v1::Standing::Revoked, "revoke"),
            v1::DeploymentVerb::Unspecified
            | v1::DeploymentVerb::Resume
            | v1::DeploymentVerb::AllowRenewal => (v1::Standing::Active, "resume"),
        };
        let known = self.deployments.iter().find(|d| d.name == request.name);
        let deployment = match (request.verb(), known) {
            (v1::DeploymentVerb::AllowRenewal, Some(known)) => known.clone(),
            _ => self.stand(&request.name, standing, &request.reason)?,
        };
        let (action, target) = (
            format!("deployment.{verb}"),
            format!("deployment {}", request.name),
        );
        self.act(&action, &target, &request.reason);
        Ok(v1::ChangeDeploymentResponse {
            deployment: Some(deployment),
            held: self.held.clone(),
        })
    }

    pub(super) fn replace_deployment(
        &mut self,
        request: v1::ReplaceDeploymentRequest,
    ) -> Result<v1::ReplaceDeploymentResponse, Status> {
        self.stand(&request.name, v1::Standing::Revoked, &request.reason)?;
        let token = v1::Token {
            id: "0192f3a4-0000-7000-8000-00000000000c".into(),
            kind: v1::TokenKind::Join.into(),
            uses_left: 1,
            expires_at: before(-i64::from(request.ttl_secs) - 30),
            created_at: before(0),
            created_by: "ada".into(),
            deployment: request.name,
            ..v1::Token::default()
        };
        self.tokens.push(token.clone());
        Ok(v1::ReplaceDeploymentResponse {
            token: Some(token),
            value: "kfj_for-the-new-agent".into(),
            held: self.held.clone(),
        })
    }
}
