//! What each call needs of its caller, and what it is called in the audit log: the one table.
//!
//! A call that is not here does not compile: the gate takes only requests that say what they need.

use keyfleet_core::token::Role;
use keyfleet_proto::v1;

/// Whom a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Deployments: a token with a scope may call it, and the use case keeps to its deployments.
    Scoped,
    /// The whole fleet: only for tokens without a scope.
    Fleet,
}

/// A request, as the gate sees it.
pub(super) trait Call: Send + 'static {
    /// Whom it concerns.
    const REACH: Reach;

    /// The least role.
    fn role(&self) -> Role;

    /// As `noun.verb`.
    fn action(&self) -> &'static str;

    /// What it is done to, as `noun name`; empty where there is nothing more to say.
    fn target(&self) -> String {
        String::new()
    }

    /// Why, as the caller says.
    fn reason(&self) -> &str {
        ""
    }
}

macro_rules! call {
    ($request:ident, $role:expr, $reach:ident, $action:literal) => {
        call!(
            $request,
            $role,
            $reach,
            |_call| $action,
            |_call| "",
            |_call| String::new()
        );
    };
    ($request:ident, $role:expr, $reach:ident, $action:literal, $target:expr) => {
        call!(
            $request,
            $role,
            $reach,
            |_call| $action,
            |_call| "",
            $target
        );
    };
    ($request:ident, $role:expr, $reach:ident, |$call:ident| $action:expr, |$why:ident| $reason:expr, $target:expr) => {
        impl Call for v1::$request {
            const REACH: Reach = Reach::$reach;

            fn role(&self) -> Role {
                let role: fn(&Self) -> Role = $role;
                role(self)
            }

            fn action(&self) -> &'static str {
                let $call = self;
                $action
            }

            fn target(&self) -> String {
                let target: fn(&Self) -> String = $target;
                target(self)
            }

            fn reason(&self) -> &str {
                let $why = self;
                $reason
            }
        }
    };
}

