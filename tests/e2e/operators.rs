//! Who may do what on the operators' port, what it refuses, and what it says of itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use keyfleet_proto::v1;
use keyfleet_proto::v1::operator_service_client::OperatorServiceClient;
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use xtask::fleet::Done;

use crate::kit::{Fleet, Member, PATIENCE};
use crate::refuse::{LAB, new_token, newest_token};

/// Adds a context of this name with a token of the file.
pub(crate) fn add_context(fleet: &Fleet, name: &str, token_file: &Path) -> Result<()> {
    let (ca, token) = (
        fleet.control.data_dir.join("ca.pem"),
        token_file.to_string_lossy(),
    );
    let ca = ca.to_string_lossy();
    let url = fleet.control.operators_url.as_str();
    let arguments = [
        "context",
        "add",
        name,
        "--endpoint",
        url,
        "--ca",
        &ca,
        "--token-file",
        &token,
    ];
    fleet.keyfleet(&arguments)?.must_succeed().map(drop)
}

/// The operator's command in another context than the admin's.
pub(crate) fn run_as(fleet: &Fleet, context: &str, arguments: &[&str]) -> Done {
    let all = [&["--context", context], arguments].concat();
    fleet.keyfleet(&all).unwrap()
}

/// The command must end with 3 and say this.
pub(crate) fn must_refuse(fleet: &Fleet, context: &str, arguments: &[&str], words: &str) {
    let done = run_as(fleet, context, arguments);
    assert_eq!(done.code, 3, "{context} {arguments:?}: {done:?}");
    assert!(
        done.err.contains(words),
        "{context} {arguments:?}: {words:?} is not in {done:?}"
    );
}

/// Makes an operator token of a role, and a context of that name; returns the token's id.
fn add_operator(fleet: &Fleet, role: &str) -> Result<String> {
    let file = new_token(
        fleet,
        role,
        &["operator", "--principal", "pat", "--role", role],
    )?;
    add_context(fleet, role, &file)?;
    Ok(newest_token(fleet)?["id"]
        .as_str()
        .context("no id")?
        .to_owned())
}

#[test]
fn each_role_does_what_it_may_and_no_more() {
    let fleet = Fleet::start("roles", &LAB).unwrap();
    add_operator(&fleet, "viewer").unwrap();
    add_operator(&fleet, "operator").unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let apply = ["apply", "-f", &dir];
    must_refuse(
        &fleet,
        "viewer",
        &apply,
        "pat has the role viewer; this needs operator",
    );
    must_refuse(
        &fleet,
        "operator",
        &apply,
        "pat has the role operator; this needs admin",
    );
    must_refuse(
        &fleet,
        "operator",
        &["token", "create", "join"],
        "this needs admin",
    );
    must_refuse(&fleet, "operator", &["token", "list"], "this needs admin");
    assert!(fleet.bindings().unwrap().is_empty(), "nothing was stored");

    // The admin brings the Key; from then on an operator may apply all files, as long as the Key is the same.
    fleet.apply().unwrap().must_succeed().unwrap();
    run_as(&fleet, "viewer", &["plan", "-f", &dir])
        .must_succeed()
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    run_as(&fleet, "operator", &[&apply[..], &["--wait"]].concat())
        .must_succeed()
        .unwrap();
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
    fleet
        .manifests
        .edit("key.yaml", "field: api_key", "field: other")
        .unwrap();
    must_refuse(&fleet, "operator", &apply, "this needs admin");
    let rollout = fleet.rollout_id().unwrap();
    must_refuse(
        &fleet,
        "viewer",
        &["rollout", "pause", &rollout],
        "this needs operator",
    );
}

