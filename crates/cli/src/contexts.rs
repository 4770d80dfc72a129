//! Contexts: which control service, trusted how, as whom. One TOML file of mode 0600 holds all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keyfleet_proto::tunnel::{self, Proxy};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use crate::env::Env;
use crate::files;

/// Longest name of a context.
const NAME_CHARS_MAX: usize = 63;

/// A file of contexts, or a context, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// None of the variables is set that say where the file is.
    #[error(
        "cannot tell where contexts are kept: none of KEYFLEET_CONFIG, XDG_CONFIG_HOME and HOME is set"
    )]
    NoPlace,
    /// The file itself.
    #[error("cannot use the file of contexts")]
    File(#[source] files::Error),
    /// Not the TOML it should be. The text around the place is left out: it may hold a token.
    #[error("{}, line {line}: {problem}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The contexts cannot be written as TOML.
    #[error("cannot write the contexts: {0}")]
    Unwritable(String),
    /// No context is chosen.
    #[error("no context is chosen")]
    NoneChosen,
    /// No context of this name.
    #[error("there is no context {name:?}{}", known(known_names))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known_names: Vec<String>,
    },
    /// A context of this name is there.
    #[error("a context {0:?} is there already")]
    Exists(String),
    /// Not a name.
    #[error(
        "{0:?} cannot name a context: use 1 to {NAME_CHARS_MAX} letters, digits, `-`, `_` or `.`"
    )]
    Name(String),
    /// Not an endpoint.
    #[error("{endpoint:?} is not an endpoint: {problem}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a CA certificate.
    #[error("{} {problem}", path.display())]
    Ca {
        /// Which file.
        path: PathBuf,
        /// What is wrong, to be read after the path.
        problem: &'static str,
    },
    /// Not a token.
    #[error("the token is {0}")]
    Token(&'static str),
    /// Not a proxy. What was given is left out: it may hold a password.
    #[error("the proxy {0}")]
    Proxy(#[source] tunnel::ParseError),
    /// A password among the arguments.
    #[error("the proxy holds a password, and everybody on this machine can see arguments")]
    ProxyPassword,
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        "; there are none yet".to_owned()
    } else {
        format!("; there are: {}", names.join(", "))
    }
}

/// How a first context is made.
const ADD_HINT: &str =
    "`keyfleet context add NAME --endpoint https://HOST:PORT --ca FILE --token-file FILE` adds one";

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::File(err) => err.hint(),
            Self::NoneChosen => Some(format!(
                "{ADD_HINT}; `keyfleet context use NAME` chooses one"
            )),
            Self::Unknown { known_names, .. } if known_names.is_empty() => {
                Some(ADD_HINT.to_owned())
            }
            Self::Unknown { .. } => Some("`keyfleet context list` shows them".to_owned()),
            Self::Exists(_) => Some("give --replace, or another name".to_owned()),
            Self::Endpoint { .. } => Some(
                "write https://HOST:PORT, the operators' port of the control service".to_owned(),
            ),
            Self::Ca { .. } => Some(
                "give the CA certificate that `keyfleet-control init` wrote, in PEM".to_owned(),
            ),
            Self::Syntax { .. } => {
                Some("mend the file, or remove it and add the contexts again".to_owned())
            }
            Self::Token(_) => Some(
                "the token is one line, as `keyfleet token create operator` printed it".to_owned(),
            ),
            Self::ProxyPassword => Some(
                "write the address into a file of mode 0600 and give `--proxy-file FILE`"
                    .to_owned(),
            ),
            Self::NoPlace | Self::Unwritable(_) | Self::Name(_) | Self::Proxy(_) => None,
        }
    }
}

/// One control service and how to speak to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `https://host:port`.
    pub(crate) endpoint: String,
    /// The operator's token.
    #[serde(serialize_with = "expose")]
    pub(crate) token: SecretString,
    /// The HTTP proxy before the control service; it may hold a password. Where it is left out, the environment counts.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "expose_some"
    )]
    pub(crate) proxy: Option<SecretString>,
    /// CA certificates in PEM: the only ones trusted.
    pub(crate) ca: String,
}

/// Writes the token into the private file: the one place where it is kept.
fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn expose_some<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret
        .as_ref()
        .map(ExposeSecret::expose_secret)
        .serialize(serializer)
}

/// All contexts and which one is used.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Name of the context used where no `--context` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file; one that is not there is empty.
    ///
    /// # Errors
    /// Where the file may be read by others, or is not valid.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = files::read_private(path).map_err(Error::File)?;
        toml::from_str(&text).map_err(|err| {
            let before = err
                .span()
                .and_then(|span| text.get(..span.start))
                .unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Error::Syntax {
                path: path.to_owned(),
                line,
                problem: err.message().to_owned(),
            }
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let text =
            toml::to_string_pretty(self).map_err(|err| Error::Unwritable(err.to_string()))?;
        files::write_private(path, &text).map_err(Error::File)
    }

    /// The context of this name, else the current one, with its name.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<(&str, &Context), Error> {
        let name = name.or(self.current.as_deref()).ok_or(Error::NoneChosen)?;
        let (name, context) = self
            .contexts
            .get_key_value(name)
            .ok_or_else(|| self.unknown(name))?;
        Ok((name, context))
    }

    /// The error for a name that is not there.
    pub(crate) fn unknown(&self, name: &str) -> Error {
        Error::Unknown {
            name: name.to_owned(),
            known_names: self.contexts.keys().cloned().collect(),
        }
    }
}

