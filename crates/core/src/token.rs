//! Roles of operators, and what a join token allows.

use crate::fleet::Labels;

/// What an operator may do; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Changes connectors, placements, strategies and rollouts.
    Operator,
    /// Changes Keys and tokens too.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The name in flags, tables and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Why claimed labels are not allowed by a join token: names the label and what was expected.
///
/// The token's labels must be claimed with exactly these values; further labels are the agent's own.
pub fn label_mismatch(required: &Labels, claimed: &Labels) -> Option<String> {
    required
        .iter()
        .find_map(|(key, value)| match claimed.get(key) {
            Some(found) if found == value => None,
            Some(found) => Some(format!(
                "the token wants label {key}={value}, the agent claims {key}={found}"
            )),
            None => Some(format!(
                "the token wants label {key}={value}, the agent does not claim {key}"
            )),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_token_must_be_claimed_exactly() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let required = labels(&[("env", "prod")]);
        assert_eq!(
            label_mismatch(&required, &labels(&[("env", "prod"), ("x", "y")])),
            None
        );
        assert!(label_mismatch(&required, &labels(&[("env", "test")])).is_some());
        assert!(label_mismatch(&required, &labels(&[])).is_some());
        assert_eq!(label_mismatch(&labels(&[]), &labels(&[("a", "b")])), None);
    }
}