#[test]
fn only_a_good_operator_token_opens_the_operators_port() {
    let fleet = Fleet::start("operator-tokens", &LAB).unwrap();
    let id = add_operator(&fleet, "operator").unwrap();
    let look = ["get", "deployments"];
    run_as(&fleet, "operator", &look).must_succeed().unwrap();
    fleet
        .keyfleet(&["token", "revoke", &id])
        .unwrap()
        .must_succeed()
        .unwrap();
    must_refuse(&fleet, "operator", &look, "unknown, revoked or has ended");

    let forged = fleet.stack.dir().join("forged.token");
    fs::write(&forged, format!("kfo_{}\n", "A".repeat(43))).unwrap();
    fs::set_permissions(&forged, fs::Permissions::from_mode(0o600)).unwrap();
    add_context(&fleet, "forged", &forged).unwrap();
    must_refuse(&fleet, "forged", &look, "unknown, revoked or has ended");

    // A join token is none for operators, and no token is none at all.
    let join = fs::read_to_string(new_token(&fleet, "join-only", &["join"]).unwrap()).unwrap();
    let call = |token: Option<&str>| {
        let answer = grpc(&fleet, async |channel| get_status(channel, token).await);
        let status = answer.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
        status.message().to_owned()
    };
    assert!(call(Some(join.trim())).contains("unknown, revoked or has ended"));
    assert!(call(None).contains("no bearer token"));
}

/// Calls the operators' port without the operator's command.
fn grpc<T>(fleet: &Fleet, call: impl AsyncFnOnce(Channel) -> T) -> Result<T> {
    let ca = fleet.control.data_dir.join("ca.pem");
    dial(&fleet.control.operators_url, &ca, call)
}

/// Calls a port that shows a certificate of the CA in this file.
pub(crate) fn dial<T>(url: &str, ca: &Path, call: impl AsyncFnOnce(Channel) -> T) -> Result<T> {
    // A second installation is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = Certificate::from_pem(fs::read(ca)?);
    let tls = ClientTlsConfig::new().ca_certificate(ca);
    let endpoint = Channel::from_shared(url.to_owned())?;
    let endpoint = endpoint
        .tls_config(tls)?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { Ok(call(endpoint.connect().await?).await) })
}

async fn get_status(
    channel: Channel,
    token: Option<&str>,
) -> Result<v1::GetStatusResponse, tonic::Status> {
    let mut request = tonic::Request::new(v1::GetStatusRequest {});
    if let Some(value) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
        request.metadata_mut().insert("authorization", value);
    }
    Ok(OperatorServiceClient::new(channel)
        .get_status(request)
        .await?
        .into_inner())
}

#[test]
fn the_operators_port_tells_everybody_how_it_is() {
    let fleet = Fleet::start("health", &LAB).unwrap();
    let service = "keyfleet.v1.OperatorService";
    for name in ["", service] {
        let question = HealthCheckRequest {
            service: name.to_owned(),
        };
        let answer = grpc(&fleet, async |channel| {
            HealthClient::new(channel).check(question).await
        });
        assert_eq!(
            answer.unwrap().unwrap().into_inner().status(),
            ServingStatus::Serving,
            "{name:?}"
        );
    }
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = grpc(&fleet, async |channel| {
        let mut client = ServerReflectionClient::new(channel);
        let mut answers = client
            .server_reflection_info(tokio_stream::iter([question]))
            .await?
            .into_inner();
        answers.message().await
    });
    let answer = answer.unwrap().unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        list.service.iter().any(|known| known.name == service),
        "{list:?}"
    );
    assert_eq!(fleet.page("/healthz").unwrap(), "ok\n");
    assert_eq!(fleet.page("/readyz").unwrap(), "ready\n");
    assert_eq!(fleet.metric("keyfleet_deployments").unwrap(), 1);
}

/// One change that makes the manifests wrong.
struct Wrong {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// Where and what the error says.
    words: &'static [&'static str],
}

