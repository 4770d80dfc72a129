//! What a peer may send: any bytes, decoded as any message and taken into the core.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;

use keyfleet_core::binding::BindingState;
use keyfleet_core::campaign;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, DeploymentName, KeyName, SpaceId};
use keyfleet_core::key::KeyState;
use keyfleet_core::placement::DriftPolicy;
use keyfleet_core::rollout::{Phase, Verb, Verdict};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::{DESCRIPTORS, Invalid, labels, timestamp, timestamp_required, v1};
use prost::{Message, Name};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/wire");

/// Tags, lengths and numbers of the wire format, and texts that fields want.
const WORDS: [&str; 16] = [
    "\u{a}\u{0}",
    "\u{12}\u{0}",
    "\u{1a}\u{0}",
    "\u{22}\u{4}",
    "\u{8}\u{1}",
    "\u{10}\u{7f}",
    "\u{3}",
    "\u{4}",
    "\u{7f}",
    "openai",
    "default",
    "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "env",
    "prod",
    "9.4.0",
    "\u{b}\u{c}",
];

/// Calls a macro with every message there is.
macro_rules! every_message {
    ($then:ident) => {
        $then! {
            Generation, Assignment, BindingRef, Space, KibanaFacts, EnrollRequest, EnrollResponse, RenewRequest,
            RenewResponse, AgentMessage, ControlMessage, Hello, KeyHeld, LastRejected, Welcome, Desired, DesiredBinding,
            DesiredAnswer, SealedKey, KeyRequest, KeyRefused, StatusReport, BindingStatus, StatusAnswer, Heartbeat,
            GoAway, Andon, RenewNow, ManifestFile, PlanRequest, PlanResponse, ApplyRequest, ApplyResponse, PlanResult,
            ObjectChange, DeploymentChange, BindingChange, PlannedRollout, PlannedWave, GetStatusRequest,
            GetStatusResponse, StateCount, Deployment, Binding, ListDeploymentsRequest, ListDeploymentsResponse,
            GetDeploymentRequest, GetDeploymentResponse, Connector, ListConnectorsRequest, ListConnectorsResponse,
            GetConnectorRequest, GetConnectorResponse, Placement, ListPlacementsRequest, ListPlacementsResponse, Strategy,
            ListStrategiesRequest, ListStrategiesResponse, Key, KeyVersion, ListKeysRequest, ListKeysResponse,
            GetKeyRequest, GetKeyResponse, ListBindingsRequest, ListBindingsResponse, Rollout, Wave, Waiting,
            ListRolloutsRequest, ListRolloutsResponse, GetRolloutRequest, GetRolloutResponse, RolloutTarget,
            WatchRolloutRequest, WatchRolloutResponse, ChangeRolloutRequest, ChangeRolloutResponse, Event, Token,
            CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
            RevokeTokenResponse, DeleteObjectRequest, DeleteObjectResponse, HeldKey, ChangeDeploymentRequest,
            ChangeDeploymentResponse, ReplaceDeploymentRequest, ReplaceDeploymentResponse, RemoveDeploymentRequest,
            RemoveDeploymentResponse, LabelDeploymentRequest, LabelDeploymentResponse, Ca, GetCaRequest, GetCaResponse,
            RotateCaRequest, RotateCaResponse, FinishCaRotationRequest, FinishCaRotationResponse, ReadAuditRequest,
            AuditEntry, AndonState, SetAndonRequest, SetAndonResponse, Check, SeenConnector, Probe, ProbeRequest,
            ProbeGrant, CheckNow, ProveNow, PreflightDeploymentRequest, PreflightDeploymentResponse, Adopt, Adoption,
            Conflict, Estimate, GateState, ExplainRolloutRequest, ExplainRolloutResponse, SimulateRolloutRequest,
            SimulateRolloutResponse, SimulationProgress, SimulationResult, SimulatedRollout, SimulatedWave, SimulatedEvent,
            WorstCase, Campaign, CampaignStep, StartCampaignRequest, StartCampaignResponse, ListCampaignsRequest,
            ListCampaignsResponse, GetCampaignRequest, GetCampaignResponse, WatchCampaignRequest, WatchCampaignResponse,
            ChangeCampaignRequest, ChangeCampaignResponse,
        }
    };
}

