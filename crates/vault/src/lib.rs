//! Reads keys and their versions from Vault or OpenBao.
//!
//! The only user of `vaultrs`: its request types say path, method and body, and everything else is ours,
//! because its client prints tokens, follows redirects with the token, panics on a token with
//! a newline, reads the environment, has no timeout and cannot read OpenBao's health.
//!
//! **Invariant:** a value goes from the answer's bytes, which are wiped, into a `SecretString` and nowhere else. No
//! error carries any text of an answer.
//!
//! Each client needs rustls' process-wide provider: `main` installs ring's before [`Vault::new`].

mod answer;
mod client;
mod error;
mod kv;
mod login;
mod mount;
mod retry;
mod settings;
mod transport;
mod value;
mod vault;

pub use error::{Error, ValueFault};
pub use kv::{KeyValue, Newest, VersionInfo, VersionState};
pub use settings::{Auth, Proxy, Settings, Wrapped};
pub use value::part;
pub use vault::{Health, Vault};
