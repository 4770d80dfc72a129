//! Adoption: a connector that was in a Kibana before Keyfleet becomes one of ours.

use std::fmt;

use crate::id::ConnectorName;

/// Which connector of a Kibana shall become ours, in every space of a placement where there is exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopt {
    /// Keyfleet's name for it.
    pub connector: ConnectorName,
    /// How it is found.
    pub by: AdoptBy,
}

/// How a connector to adopt is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptBy {
    /// By the name that people see; Kibana lets several share one.
    Name(String),
    /// By its id in Kibana.
    Id(String),
}

/// A connector of the space in question, as the agent saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its id in Kibana.
    pub id: &'a str,
    /// The name that people see.
    pub name: &'a str,
    /// For example `.gen-ai`.
    pub connector_type: &'a str,
    /// Kept in kibana.yml or by Kibana itself.
    pub is_read_only: bool,
    /// The connector of Keyfleet's that it is already.
    pub owner: Option<&'a ConnectorName>,
}

/// What follows from a rule and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The connector of this id is taken over.
    Take(String),
    /// Nothing there is meant: a new one is made.
    Make,
    /// Several are meant, and nobody can tell which.
    Several(Vec<String>),
    /// The one that is meant cannot be written.
    ReadOnly(String),
    /// The one that is meant is something else.
    OtherType {
        /// Its id.
        id: String,
        /// What it is.
        connector_type: String,
    },
    /// The one that is meant is another one of ours.
    Ours {
        /// Its id.
        id: String,
        /// Keyfleet's name for it.
        connector: ConnectorName,
    },
    /// The agent has not looked through all of its Kibana.
    NotYetKnown,
}

