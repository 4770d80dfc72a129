//! The HTTP client: which authorities it trusts, what it presents, which proxy it goes through.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::settings::Auth;
use crate::{Error, Settings};

/// A node that is gone without a trace must not use up the time for the next one.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Builds a client with the files as they are now.
pub(crate) fn build(settings: &Settings) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout.min(CONNECT_MAX));
    if let Some(path) = &settings.ca_file {
        let authorities = reqwest::Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        if authorities.is_empty() {
            return wrong(format!("{} holds no PEM certificate", path.display()));
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Auth::Cert {
        cert_file,
        key_file,
        ..
    } = &settings.auth
    {
        builder = builder.identity(identity(cert_file, key_file)?);
    }
    if let Some(proxy) = &settings.proxy {
        let Ok(through) = reqwest::Proxy::all(proxy.url.clone()) else {
            return wrong("the proxy's address is none".to_owned());
        };
        let direct = proxy
            .no_proxy
            .as_deref()
            .and_then(reqwest::NoProxy::from_string);
        builder = builder.proxy(through.no_proxy(direct));
    }
    builder.build().or_else(|_| {
        wrong(
            "the TLS client cannot be built; is every certificate of the CA file valid, and does the private key belong to our certificate?"
                .to_owned(),
        )
    })
}

fn identity(cert_file: &Path, key_file: &Path) -> Result<reqwest::Identity, Error> {
    let key = Zeroizing::new(read(key_file)?);
    let mut pem = Zeroizing::new(read(cert_file)?);
    let mut both = Zeroizing::new(Vec::with_capacity(pem.len() + key.len() + 1));
    both.append(&mut pem);
    both.push(b'\n');
    both.extend_from_slice(&key);
    reqwest::Identity::from_pem(&both).or_else(|_| {
        let (cert, key) = (cert_file.display(), key_file.display());
        wrong(format!(
            "{cert} must hold a PEM certificate and {key} its PEM private key"
        ))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File {
        path: path.to_path_buf(),
        source,
    })
}

fn wrong<T>(what: String) -> Result<T, Error> {
    Err(Error::Settings { what })
}
