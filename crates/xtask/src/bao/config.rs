//! The files a lasting OpenBao server starts from: certificate, seal key, configuration.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Length of the key of the static seal (AES-256).
const SEAL_KEY_BYTES: usize = 32;

/// Files that all nodes of a cluster have in common.
const SHARED: [&str; 3] = ["ca.pem", "key.pem", "seal.key"];

/// Writes `ca.pem`, `key.pem`, `seal.key`, `server.hcl` and the empty `data/` into `dir`.
///
/// The server is initialised and unsealed by its own configuration: `initialize` blocks (OpenBao 2.4) make the admin
/// token, after which OpenBao revokes its root token, and the static seal unseals it at each start.
pub(super) fn write(dir: &Path, port: u16, admin_token: &str) -> Result<()> {
    make_data_dir(dir)?;
    let issued =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
            .context("cannot make a certificate for OpenBao")?;
    let mut seal_key = [0; SEAL_KEY_BYTES];
    getrandom::fill(&mut seal_key).context("the system gave no random bytes")?;
    write_file(&dir.join("ca.pem"), issued.cert.pem().as_bytes())?;
    write_file(
        &dir.join("key.pem"),
        issued.signing_key.serialize_pem().as_bytes(),
    )?;
    write_file(&dir.join("seal.key"), &seal_key)?;
    let server = server_hcl(dir, port, "") + &initialize_hcl(admin_token);
    write_file(&dir.join("server.hcl"), server.as_bytes())
}

/// As [`write`], for a node that joins the cluster of the one at `leader_address` with files in `leader_dir`. Its
/// data comes from there.
pub(super) fn write_joining(
    dir: &Path,
    port: u16,
    leader_dir: &Path,
    leader_address: &str,
) -> Result<()> {
    make_data_dir(dir)?;
    for name in SHARED {
        std::fs::copy(leader_dir.join(name), dir.join(name))
            .with_context(|| format!("cannot copy {name} of the first node"))?;
    }
    let ca = dir.join("ca.pem");
    let join = format!(
        r#"
  retry_join {{
    leader_api_addr     = "{leader_address}"
    leader_ca_cert_file = "{}"
  }}"#,
        ca.display()
    );
    write_file(
        &dir.join("server.hcl"),
        server_hcl(dir, port, &join).as_bytes(),
    )
}

fn make_data_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir.join("data"))
        .with_context(|| format!("cannot make {}/data", dir.display()))
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// The name of a node in its cluster.
pub(super) fn node_id(port: u16) -> String {
    format!("test-{port}")
}

/// `performance_multiplier = 1` makes an election take one second, not five.
fn server_hcl(dir: &Path, port: u16, join: &str) -> String {
    let dir = dir.display();
    let (cluster_port, node_id) = (port + 1, node_id(port));
    format!(
        r#"api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
ui = false

listener "tcp" {{
  address       = "127.0.0.1:{port}"
  tls_cert_file = "{dir}/ca.pem"
  tls_key_file  = "{dir}/key.pem"
}}

storage "raft" {{
  path                   = "{dir}/data"
  node_id                = "{node_id}"
  performance_multiplier = 1{join}
}}

seal "static" {{
  current_key_id = "test"
  current_key    = "file://{dir}/seal.key"
}}
"#
    )
}

/// The first node makes the cluster and the admin token.
fn initialize_hcl(admin_token: &str) -> String {
    format!(
        r#"
initialize "admin" {{
  request "policy" {{
    operation = "update"
    path      = "sys/policies/acl/admin"
    data      = {{ policy = "path \"*\" {{ capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\", \"sudo\"] }}" }}
  }}
  request "token" {{
    operation = "update"
    path      = "auth/token/create"
    data      = {{ id = "{admin_token}", policies = ["admin"], no_parent = true, period = "768h" }}
  }}
}}
"#
    )
}
