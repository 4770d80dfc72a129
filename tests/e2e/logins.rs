//! Every way control logs in to Vault, KV version 1, and the sentence an operator reads for each trouble.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::SigningKey as _;
use xtask::bao::Bao;
use xtask::manifests::Manifests;
use xtask::stack::Stack;
use xtask::wait;

use crate::kit::{Fleet, KEY, Member, NO_WAY_OUT, PATIENCE, Setup};

const SECOND: &str = "sk-proj-e2e-7777777777777777777777777777777777oNe2";
const SECOND_TAIL: &str = "oNe2";
const UNKNOWN: &str = "sk-proj-e2e-8888888888888888888888888888888888oNe3";

const CANARY: [Member; 1] = [("lab", "9.4.0", &["default"], &[("tier", "canary")])];

#[test]
fn the_one_value_of_kv_version_1_rotates_and_what_is_gone_is_no_way_back() {
    let stack = Stack::start_quick("e2e-kv1-").unwrap();
    let bao = &stack.bao;
    bao.cli(&["secrets", "enable", "-path=team", "-version=1", "kv"])
        .unwrap();
    write_unversioned(bao, KEY);
    let setup = Setup {
        control: &[
            ("KEYFLEET_CONTROL__VAULT__KEY_PATHS", "team/keyfleet/"),
            NO_WAY_OUT,
        ],
        ..Setup::USUAL
    };
    let fleet = Fleet::start_on(stack, &CANARY, &setup).unwrap();
    let bao = &fleet.stack.bao;
    let rules = r#"path "team/keyfleet/*" { capabilities = ["read"] }"#;
    bao.policy("keyfleet", rules).unwrap();
    fleet
        .manifests
        .edit("key.yaml", "mount: secret", "mount: team")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.is_proven("1").unwrap());

    fleet.accept_key(SECOND).unwrap();
    write_unversioned(bao, SECOND);
    fleet.wait_until_proven("2").unwrap();
    assert!(fleet.all_have("gpt-5.4-mini", SECOND_TAIL).unwrap());

    // A key that the provider does not know: the value before is gone, so the rollout stands still.
    write_unversioned(bao, UNKNOWN);
    fleet.wait_for_phase("ROLLOUT_PHASE_HALTED").unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = fleet.stack.json(&["plan", "-f", &dir]).unwrap();
    let lost = plan["deployments"][0]["bindings"][0]["cannotRollBack"].as_str();
    assert!(
        lost.is_some_and(|lost| lost.contains("no more")),
        "{plan:#}"
    );

    // The old value comes back: a new version, believed at the second look.
    write_unversioned(bao, SECOND);
    fleet.wait_until_proven("4").unwrap();
    let log = fleet.control.process.log().unwrap();
    assert!(log.contains("Vault holds the value of version 2"), "{log}");
}

#[test]
fn control_logs_in_with_a_jwt_a_certificate_a_wrapped_secret_id_and_in_another_namespace() {
    let mut fleet = Fleet::start("logins", &CANARY).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let jwt = set_up_jwt(&fleet.stack);
    log_in_with(&mut fleet, &jwt);
    rotate(&fleet);

    let cert = set_up_cert(&fleet.stack);
    log_in_with(&mut fleet, &cert);
    rotate(&fleet);

    let wrapped = set_up_wrapped(&fleet.stack);
    log_in_with(&mut fleet, &wrapped);
    rotate(&fleet);
    fleet.control.process.restart().unwrap();
    wait_until_described(&fleet.stack, "is used up and cannot log in again");
    let stolen = wrap(&fleet.stack.bao);
    fleet.stack.bao.cli(&["unwrap", &stolen]).unwrap();
    fs::write(fleet.stack.dir().join("wrapped"), &stolen).unwrap();
    wait_until_described(&fleet.stack, "TAMPER ALARM");
    let log = fleet.control.process.log().unwrap();
    assert!(!log.contains(&stolen), "the log has the token");
    fs::write(fleet.stack.dir().join("wrapped"), wrap(&fleet.stack.bao)).unwrap();
    wait_until_described(&fleet.stack, "ok");
    rotate(&fleet);

    let newest = rotate(&fleet);
    set_up_namespace(&fleet.stack, newest);
    let settings = "namespace = \"team\"\nlogin_namespace = \"/\"\n";
    log_in_with(&mut fleet, settings);
    fleet.wait_until_proven(&(newest + 1).to_string()).unwrap();
}

