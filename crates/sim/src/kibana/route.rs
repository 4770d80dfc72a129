//! Which route a path names, and in which space.

use super::DEFAULT_SPACE;

/// A parsed path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) space: String,
    pub(super) route: Route,
}

/// The routes that are simulated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Collection,
    Connector(String),
    Execute(String),
    List,
    Types,
    Status,
    Spaces,
    Space(String),
    AlertingHealth,
    Internal,
    Other,
}

impl Target {
    /// Takes off the space prefix `/s/{space}`; without one it is the default space.
    pub(super) fn parse(path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["s", space, rest @ ..] => Self {
                space: (*space).to_owned(),
                route: Route::parse(rest),
            },
            all => Self {
                space: DEFAULT_SPACE.to_owned(),
                route: Route::parse(all),
            },
        }
    }
}

impl Route {
    fn parse(segments: &[&str]) -> Self {
        match segments {
            ["api", "actions", "connector"] | ["api", "actions", "connector", ""] => {
                Self::Collection
            }
            ["api", "actions", "connector", id] => Self::Connector((*id).to_owned()),
            ["api", "actions", "connector", id, "_execute"] => Self::Execute((*id).to_owned()),
            ["api", "actions", "connectors"] => Self::List,
            ["api", "actions", "connector_types"] => Self::Types,
            ["api", "status"] => Self::Status,
            ["api", "spaces", "space"] => Self::Spaces,
            ["api", "spaces", "space", id] => Self::Space((*id).to_owned()),
            ["api", "alerting", "_health"] => Self::AlertingHealth,
            ["internal", ..] => Self::Internal,
            _ => Self::Other,
        }
    }

    /// The name under which the request log counts it.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Collection => "collection",
            Self::Connector(_) => "connector",
            Self::Execute(_) => "execute",
            Self::List => "connectors",
            Self::Types => "connector_types",
            Self::Status => "status",
            Self::Spaces | Self::Space(_) => "spaces",
            Self::AlertingHealth => "alerting_health",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }

    pub(super) fn connector_id(&self) -> Option<&str> {
        match self {
            Self::Connector(id) | Self::Execute(id) => Some(id),
            Self::Collection
            | Self::List
            | Self::Types
            | Self::Status
            | Self::Spaces
            | Self::Space(_)
            | Self::AlertingHealth
            | Self::Internal
            | Self::Other => None,
        }
    }
}
