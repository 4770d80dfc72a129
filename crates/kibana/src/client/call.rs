//! Which call an error is about.

use std::fmt;

/// Method and path of a call, and who was asked. Never a host, a query, a header or a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who was asked.
    pub service: Service,
    /// For example `PUT /s/soc/api/actions/connector/…`.
    pub line: String,
}

/// Whom this client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Kibana.
    Kibana,
    /// The Elasticsearch behind it, which keeps inference endpoints.
    Elasticsearch,
}

impl Service {
    /// The setting of its address in the agent's config.
    pub(crate) const fn url_setting(self) -> &'static str {
        match self {
            Self::Kibana => "`kibana.url`",
            Self::Elasticsearch => "`elasticsearch.url`",
        }
    }

    /// What its credentials must allow.
    pub(crate) const fn privilege(self) -> &'static str {
        match self {
            Self::Kibana => "`feature_actions.all` in this space",
            Self::Elasticsearch => "the cluster privilege `manage_inference`",
        }
    }

    /// What needs more than the Basic licence there.
    pub(crate) const fn licensed(self) -> &'static str {
        match self {
            Self::Kibana => "this connector type",
            Self::Elasticsearch => "inference endpoints",
        }
    }

    /// Where nothing is at an address, what may be wrong.
    pub(crate) const fn elsewhere(self) -> &'static str {
        match self {
            Self::Kibana => "that the space exists, and that Kibana is 8.9.0 or newer",
            Self::Elasticsearch => "and that Elasticsearch is 8.17 or newer",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kibana => "Kibana",
            Self::Elasticsearch => "Elasticsearch",
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}
