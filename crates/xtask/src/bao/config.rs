//! The files a lasting OpenBao server starts from: certificate, seal key, configuration.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Length of the key of the static seal (AES-256).
const SEAL_KEY_BYTES: usize = 32;

/// Writes `ca.pem`, `key.pem`, `seal.key`, `server.hcl` and the empty `data/` into `dir`.
///
/// The server is initialised and unsealed by its own configuration: `initialize` blocks (OpenBao 2.4) make the admin
/// token, after which OpenBao revokes its root token, and the static seal unseals it at each start.
pub(super) fn write(dir: &Path, port: u16, admin_token: &str) -> Result<()> {
    std::fs::create_dir_all(dir.join("data"))
        .with_context(|| format!("cannot make {}/data", dir.display()))?;
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
    write_file(
        &dir.join("server.hcl"),
        server_hcl(dir, port, admin_token).as_bytes(),
    )
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// `performance_multiplier = 1` makes the first election of the single raft node take one second, not five.
fn server_hcl(dir: &Path, port: u16, admin_token: &str) -> String {
    let dir = dir.display();
    let cluster_port = port + 1;
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
  node_id                = "test"
  performance_multiplier = 1
}}

seal "static" {{
  current_key_id = "test"
  current_key    = "file://{dir}/seal.key"
}}

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
