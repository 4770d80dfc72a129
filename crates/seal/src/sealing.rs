//! Keys sealed to one agent: HPKE base mode, X25519 + HKDF-SHA256 + ChaCha20-Poly1305 (RFC 9180).
//!
//! One context per session. Its nonces count up, so keys must be opened in the order they were sealed:
//! a key that is replayed, dropped, reordered or moved to another session or agent does not open.

use std::fmt;

use hpke::aead::{AeadCtxR, AeadCtxS, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use keyfleet_core::id::{DeploymentId, EnrolmentId, KeyName, KeyVersion};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::error::Error;

/// Separates this use of an agent's sealing key from every other one, for ever.
const LABEL: &[u8] = b"keyfleet/v1 key";

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// What a sealing context is bound to: a key sealed for one session opens in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionInfo {
    /// The deployment of the agent.
    pub deployment: DeploymentId,
    /// The agent's enrolment.
    pub enrolment: EnrolmentId,
    /// The nonce of the agent's `Hello`.
    pub nonce: [u8; 32],
}

impl SessionInfo {
    /// HPKE's `info`: the label, then fields of fixed length.
    fn to_bytes(self) -> Vec<u8> {
        let (deployment, enrolment) = (self.deployment.uuid(), self.enrolment.uuid());
        [
            LABEL,
            deployment.as_bytes(),
            enrolment.as_bytes(),
            &self.nonce,
        ]
        .concat()
    }
}

/// HPKE's associated data: the version in 8 bytes, then the name, which is the rest.
fn associated_data(key: &KeyName, version: KeyVersion) -> Vec<u8> {
    [&version.0.to_be_bytes(), key.as_str().as_bytes()].concat()
}

/// The private key of an agent that keys are sealed to; never leaves the agent's host.
pub struct SealingSecret(PrivateKey);

impl SealingSecret {
    /// A new one from the system's randomness.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(Error::Random)?;
        Ok(Self(X25519HkdfSha256::derive_keypair(seed.as_slice()).0))
    }

    /// The one that [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`Error::Secret`] where it is not 32 bytes long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        PrivateKey::from_bytes(bytes)
            .map(Self)
            .map_err(|_| Error::Secret)
    }

    /// The secret itself, to be stored in a file that only the agent can read.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        self.0.write_exact(bytes.as_mut_slice());
        bytes
    }

    /// The public half, which the agent enrols with.
    pub fn public(&self) -> [u8; 32] {
        let mut bytes = [0_u8; 32];
        X25519HkdfSha256::sk_to_pk(&self.0).write_exact(&mut bytes);
        bytes
    }
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingSecret(..)")
    }
}

/// Control's end of the sealing context of one session.
pub struct Sealer(AeadCtxS<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>);

impl Sealer {
    /// A context for the agent with this public key, and the encapsulated key (32 bytes) that the agent needs to open it.
    ///
    /// # Errors
    /// [`Error::PublicKey`].
    pub fn new(public: &[u8], info: &SessionInfo) -> Result<(Self, Vec<u8>), Error> {
        let public = PublicKey::from_bytes(public).map_err(|_| Error::PublicKey)?;
        let (encapsulated, context) = hpke::setup_sender(&OpModeS::Base, &public, &info.to_bytes())
            .map_err(|_| Error::PublicKey)?;
        Ok((Self(context), encapsulated.to_bytes().to_vec()))
    }

