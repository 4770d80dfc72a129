//! What a context trusts: a bundle of CA certificates, which learns the next one while the CA is being replaced.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The bundle with the certificates of `offered` that it does not hold yet; `None` where there are none.
///
/// What TLS would not take as a trust anchor is left out: it would break the whole bundle.
pub(crate) fn with(bundle: &str, offered: &str) -> Option<String> {
    let known = certificates(bundle);
    let mut grown = bundle.trim_end().to_owned();
    let mut is_grown = false;
    for block in blocks(offered) {
        let new = certificates(&block).into_iter().next();
        let is_anchor = |new: &CertificateDer<'static>| {
            RootCertStore::empty().add(new.clone()).is_ok() && !known.contains(new)
        };
        if new.as_ref().is_some_and(is_anchor) {
            grown.push('\n');
            grown.push_str(&block);
            is_grown = true;
        }
    }
    is_grown.then(|| grown + "\n")
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

/// Each certificate's own text; nothing else of it is taken.
fn blocks(pem: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let parts = pem.split(BEGIN).skip(1);
    let bodies = parts.filter_map(|part| part.split_once(END));
    bodies
        .map(|(body, _)| format!("{BEGIN}{body}{END}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn ca() -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        made.pem()
    }

    #[test]
    fn a_bundle_learns_new_certificates_and_nothing_else() {
        let (old, new) = (ca(), ca());
        let both = with(&old, &new).unwrap();
        assert_eq!(certificates(&both).len(), 2);
        assert!(both.starts_with(old.trim_end()), "{both}");
        assert_eq!(with(&both, &new), None, "known");
        assert_eq!(with(&both, &old.replace('\n', "\r\n")), None, "known");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for offered in ["", "canary", broken, "-----BEGIN CERTIFICATE-----\nAAAA"] {
            assert_eq!(with(&old, offered), None, "{offered:?}");
        }
        let noisy = format!("canary\n{broken}{new}canary\n");
        let grown = with(&old, &noisy).unwrap();
        assert_eq!(certificates(&grown).len(), 2);
        assert!(!grown.contains("canary"), "{grown}");
    }
}