#[test]
fn each_trouble_with_vault_has_its_own_sentence() {
    let mut stack = Stack::start_quick("e2e-sentences-").unwrap();
    let path = "keyfleet/openai";
    stack.bao.kv_put(path, "api_key", KEY).unwrap();
    let openai = stack.openai("openai", &[KEY]).unwrap();
    let control = stack.control(&[]).unwrap();
    let manifests = Manifests::copy(&stack.dir().join("manifests"), &openai.url).unwrap();
    let dir = manifests.dir().to_string_lossy();
    stack
        .keyfleet(&["apply", "-f", &dir])
        .unwrap()
        .must_succeed()
        .unwrap();
    wait_until_described(&stack, "ok");

    let bao = &stack.bao;
    bao.kv_delete(path, 1).unwrap();
    wait_until_described(
        &stack,
        "version 1 at secret/keyfleet/openai#api_key is deleted",
    );
    bao.cli(&["kv", "undelete", "-mount=secret", "-versions=1", path])
        .unwrap();
    wait_until_described(&stack, "ok");
    bao.kv_destroy(path, 1).unwrap();
    wait_until_described(&stack, "is destroyed and cannot be brought back");
    bao.kv_put(path, "other", KEY).unwrap();
    wait_until_described(&stack, "has no text field of that name");
    bao.kv_put(path, "api_key", "sk-admin-canary").unwrap();
    wait_until_described(&stack, "it is an admin key");
    bao.cli(&["kv", "metadata", "delete", "-mount=secret", path])
        .unwrap();
    wait_until_described(&stack, "Vault has no secret at secret/keyfleet/openai");
    bao.kv_put(path, "api_key", KEY).unwrap();
    bao.kv_put(path, "api_key", KEY).unwrap();
    wait_until_described(&stack, "ok");

    bao.policy("keyfleet", r#"path "nothing" { capabilities = ["read"] }"#)
        .unwrap();
    wait_until_described(&stack, "the policy of our login lacks `read`");
    let rules = r#"path "secret/*" { capabilities = ["read"] }"#;
    bao.policy("keyfleet", rules).unwrap();
    wait_until_described(&stack, "ok");
    let file = stack.dir().join("vault-token");
    bao.revoke_token(&fs::read_to_string(&file).unwrap())
        .unwrap();
    wait_until_described(&stack, "is expired or revoked");
    fs::write(&file, bao.token("keyfleet", "1h").unwrap()).unwrap();
    wait_until_described(&stack, "ok");

    bao.cli(&["secrets", "disable", "secret"]).unwrap();
    wait_until_described(&stack, "nothing is mounted in Vault for secret/");
    bao.cli(&["secrets", "enable", "-path=secret", "transit"])
        .unwrap();
    wait_until_described(&stack, "the mount `secret` is of type `transit`");
    bao.seal().unwrap();
    wait_until_described(&stack, "Vault is sealed");
    stack.bao.stop().unwrap();
    wait_until_described(&stack, "cannot reach Vault at 127.0.0.1");
    let status = stack.keyfleet(&["status"]).unwrap();
    assert!(status.out.contains("cannot reach Vault"), "{status:?}");
    drop(control);
}

fn write_unversioned(bao: &Bao, value: &str) {
    let arguments = ["write", "team/keyfleet/openai", "api_key=-"];
    bao.cli_with_input(&arguments, value).unwrap();
}

/// Writes the same value again, which makes a new version, and waits for its proof.
fn rotate(fleet: &Fleet) -> u64 {
    let version = fleet.write_key(KEY).unwrap();
    fleet.wait_until_proven(&version.to_string()).unwrap();
    version
}

/// Restarts control with other settings of Vault; those before are dropped.
fn log_in_with(fleet: &mut Fleet, settings: &str) {
    let file = fleet.stack.dir().join("control.toml");
    let first = fleet.stack.dir().join("control.first.toml");
    if !first.exists() {
        fs::copy(&file, &first).unwrap();
    }
    let text = fs::read_to_string(&first).unwrap();
    let text = text.replace("[vault]\n", &format!("[vault]\n{settings}"));
    fs::write(&file, text).unwrap();
    fleet.control.process.restart().unwrap();
}

/// Waits until `keyfleet describe key openai` has this text.
fn wait_until_described(stack: &Stack, text: &str) {
    let mut last = String::new();
    let found = wait::until(PATIENCE, || {
        let done = stack.keyfleet(&["describe", "key", "openai"]).ok()?;
        last = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = if text == "ok" { "Vault: ok" } else { text };
        last.contains(wanted).then_some(())
    });
    let logs = stack.dir().display();
    found.unwrap_or_else(|| panic!("never described: {text}; last: {last} (logs: {logs})"));
}

fn set_up_jwt(stack: &Stack) -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let (public, token) = (stack.dir().join("jwt.pub"), stack.dir().join("jwt"));
    fs::write(&public, key.public_key_pem()).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = serde_json::json!({
        "sub": "control", "aud": "vault", "iat": now, "nbf": now - 60, "exp": now + 3_600,
    });
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let signed = format!(
        "{}.{}",
        part(r#"{"alg":"EdDSA","typ":"JWT"}"#),
        part(&claims.to_string())
    );
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).unwrap());
    fs::write(&token, format!("{signed}.{signature}\n")).unwrap();
    let bao = &stack.bao;
    bao.cli(&["auth", "enable", "jwt"]).unwrap();
    let public = format!("jwt_validation_pubkeys=@{}", public.display());
    let algorithm = "jwt_supported_algs=EdDSA";
    bao.cli(&["write", "auth/jwt/config", &public, algorithm])
        .unwrap();
    bao.cli(&[
        "write",
        "auth/jwt/role/keyfleet",
        "role_type=jwt",
        "user_claim=sub",
        "bound_audiences=vault",
        "token_policies=keyfleet",
    ])
    .unwrap();
    format!("auth = \"jwt\"\njwt_role = \"keyfleet\"\njwt_token_file = {token:?}\n")
}