    /// Seals one key. What is sealed must be sent in the order of the calls.
    ///
    /// # Errors
    /// [`Error::Seal`] after 2^64 - 1 keys.
    pub fn seal(
        &mut self,
        key: &KeyName,
        version: KeyVersion,
        value: &SecretString,
    ) -> Result<Vec<u8>, Error> {
        self.0
            .seal(
                value.expose_secret().as_bytes(),
                &associated_data(key, version),
            )
            .map_err(|_| Error::Seal)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// The agent's end of the sealing context of one session.
pub struct Opener(AeadCtxR<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>);

impl Opener {
    /// The context behind an encapsulated key.
    ///
    /// A key that was encapsulated for somebody else is found out only by the first [`Self::open`].
    ///
    /// # Errors
    /// [`Error::Encapsulated`].
    pub fn new(
        secret: &SealingSecret,
        encapsulated: &[u8],
        info: &SessionInfo,
    ) -> Result<Self, Error> {
        let encapsulated =
            EncappedKey::from_bytes(encapsulated).map_err(|_| Error::Encapsulated)?;
        hpke::setup_receiver(&OpModeR::Base, &secret.0, &encapsulated, &info.to_bytes())
            .map(Self)
            .map_err(|_| Error::Encapsulated)
    }

    /// Opens the next key of the stream. After an error the session must end: the two ends no longer agree.
    ///
    /// # Errors
    /// [`Error::Open`] and [`Error::NotText`].
    pub fn open(
        &mut self,
        key: &KeyName,
        version: KeyVersion,
        ciphertext: &[u8],
    ) -> Result<SecretString, Error> {
        let value = self
            .0
            .open(ciphertext, &associated_data(key, version))
            .map(Zeroizing::new)
            .map_err(|_| Error::Open {
                key: key.clone(),
                version,
            })?;
        // Copied once into a buffer of exact size: a `String` that shrinks would leave an unwiped copy.
        let text = std::str::from_utf8(&value).map_err(|_| Error::NotText {
            key: key.clone(),
            version,
        })?;
        Ok(SecretString::from(text))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    const ENROLMENT: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3302";

    fn info(nonce: u8) -> SessionInfo {
        SessionInfo {
            deployment: DEPLOYMENT.parse().unwrap(),
            enrolment: ENROLMENT.parse().unwrap(),
            nonce: [nonce; 32],
        }
    }

    fn name(text: &str) -> KeyName {
        text.parse().unwrap()
    }

    fn ends(
        secret: &SealingSecret,
        sealed: &SessionInfo,
        opened: &SessionInfo,
    ) -> (Sealer, Opener) {
        let (sealer, encapsulated) = Sealer::new(&secret.public(), sealed).unwrap();
        (sealer, Opener::new(secret, &encapsulated, opened).unwrap())
    }

    #[test]
    fn keys_open_in_the_order_they_were_sealed() {
        let secret = SealingSecret::generate().unwrap();
        let secret = SealingSecret::from_bytes(secret.to_bytes().as_slice()).unwrap();
        let (mut sealer, mut opener) = ends(&secret, &info(1), &info(1));
        for (version, value) in [(1, "first"), (2, "second"), (3, "")] {
            let version = KeyVersion(version);
            let sealed = sealer
                .seal(&name("openai"), version, &SecretString::from(value))
                .unwrap();
            let opened = opener.open(&name("openai"), version, &sealed).unwrap();
            assert_eq!(opened.expose_secret(), value);
        }
    }

    #[test]
    fn a_key_opens_only_where_when_and_as_what_it_was_sealed() {
        let secret = SealingSecret::generate().unwrap();
        let value = SecretString::from("value");
        let check = |opener_secret: &SealingSecret,
                     opened: SessionInfo,
                     key: &str,
                     version: u64,
                     drop_first: bool| {
            let (mut sealer, encapsulated) = Sealer::new(&secret.public(), &info(1)).unwrap();
            let mut opener = Opener::new(opener_secret, &encapsulated, &opened).unwrap();
            if drop_first {
                sealer.seal(&name("openai"), KeyVersion(1), &value).unwrap();
            }
            let sealed = sealer.seal(&name("openai"), KeyVersion(1), &value).unwrap();
            opener
                .open(&name(key), KeyVersion(version), &sealed)
                .is_ok()
        };
        assert!(check(&secret, info(1), "openai", 1, false));
        assert!(
            !check(&secret, info(2), "openai", 1, false),
            "another session"
        );
        assert!(!check(&secret, info(1), "other", 1, false), "another Key");
        assert!(
            !check(&secret, info(1), "openai", 2, false),
            "another version"
        );
        assert!(!check(&secret, info(1), "openai", 1, true), "out of order");
        assert!(
            !check(
                &SealingSecret::generate().unwrap(),
                info(1),
                "openai",
                1,
                false
            ),
            "another agent"
        );
    }

    #[test]
    fn nonsense_from_a_peer_is_an_error() {
        let secret = SealingSecret::generate().unwrap();
        assert!(matches!(
            Sealer::new(&[1, 2, 3], &info(1)),
            Err(Error::PublicKey)
        ));
        assert!(matches!(
            Sealer::new(&[0; 32], &info(1)),
            Err(Error::PublicKey)
        ));
        assert!(matches!(
            Opener::new(&secret, &[], &info(1)),
            Err(Error::Encapsulated)
        ));
        assert!(matches!(
            SealingSecret::from_bytes(&[0; 31]),
            Err(Error::Secret)
        ));
        let (_, mut opener) = ends(&secret, &info(1), &info(1));
        assert!(matches!(
            opener.open(&name("k"), KeyVersion(1), &[0; 4]),
            Err(Error::Open { .. })
        ));
    }

    #[test]
    fn debug_tells_nothing() {
        let secret = SealingSecret::generate().unwrap();
        assert_eq!(format!("{secret:?}"), "SealingSecret(..)");
    }
}