/// Looks for what a rule means among what was `seen`, which may not be everything: then only an id that is there decides.
///
/// Only connectors of the wanted type count where there is one: names of other types are no concern of ours.
pub fn resolve(
    adopt: &Adopt,
    seen: &[Seen<'_>],
    is_complete: bool,
    wanted_type: &str,
) -> Resolution {
    let is_there =
        matches!(&adopt.by, AdoptBy::Id(_)) && seen.iter().any(|seen| adopt.by.means(seen));
    if !is_complete && !is_there {
        return Resolution::NotYetKnown;
    }
    let meant = seen.iter().filter(|seen| adopt.by.means(seen));
    let (ours, free): (Vec<_>, Vec<_>) = meant.partition(|seen| seen.owner.is_some());
    let fitting: Vec<_> = free
        .iter()
        .filter(|seen| seen.connector_type == wanted_type)
        .collect();
    match (fitting.as_slice(), free.first(), ours.first()) {
        ([one], ..) if one.is_read_only => Resolution::ReadOnly(one.id.to_owned()),
        ([one], ..) => Resolution::Take(one.id.to_owned()),
        ([], Some(other), _) => Resolution::OtherType {
            id: other.id.to_owned(),
            connector_type: other.connector_type.to_owned(),
        },
        ([], None, Some(ours)) => match ours.owner {
            Some(connector) => Resolution::Ours {
                id: ours.id.to_owned(),
                connector: connector.clone(),
            },
            None => Resolution::Make,
        },
        ([], None, None) => Resolution::Make,
        (several, ..) => {
            let mut ids: Vec<String> = several.iter().map(|seen| seen.id.to_owned()).collect();
            ids.sort();
            Resolution::Several(ids)
        }
    }
}

impl AdoptBy {
    /// True where it means this connector, if that can be had.
    pub fn means(&self, seen: &Seen<'_>) -> bool {
        match self {
            Self::Name(name) => seen.name == name,
            Self::Id(id) => seen.id == id,
        }
    }
}

impl Resolution {
    /// Why nothing is touched, in a sentence; `None` where a connector is taken over or made.
    pub fn problem(&self, adopt: &Adopt, wanted_type: &str) -> Option<String> {
        let Adopt { connector, by } = adopt;
        Some(match self {
            Self::Take(_) | Self::Make => return None,
            Self::NotYetKnown => "waits for the agent's list of connectors, which is complete once every space was looked through; where a Kibana has more than the agent reports, name the connector by its id in spec.adopt".to_owned(),
            Self::Several(ids) => format!(
                "{} connectors have {by}, and only one can become {connector}: name it by its id in spec.adopt ({})",
                ids.len(),
                ids.join(", ")
            ),
            Self::ReadOnly(id) => format!(
                "the connector {id}, which shall become {connector}, is kept in kibana.yml or by Kibana itself and cannot be changed: take it out of spec.adopt, and a new one is made"
            ),
            Self::OtherType { id, connector_type } => format!(
                "the connector {id}, which shall become {connector}, has the type {connector_type} and not {wanted_type}: change spec.adopt or the connector's spec.type"
            ),
            Self::Ours {
                id,
                connector: other,
            } => format!(
                "the connector {id}, which shall become {connector}, is Keyfleet's {other} already: change spec.adopt"
            ),
        })
    }
}

impl fmt::Display for AdoptBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "the name {name:?}"),
            Self::Id(id) => write!(f, "the id {id:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = ".gen-ai";

    fn seen<'a>(id: &'a str, name: &'a str) -> Seen<'a> {
        Seen {
            id,
            name,
            connector_type: WANTED,
            is_read_only: false,
            owner: None,
        }
    }

    fn adopt(by: AdoptBy) -> Adopt {
        Adopt {
            connector: "assistant".parse().unwrap(),
            by,
        }
    }

    /// Looks for the name `OpenAI`.
    fn check(seen: &[Seen<'_>], expected: &Resolution) {
        let rule = adopt(AdoptBy::Name("OpenAI".to_owned()));
        assert_eq!(&resolve(&rule, seen, true, WANTED), expected, "{seen:?}");
        let is_done = matches!(expected, Resolution::Take(_) | Resolution::Make);
        assert_eq!(expected.problem(&rule, WANTED).is_none(), is_done);
    }

    #[test]
    fn exactly_one_of_the_right_type_is_taken_over() {
        let other: ConnectorName = "other".parse().unwrap();
        let slack = Seen {
            connector_type: ".slack",
            ..seen("s", "OpenAI")
        };
        let fixed = Seen {
            is_read_only: true,
            ..seen("f", "OpenAI")
        };
        let ours = Seen {
            owner: Some(&other),
            ..seen("o", "OpenAI")
        };
        let (a, b, c) = (
            seen("a", "OpenAI"),
            seen("b", "OpenAI"),
            seen("c", "openai"),
        );
        let take = |id: &str| Resolution::Take(id.to_owned());
        let several =
            |ids: &[&str]| Resolution::Several(ids.iter().map(|id| (*id).to_owned()).collect());
        check(&[], &Resolution::Make);
        check(std::slice::from_ref(&c), &Resolution::Make);
        check(&[c, a.clone()], &take("a"));
        check(&[b.clone(), a.clone()], &several(&["a", "b"]));
        check(&[slack.clone(), a.clone()], &take("a"));
        check(&[ours.clone(), a.clone()], &take("a"));
        check(&[fixed.clone(), a], &several(&["a", "f"]));
        check(
            std::slice::from_ref(&fixed),
            &Resolution::ReadOnly("f".to_owned()),
        );
        check(&[fixed, b, slack.clone()], &several(&["b", "f"]));
        let other_type = Resolution::OtherType {
            id: "s".to_owned(),
            connector_type: ".slack".to_owned(),
        };
        check(&[ours.clone(), slack], &other_type);
        let is_ours = Resolution::Ours {
            id: "o".to_owned(),
            connector: other.clone(),
        };
        check(&[ours], &is_ours);
    }

    #[test]
    fn an_id_means_that_one_whatever_it_is_called() {
        let rule = adopt(AdoptBy::Id("b".to_owned()));
        let both = [seen("a", "OpenAI"), seen("b", "OpenAI")];
        let found = resolve(&rule, &both, true, WANTED);
        assert_eq!(found, Resolution::Take("b".to_owned()));
        assert_eq!(
            resolve(&rule, &both[..1], true, WANTED),
            Resolution::Make,
            "it is not there"
        );
        // It needs no complete list to be found, and one to be missed.
        assert_eq!(resolve(&rule, &both, false, WANTED), found);
        let missed = resolve(&rule, &both[..1], false, WANTED);
        assert_eq!(missed, Resolution::NotYetKnown);
    }

    #[test]
    fn a_problem_names_every_connector_that_is_meant() {
        let rule = adopt(AdoptBy::Name("OpenAI".to_owned()));
        let several = Resolution::Several(vec!["a".to_owned(), "b".to_owned()]);
        let said = several.problem(&rule, WANTED).unwrap();
        assert!(
            said.contains("\"OpenAI\"") && said.contains("(a, b)"),
            "{said}"
        );
        let said = Resolution::NotYetKnown.problem(&rule, WANTED).unwrap();
        assert!(
            said.starts_with("waits for the agent's list of connectors"),
            "{said}"
        );
        let by_name = resolve(&rule, &[seen("a", "OpenAI")], false, WANTED);
        assert_eq!(by_name, Resolution::NotYetKnown, "another may share it");
    }
}
