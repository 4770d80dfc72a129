//! Certificates of the fake control service: its CAs, what they signed, and who shows which.

use keyfleet_proto::v1;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, PublicKeyData,
};
use rustls::pki_types::CertificateSigningRequestDer;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Status};
use uuid::Uuid;

use super::{Control, Inner};

/// A certificate.
#[derive(Clone)]
pub(crate) struct Given {
    pub(super) der: Vec<u8>,
    pub(super) enrolment: Uuid,
    pub(super) number: u64,
}

impl Control {
    /// The certificate of the caller, if it belongs to the present enrolment.
    pub(super) fn caller<T>(&self, request: &Request<T>) -> Result<Given, Status> {
        let certificates = request.peer_certs().unwrap_or_default();
        let state = self.state();
        let given = certificates
            .first()
            .and_then(|der| state.given.iter().find(|given| given.der == der.as_ref()))
            .filter(|given| given.enrolment == state.enrolment);
        given.cloned().ok_or_else(|| {
            Status::unauthenticated("deployment is not enrolled with this certificate")
        })
    }

    /// Signs a request: a new certificate with the next number, and whom to trust.
    pub(super) fn issue(
        &self,
        request_der: &[u8],
        again: bool,
    ) -> (
        bytes::Bytes,
        Vec<bytes::Bytes>,
        Option<prost_types::Timestamp>,
    ) {
        let Inner { ca, next_ca, .. } = &*self.inner;
        let der = CertificateSigningRequestDer::from(request_der.to_vec());
        let csr = CertificateSigningRequestParams::from_der(&der).unwrap();
        self.change(|state| {
            let issuer = if state.rotating { next_ca } else { ca };
            let certificate = csr.signed_by(issuer).unwrap().der().to_vec();
            let of_this = |given: &&Given| given.enrolment == state.enrolment;
            let last = state
                .given
                .iter()
                .filter(of_this)
                .map(|given| given.number)
                .max();
            state.given.push(Given {
                der: certificate.clone(),
                enrolment: state.enrolment,
                number: last.unwrap_or(0) + u64::from(!again),
            });
            let mut cas = vec![bytes::Bytes::from(ca.der().to_vec())];
            if state.rotating {
                cas.push(next_ca.der().to_vec().into());
            }
            let not_after = jiff::Timestamp::now().as_second() + state.certificate_secs;
            let not_after = prost_types::Timestamp {
                seconds: not_after,
                nanos: 0,
            };
            (certificate.into(), cas, Some(not_after))
        })
    }
}

pub(super) fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(super) fn server_tls(
    ca: &CertifiedIssuer<'static, KeyPair>,
    clients: &[&CertifiedIssuer<'static, KeyPair>],
) -> ServerTlsConfig {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "::1".to_owned(),
    ])
    .unwrap()
    .signed_by(&key, ca)
    .unwrap();
    let chain = format!("{}{}", leaf.pem(), ca.pem());
    ServerTlsConfig::new()
        .identity(Identity::from_pem(chain, key.serialize_pem()))
        .client_ca_root(Certificate::from_pem(
            clients.iter().map(|ca| ca.pem()).collect::<String>(),
        ))
        .client_auth_optional(true)
}

/// True where these ask for the same identity: token, name and both keys.
pub(super) fn same(one: &v1::EnrollRequest, other: &v1::EnrollRequest) -> bool {
    let key = |request: &v1::EnrollRequest| {
        let der = CertificateSigningRequestDer::from(request.certificate_request_der.to_vec());
        let csr = CertificateSigningRequestParams::from_der(&der).unwrap();
        csr.public_key.subject_public_key_info()
    };
    let rest = |request: &v1::EnrollRequest| {
        (
            request.join_token.clone(),
            request.deployment_name.clone(),
            request.sealing_public_key.clone(),
        )
    };
    key(one) == key(other) && rest(one) == rest(other)
}
