//! The one error of this crate. No variant holds a secret or a foreign error that could hold one.

use keyfleet_core::id::{KeyName, KeyVersion};

/// Why something could not be sealed, opened, named or hardened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The public key an agent enrolled with is not an X25519 key.
    #[error("the sealing public key is not a usable X25519 key of 32 bytes: enrol the agent again")]
    PublicKey,
    /// The file with an agent's sealing secret is damaged.
    #[error("the sealing secret is not 32 bytes long: its file is damaged, enrol the agent again")]
    Secret,
    /// The file with the fingerprint key is damaged.
    #[error("the fingerprint key is not 32 bytes long: restore its file from a backup")]
    FingerprintKey,
    /// Control opened the session with something else than an encapsulated key for this agent.
    #[error("the encapsulated key of the session is not usable with this agent's sealing secret")]
    Encapsulated,
    /// A context seals at most 2^64 - 1 messages.
    #[error("the sealing context of this session is used up: begin a new session")]
    Seal,
    /// A key that was sealed for somebody else, for another session, out of order, or damaged on the way.
    #[error(
        "cannot open key {key} {version}: it was not sealed for this agent, session and place in the stream"
    )]
    Open {
        /// The Key it was said to be.
        key: KeyName,
        /// The version it was said to be.
        version: KeyVersion,
    },
    /// A key that opened, and is not text.
    #[error("key {key} {version} is not UTF-8 text")]
    NotText {
        /// The Key.
        key: KeyName,
        /// The version.
        version: KeyVersion,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The process could not be hardened.
    #[error("cannot keep this process out of core dumps ({step})")]
    Harden {
        /// Which system call was refused.
        step: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