call!(PlanRequest, viewer, Scoped, "manifests.plan");
call!(
    ApplyRequest,
    operator,
    Scoped,
    |_call| "manifests.apply",
    |call| &call.reason,
    |call| named("set", &call.set)
);
call!(GetStatusRequest, viewer, Scoped, "status.get");
call!(ListDeploymentsRequest, viewer, Scoped, "deployment.list");
call!(
    GetDeploymentRequest,
    viewer,
    Scoped,
    "deployment.get",
    |call| named("deployment", &call.name)
);
call!(
    PreflightDeploymentRequest,
    viewer,
    Scoped,
    "deployment.preflight",
    |call| named("deployment", &call.name)
);
call!(ListConnectorsRequest, viewer, Scoped, "connector.list");
call!(
    GetConnectorRequest,
    viewer,
    Scoped,
    "connector.get",
    |call| named("connector", &call.name)
);
call!(ListPlacementsRequest, viewer, Scoped, "placement.list");
call!(ListStrategiesRequest, viewer, Scoped, "strategy.list");
call!(ListKeysRequest, viewer, Scoped, "key.list");
call!(GetKeyRequest, viewer, Scoped, "key.get", |call| named(
    "key", &call.name
));
call!(ListBindingsRequest, viewer, Scoped, "binding.list");
call!(ListRolloutsRequest, viewer, Scoped, "rollout.list");
call!(GetRolloutRequest, viewer, Scoped, "rollout.get", |call| {
    named("rollout", &call.id)
});
call!(
    WatchRolloutRequest,
    viewer,
    Scoped,
    "rollout.watch",
    |call| named("rollout", &call.id)
);
call!(
    ExplainRolloutRequest,
    viewer,
    Scoped,
    "rollout.explain",
    |call| named("rollout", &call.id)
);
call!(SimulateRolloutRequest, viewer, Scoped, "rollout.simulate");
call!(
    ChangeRolloutRequest,
    operator,
    Scoped,
    |call| match call.verb() {
        v1::RolloutVerb::Unspecified => "rollout.change",
        v1::RolloutVerb::Pause => "rollout.pause",
        v1::RolloutVerb::Resume => "rollout.resume",
        v1::RolloutVerb::Abort => "rollout.abort",
        v1::RolloutVerb::Rollback => "rollout.rollback",
        v1::RolloutVerb::Retry => "rollout.retry",
        v1::RolloutVerb::Approve => "rollout.approve",
        v1::RolloutVerb::FastForward => "rollout.fast-forward",
    },
    |call| &call.reason,
    |call| named("rollout", &call.id)
);
call!(
    StartCampaignRequest,
    admin,
    Fleet,
    |_call| "campaign.start",
    |call| &call.reason,
    |call| named("key", &call.key)
);
call!(ListCampaignsRequest, viewer, Fleet, "campaign.list");
call!(GetCampaignRequest, viewer, Fleet, "campaign.get", |call| {
    named("campaign", &call.id)
});
call!(
    WatchCampaignRequest,
    viewer,
    Fleet,
    "campaign.watch",
    |call| named("campaign", &call.id)
);
call!(
    ChangeCampaignRequest,
    admin,
    Fleet,
    |call| match call.verb() {
        v1::CampaignVerb::Unspecified => "campaign.change",
        v1::CampaignVerb::Pause => "campaign.pause",
        v1::CampaignVerb::Resume => "campaign.resume",
        v1::CampaignVerb::Rollback => "campaign.rollback",
        v1::CampaignVerb::Approve => "campaign.approve",
        v1::CampaignVerb::Confirm => "campaign.confirm",
    },
    |call| &call.reason,
    |call| named("campaign", &call.id)
);
call!(
    CreateTokenRequest,
    admin,
    Scoped,
    |_call| "token.create",
    |call| &call.reason,
    |call| named("token for", &call.principal)
);
call!(ListTokensRequest, admin, Scoped, "token.list");
call!(
    RevokeTokenRequest,
    admin,
    Scoped,
    |_call| "token.revoke",
    |call| &call.reason,
    |call| named("token", &call.id)
);
call!(
    DeleteObjectRequest,
    |call| changes(call.plan),
    Scoped,
    |_call| "object.delete",
    |call| &call.reason,
    |call| named(&call.kind, &call.name)
);
call!(
    ChangeDeploymentRequest,
    admin,
    Scoped,
    |call| match call.verb() {
        v1::DeploymentVerb::Unspecified => "deployment.change",
        v1::DeploymentVerb::Suspend => "deployment.suspend",
        v1::DeploymentVerb::Resume => "deployment.resume",
        v1::DeploymentVerb::Revoke => "deployment.revoke",
        v1::DeploymentVerb::AllowRenewal => "deployment.allow-renewal",
    },
    |call| &call.reason,
    |call| named("deployment", &call.name)
);
call!(
    ReplaceDeploymentRequest,
    admin,
    Scoped,
    |_call| "deployment.replace",
    |call| &call.reason,
    |call| named("deployment", &call.name)
);
call!(
    RemoveDeploymentRequest,
    admin,
    Scoped,
    |_call| "deployment.remove",
    |call| &call.reason,
    |call| named("deployment", &call.name)
);
call!(
    LabelDeploymentRequest,
    |call| changes(call.plan),
    Scoped,
    |_call| "deployment.label",
    |call| &call.reason,
    |call| named("deployment", &call.name)
);
call!(GetCaRequest, viewer, Scoped, "ca.get", |_call| "CA"
    .to_owned());
call!(
    RotateCaRequest,
    admin,
    Fleet,
    |_call| "ca.rotate",
    |call| &call.reason,
    |_call| "CA".to_owned()
);
call!(
    FinishCaRotationRequest,
    admin,
    Fleet,
    |_call| "ca.finish",
    |call| &call.reason,
    |_call| "CA".to_owned()
);
// What others did, and why, is for those who answer for the whole fleet.
call!(ReadAuditRequest, operator, Fleet, "audit.read");
call!(
    SetAndonRequest,
    operator,
    Fleet,
    |call| if call.on { "andon.on" } else { "andon.off" },
    |call| &call.reason,
    |_call| "fleet".to_owned()
);

fn viewer<Q>(_call: &Q) -> Role {
    Role::Viewer
}

fn operator<Q>(_call: &Q) -> Role {
    Role::Operator
}

fn admin<Q>(_call: &Q) -> Role {
    Role::Admin
}

/// Who may look may also ask what a change would do.
fn changes(is_only_planned: bool) -> Role {
    match is_only_planned {
        true => Role::Viewer,
        false => Role::Operator,
    }
}

fn named(kind: &str, name: &str) -> String {
    match name {
        "" => String::new(),
        name => format!("{kind} {name}"),
    }
}