fn set_up_cert(stack: &Stack) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["control".to_owned()]).unwrap();
    let (cert, key) = (stack.dir().join("cert.pem"), stack.dir().join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificate = format!("certificate=@{}", cert.display());
    let bao = &stack.bao;
    bao.cli(&["auth", "enable", "cert"]).unwrap();
    let policy = "token_policies=keyfleet";
    bao.cli(&["write", "auth/cert/certs/keyfleet", &certificate, policy])
        .unwrap();
    format!("auth = \"cert\"\ncert_file = {cert:?}\ncert_key_file = {key:?}\n")
}

fn set_up_wrapped(stack: &Stack) -> String {
    let bao = &stack.bao;
    let role = bao.approle("keyfleet", "keyfleet", "1h", "2h").unwrap();
    let once = "secret_id_num_uses=1";
    bao.cli(&["write", "auth/approle/role/keyfleet", once])
        .unwrap();
    let (file, role_id) = (stack.dir().join("wrapped"), role.role_id);
    fs::write(&file, wrap(bao)).unwrap();
    format!(
        "auth = \"approle\"\napprole_role_id = \"{role_id}\"\napprole_secret_id_file = {file:?}\napprole_wrapped_role = \"keyfleet\"\n"
    )
}

/// A new secret id in a wrapping token.
fn wrap(bao: &Bao) -> String {
    let arguments = [
        "write",
        "-wrap-ttl=5m",
        "-force",
        "-field=wrapping_token",
        "auth/approle/role/keyfleet/secret-id",
    ];
    bao.cli(&arguments).unwrap().trim().to_owned()
}

/// The same path in a namespace, with one version more than was seen, for a token of the root.
fn set_up_namespace(stack: &Stack, newest: u64) {
    let bao = &stack.bao;
    bao.cli(&["namespace", "create", "team"]).unwrap();
    let enable = [
        "secrets",
        "enable",
        "-namespace=team",
        "-path=secret",
        "kv-v2",
    ];
    bao.cli(&enable).unwrap();
    let put = [
        "kv",
        "put",
        "-namespace=team",
        "-mount=secret",
        "keyfleet/openai",
        "api_key=-",
    ];
    for _ in 0..=newest {
        wait::until(PATIENCE, || bao.cli_with_input(&put, KEY).ok()).unwrap();
    }
    let rules = r#"path "team/secret/*" { capabilities = ["read"] }"#;
    bao.policy("keyfleet", rules).unwrap();
    let file = stack.dir().join("vault-token");
    fs::write(file, bao.token("keyfleet", "1h").unwrap()).unwrap();
}
