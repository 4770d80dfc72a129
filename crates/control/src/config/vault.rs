//! The settings of Vault, its logins and the proxies, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfleet_vault::{Auth, Proxy, Settings, Wrapped};
use url::Url;

use super::{Error, RawVault, invalid};

/// Where the hash of a used wrapping token is noted, in the data directory.
const USED_WRAPPING_TOKEN: &str = "vault-wrapping-token.used";

/// How to reach Vault and how to log in.
pub(super) fn settings(raw: &RawVault, data_dir: &Path) -> Result<Settings, Error> {
    let address = url("vault.address", &raw.address)?;
    let mut settings = Settings::new(address, auth(raw, data_dir)?);
    settings.more_addresses = raw
        .more_addresses
        .iter()
        .map(|text| url("vault.more_addresses", text))
        .collect::<Result<_, _>>()?;
    settings.ca_file = (!raw.ca_file.as_os_str().is_empty()).then(|| raw.ca_file.clone());
    settings.namespace = given(&raw.namespace);
    settings.login_namespace = given(&raw.login_namespace);
    settings.timeout = Duration::from_secs(u64::from(raw.timeout_secs));
    settings.proxy = proxy("vault", &raw.proxy, &raw.no_proxy)?;
    Ok(settings)
}

/// The proxy of a section. Its address may hold a password: no error repeats it.
pub(super) fn proxy(
    section: &str,
    address: &str,
    no_proxy: &[String],
) -> Result<Option<Proxy>, Error> {
    if address.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        let problem = "is not the address of a proxy: write http://proxy.example:3128";
        invalid(&format!("{section}.proxy"), problem)
    };
    let url: Url = address.parse().map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    let no_proxy = (!no_proxy.is_empty()).then(|| no_proxy.join(","));
    Ok(Some(Proxy { url, no_proxy }))
}

fn auth(raw: &RawVault, data_dir: &Path) -> Result<Auth, Error> {
    Ok(match raw.auth.as_str() {
        "token-file" => Auth::TokenFile(file("vault.token_file", &raw.token_file)?),
        "approle" => Auth::AppRole {
            mount: raw.approle_mount.clone(),
            role_id: text("vault.approle_role_id", &raw.approle_role_id)?,
            secret_id_file: file("vault.approle_secret_id_file", &raw.approle_secret_id_file)?,
            wrapped: given(&raw.approle_wrapped_role).map(|role| Wrapped {
                role,
                used_file: Some(data_dir.join(USED_WRAPPING_TOKEN)),
            }),
        },
        "kubernetes" => Auth::Jwt {
            mount: raw.kubernetes_mount.clone(),
            role: text("vault.kubernetes_role", &raw.kubernetes_role)?,
            token_file: file("vault.kubernetes_token_file", &raw.kubernetes_token_file)?,
        },
        "jwt" => Auth::Jwt {
            mount: raw.jwt_mount.clone(),
            role: text("vault.jwt_role", &raw.jwt_role)?,
            token_file: file("vault.jwt_token_file", &raw.jwt_token_file)?,
        },
        "cert" => Auth::Cert {
            mount: raw.cert_mount.clone(),
            role: given(&raw.cert_role),
            cert_file: file("vault.cert_file", &raw.cert_file)?,
            key_file: file("vault.cert_key_file", &raw.cert_key_file)?,
        },
        _ => {
            let problem = "use \"token-file\", \"approle\", \"kubernetes\", \"jwt\" or \"cert\"";
            return Err(invalid("vault.auth", problem));
        }
    })
}

fn url(name: &str, text: &str) -> Result<Url, Error> {
    text.parse()
        .map_err(|_| invalid(name, "is not a URL: write https://host:8200"))
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn text(name: &str, value: &str) -> Result<String, Error> {
    given(value).ok_or_else(|| invalid(name, "is empty: this way of logging in needs it"))
}

fn file(name: &str, path: &Path) -> Result<PathBuf, Error> {
    if path.as_os_str().is_empty() {
        return Err(invalid(
            name,
            "is empty: this way of logging in needs that file",
        ));
    }
    Ok(path.to_path_buf())
}