/// Where the file is: `$KEYFLEET_CONFIG`, else `$XDG_CONFIG_HOME/keyfleet/config.toml`, else below `~/.config`.
///
/// # Errors
/// Where no variable says it.
pub(crate) fn path(env: &Env) -> Result<PathBuf, Error> {
    let in_folder = |dir: PathBuf| dir.join("keyfleet").join("config.toml");
    env.config
        .clone()
        .or_else(|| env.xdg_config_home.clone().map(in_folder))
        .or_else(|| env.home.clone().map(|home| in_folder(home.join(".config"))))
        .ok_or(Error::NoPlace)
}

/// Checks the name of a new context.
///
/// # Errors
/// Where it could not be typed without quotes.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ok = !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(plain);
    if ok {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

/// Checks an endpoint and gives it in its short form.
///
/// # Errors
/// Says which part is wrong.
pub(crate) fn check_endpoint(endpoint: &str) -> Result<String, Error> {
    let err = |problem: &str| Error::Endpoint {
        endpoint: endpoint.to_owned(),
        problem: problem.to_owned(),
    };
    let url = Url::parse(endpoint).map_err(|parse_err| err(&parse_err.to_string()))?;
    if url.scheme() != "https" {
        return Err(err("it must begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(err("it must not hold a user or a password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(err("it must end after the port"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Reads a CA file.
///
/// # Errors
/// Where it holds no certificate, or a private key, which has no place in a context.
pub(crate) fn read_ca(path: &Path) -> Result<String, Error> {
    let err = |problem| Error::Ca {
        path: path.to_owned(),
        problem,
    };
    let pem = files::read_public(path).map_err(Error::File)?;
    if pem.contains("PRIVATE KEY-----") {
        return Err(err("holds a private key"));
    }
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(err("holds no certificate in PEM"));
    }
    Ok(pem.trim().to_owned() + "\n")
}

/// Checks the address of a proxy from a private file.
///
/// # Errors
/// Where it is no address of an HTTP proxy.
pub(crate) fn check_proxy(text: &str) -> Result<SecretString, Error> {
    Proxy::parse(text).map_err(Error::Proxy)?;
    Ok(SecretString::from(text.trim().to_owned()))
}

/// The same from an argument, where a password has no place.
///
/// # Errors
/// Where it is no address of an HTTP proxy, or holds a password.
pub(crate) fn check_open_proxy(text: &str) -> Result<SecretString, Error> {
    if Proxy::parse(text).map_err(Error::Proxy)?.has_credentials() {
        return Err(Error::ProxyPassword);
    }
    check_proxy(text)
}

/// Checks a token that was read from a file or from standard input.
///
/// # Errors
/// Where it could not be sent in a header.
pub(crate) fn check_token(text: &str) -> Result<SecretString, Error> {
    let token = text.trim();
    if token.is_empty() {
        return Err(Error::Token("empty"));
    }
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::Token(
            "more than one word, or has characters that no token has",
        ));
    }
    Ok(SecretString::from(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_order() {
        let check = |config: &str, xdg: &str, home: &str, expect: Option<&str>| {
            let some = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
            let env = Env {
                config: some(config),
                xdg_config_home: some(xdg),
                home: some(home),
                ..Env::default()
            };
            assert_eq!(path(&env).ok(), expect.map(PathBuf::from));
        };
        check("/a.toml", "/x", "/h", Some("/a.toml"));
        check("", "/x", "/h", Some("/x/keyfleet/config.toml"));
        check("", "", "/h", Some("/h/.config/keyfleet/config.toml"));
        check("", "", "", None);
    }

    #[test]
    fn endpoints_are_checked() {
        let check = |text: &str, expect: Result<&str, &str>| match (check_endpoint(text), expect) {
            (Ok(endpoint), Ok(expect)) => assert_eq!(endpoint, expect),
            (Err(err), Err(expect)) => assert!(err.to_string().contains(expect), "{err}"),
            (outcome, _) => panic!("{text}: {outcome:?}"),
        };
        check("https://control:8443", Ok("https://control:8443"));
        check("https://[::1]:8443/", Ok("https://[::1]:8443"));
        check("http://control:8443", Err("https://"));
        check("control:8443", Err("https://"));
        check("https://", Err("empty host"));
        check("https://me:pw@control", Err("password"));
        check("https://control/api", Err("end after the port"));
    }

    #[test]
    fn a_broken_file_never_shows_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        files::write_private(
            &path,
            "[contexts.a]\nendpoint = 'x'\ntoken = 'kf_secret' kf_secret\n",
        )
        .unwrap();
        let err = Contexts::load(&path).err().unwrap();
        let text = format!("{err} {err:?}");
        assert!(
            text.contains("line 3") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn tokens_are_checked() {
        assert_eq!(check_token(" kf_abc\n").unwrap().expose_secret(), "kf_abc");
        for bad in ["", "\n", "two words", "kf\u{e9}"] {
            assert!(check_token(bad).is_err(), "{bad:?}");
        }
    }
}