const WRONG: [Wrong; 10] = [
    Wrong {
        file: "placement.yaml",
        from: "spaces: [soc, hunting]",
        to: "spaces: [default, hunting]",
        words: &["placement.yaml:", "everywhere", "security-spaces", "lab"],
    },
    Wrong {
        file: "connector.yaml",
        from: "/v1/chat/completions",
        to: "/v1",
        words: &[
            "connector.yaml:12",
            "spec.config.apiUrl",
            "/v1/chat/completions",
        ],
    },
    Wrong {
        file: "key.yaml",
        from: "allowedHosts: [127.0.0.1]",
        to: "allowedHosts: [localhost]",
        words: &[
            "connector.yaml:",
            "spec.config.apiUrl",
            "localhost only",
            "127.0.0.1",
        ],
    },
    Wrong {
        file: "placement.yaml",
        from: "strategyRef: canary-first",
        to: "strategyRef: canary-last",
        words: &[
            "placement.yaml:",
            "spec.strategyRef",
            "there is no Strategy \"canary-last\"",
        ],
    },
    Wrong {
        file: "placement.yaml",
        from: "connectors: [assistant]",
        to: "connectors: [helper]",
        words: &[
            "placement.yaml:",
            "spec.connectors[0]",
            "there is no Connector \"helper\"",
        ],
    },
    Wrong {
        file: "connector.yaml",
        from: "key: openai",
        to: "key: other",
        words: &["connector.yaml:", "spec.key", "there is no Key \"other\""],
    },
    Wrong {
        file: "key.yaml",
        from: "path: keyfleet/openai",
        to: "path: admin/openai",
        words: &[
            "key.yaml:",
            "spec.vault.path",
            "secret/admin/openai",
            "secret/keyfleet/",
        ],
    },
    Wrong {
        file: "key.yaml",
        from: "path: keyfleet/openai",
        to: "path: keyfleet/missing",
        words: &["key.yaml:", "spec.vault", "keyfleet/missing"],
    },
    Wrong {
        file: "key.yaml",
        from: "  provider: openai",
        to: "  provider: openai\n  scope:\n    matchLabels: {team: finance}",
        words: &[
            "placement.yaml:",
            "spec.selector",
            "deployment lab",
            "scope",
        ],
    },
    Wrong {
        file: "connector.yaml",
        from: "defaultModel: gpt-5.4-mini",
        to: "defaultModle: gpt-5.4-mini",
        words: &["connector.yaml:13", "defaultModle"],
    },
];

#[test]
fn wrong_manifests_are_refused_with_file_and_line_and_nothing_is_stored() {
    const MEMBERS: [Member; 1] = [("lab", "8.18.0", &["default"], &[("team", "security")])];
    let fleet = Fleet::start("manifests", &MEMBERS).unwrap();
    for Wrong {
        file,
        from,
        to,
        words,
    } in WRONG
    {
        let path = fleet.manifests.dir().join(file);
        let right = fs::read_to_string(&path).unwrap();
        fleet.manifests.edit(file, from, to).unwrap();
        for verb in ["plan", "apply"] {
            let dir = fleet.manifests.dir().to_string_lossy().into_owned();
            let done = fleet.keyfleet(&[verb, "-f", &dir]).unwrap();
            assert_eq!(done.code, 4, "{verb} with {to:?}: {done:?}");
            for word in words {
                assert!(
                    done.err.contains(word),
                    "{verb} with {to:?}: {word:?} is not in {}",
                    done.err
                );
            }
        }
        fs::write(&path, right).unwrap();
    }
    for kind in ["keys", "connectors", "placements"] {
        let listed = fleet.stack.json(&["get", kind]).unwrap();
        assert_eq!(listed[kind].as_array().unwrap().len(), 0, "{listed}");
    }
}

#[test]
fn a_sealed_vault_is_named_and_takes_nothing_away() {
    let fleet = Fleet::start_applied("sealed", &LAB).unwrap();
    fleet.stack.bao.seal().unwrap();
    let problem = fleet
        .wait_until("the status names the problem", || {
            let status = fleet.stack.json(&["status"]).ok()?;
            Some(status["problems"].get(0)?.as_str()?.to_owned())
        })
        .unwrap();
    assert!(
        problem.contains("key openai") && problem.contains("sealed"),
        "{problem}"
    );
    let not_ready = fleet.page("/readyz").unwrap_err().to_string();
    assert!(not_ready.contains("503"), "{not_ready}");
    assert_eq!(
        fleet.page("/healthz").unwrap(),
        "ok\n",
        "the service itself is well"
    );
    assert!(fleet.is_proven("1").unwrap());

    // A change that needs no new version goes out with the value that is still in memory.
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
}

#[test]
fn a_space_that_is_not_there_stops_the_rollout_and_is_named() {
    let fleet = Fleet::start("space", &LAB).unwrap();
    fleet
        .manifests
        .edit(
            "placement.yaml",
            "spaces: [default]",
            "spaces: [default, nowhere]",
        )
        .unwrap();
    let held = fleet.apply().unwrap();
    assert_eq!(held.code, 5, "{held:?}");
    let binding = fleet.binding("lab", "nowhere").unwrap();
    let text = binding["text"].as_str().unwrap();
    assert!(text.contains("nowhere"), "{binding}");
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
}
