//! The service account's token of a pod, with a small Kubernetes that reviews tokens.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyfleet_vault::{Auth, Error, Vault};
use serde_json::{Value, json};

use crate::common::{Fixture, read};

/// Reviews tokens as the API server does (`authentication.k8s.io/v1`): the one token it issued is good.
async fn api_server(issued: Arc<Mutex<String>>) -> String {
    let review = move |Json(asked): Json<Value>| async move {
        let is_good = asked["spec"]["token"] == *issued.lock().unwrap();
        let user = json!({"username": "system:serviceaccount:keyfleet:control", "uid": "uid-1",
            "groups": ["system:serviceaccounts"]});
        Json(
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "status": {"authenticated": is_good, "user": user, "audiences": asked["spec"]["audiences"]}}),
        )
    };
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let routes = axum::Router::new().route(path, post(review));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    format!("http://{address}")
}

/// A projected token in form; only the API server knows whether it is good.
fn token(serial: u32) -> String {
    let account =
        json!({"namespace": "keyfleet", "serviceaccount": {"name": "control", "uid": "uid-1"}});
    let claims = json!({"iss": "https://kubernetes.default.svc", "aud": ["vault"], "jti": serial.to_string(),
        "sub": "system:serviceaccount:keyfleet:control", "exp": 4_102_444_800_u64, "iat": 1_700_000_000,
        "nbf": 1_700_000_000, "kubernetes.io": account});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "RS256", "kid": "one", "typ": "JWT"});
    format!(
        "{}.{}.{}",
        part(&header),
        part(&claims),
        URL_SAFE_NO_PAD.encode([7; 256])
    )
}

#[tokio::test]
async fn a_service_account_logs_in_and_its_token_is_read_again_at_each_login() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.kv_put("openai/a", "api_key", "sk-first").unwrap();
    bao.cli(&["auth", "enable", "kubernetes"]).unwrap();
    let issued = Arc::new(Mutex::new(token(1)));
    let host = format!("kubernetes_host={}", api_server(issued.clone()).await);
    let reviewer = format!("token_reviewer_jwt={}", token(9));
    // Wanted by the method, and not used over plain http.
    let ca = format!("kubernetes_ca_cert=@{}", bao.ca_file().display());
    let config = [
        "write",
        "auth/kubernetes/config",
        &host,
        &ca,
        &reviewer,
        "disable_local_ca_jwt=true",
    ];
    bao.cli(&config).unwrap();
    bao.cli(&[
        "write",
        "auth/kubernetes/role/control",
        "bound_service_account_names=control",
        "bound_service_account_namespaces=keyfleet",
        "token_policies=reader",
    ])
    .unwrap();
    let file = fixture.file("sa-token", &token(1));
    let settings = fixture.settings(Auth::Jwt {
        mount: "kubernetes".to_owned(),
        role: "control".to_owned(),
        token_file: file,
    });
    let vault = Vault::connect(settings).await.unwrap();
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");

    // The kubelet has renewed the token, and the old one has ended.
    *issued.lock().unwrap() = token(2);
    bao.cli(&["lease", "revoke", "-prefix", "auth/kubernetes/login"])
        .unwrap();
    let error = read(&vault, "openai/a", None).await.unwrap_err();
    assert!(matches!(error, Error::LoginRefused { .. }), "{error:?}");
    fixture.file("sa-token", &token(2));
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
}