macro_rules! decode_each {
    ($($message:ident),+ $(,)?) => {
        fn decode_as_each(bytes: &[u8]) {
            $(decode::<v1::$message>(bytes);)+
        }

        fn names() -> BTreeSet<&'static str> {
            BTreeSet::from([$(v1::$message::NAME),+])
        }
    };
}

every_message!(decode_each);

/// What can be read can be written and read again, and means the same.
fn decode<T: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = T::decode(bytes) {
        let again = T::decode(message.encode_to_vec().as_slice()).unwrap();
        assert!(again == message, "{} differs", std::any::type_name::<T>());
    }
}

#[test]
fn any_bytes_are_a_message_or_an_error() {
    let descriptors = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let ours = descriptors
        .file
        .iter()
        .filter(|file| file.package() == "keyfleet.v1");
    let all: BTreeSet<&str> = ours
        .flat_map(|file| &file.message_type)
        .map(|message| message.name())
        .collect();
    assert_eq!(names(), all, "the list of messages is not complete");
    xtask::fuzz::run(CORPUS, &WORDS, decode_as_each);
}

/// An error of a conversion says which field, in a short text of one line.
fn check<T>(outcome: Result<T, Invalid>) {
    let Err(err) = outcome else { return };
    assert!(!err.field.is_empty() && !err.problem.is_empty(), "{err}");
    assert!(
        !err.to_string().contains('\n') && err.to_string().len() < 1_000,
        "{err}"
    );
}

#[test]
fn whatever_is_decoded_is_taken_or_refused_by_field() {
    xtask::fuzz::run(CORPUS, &WORDS, |bytes| {
        if let Ok(request) = v1::EnrollRequest::decode(bytes) {
            check(labels("labels", request.labels));
        }
        if let Ok(status) = v1::BindingStatus::decode(bytes) {
            check(BindingState::try_from(status.state()));
            check(FailureClass::try_from(status.failure_class()));
            check(timestamp("proven_at", status.proven_at));
            check(timestamp_required("proven_at", status.proven_at));
            check(timestamp("changed_at", status.changed_at));
            let place = status.binding.unwrap_or_default();
            check(Invalid::parse::<SpaceId>("space", &place.space));
            check(Invalid::parse::<ConnectorName>(
                "connector",
                &place.connector,
            ));
        }
        if let Ok(request) = v1::ChangeDeploymentRequest::decode(bytes) {
            check(Invalid::parse::<DeploymentName>("name", &request.name));
        }
        if let Ok(request) = v1::KeyRequest::decode(bytes) {
            check(Invalid::parse::<KeyName>("key", &request.key));
        }
        for number in bytes.iter().map(|byte| i32::from(*byte) - 1) {
            let _ = v1::KeyState::try_from(number).map(|wire| check(KeyState::try_from(wire)));
            let _ =
                v1::DriftPolicy::try_from(number).map(|wire| check(DriftPolicy::try_from(wire)));
            let _ = v1::RolloutPhase::try_from(number).map(|wire| check(Phase::try_from(wire)));
            let _ = v1::RolloutVerb::try_from(number).map(|wire| check(Verb::try_from(wire)));
            let _ = v1::CampaignState::try_from(number)
                .map(|wire| check(campaign::State::try_from(wire)));
            let _ = v1::CampaignCourse::try_from(number)
                .map(|wire| check(campaign::Course::try_from(wire)));
            let _ = v1::CampaignVerb::try_from(number)
                .map(|wire| check(campaign::Verb::try_from(wire)));
            let _ = v1::GateVerdict::try_from(number).map(|wire| check(Verdict::try_from(wire)));
            let _ = v1::Role::try_from(number).map(|wire| check(Role::try_from(wire)));
            let _ = v1::Standing::try_from(number).map(|wire| check(Standing::try_from(wire)));
        }
    });
}
