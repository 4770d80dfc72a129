//! Labels and the selectors that choose deployments by them.

use std::collections::BTreeMap;
use std::fmt;

/// Labels of a deployment, in order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Longest label key and value in characters, as in Kubernetes.
pub const LABEL_CHARS_MAX: usize = 63;

/// How the selector of everything is shown.
const EVERYTHING: &str = "(all)";

/// True where a text can be the key or the value of a label: 1 to 63 letters, digits, `-`, `_`, `.` or `/`. These are
/// the characters that a selector, a flag and a file can name without quoting.
pub fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LABEL_CHARS_MAX
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// Chooses deployments by their labels: every requirement must hold; none at all chooses everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// What must hold.
    pub requirements: Vec<Requirement>,
}

/// One condition on the value of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for its value.
    pub operator: Operator,
}

/// The conditions, as Kubernetes' `matchExpressions` name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The label is there with one of these values.
    In(Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Operator {
    /// The values it names; none where it asks only whether the label is there.
    pub fn values(&self) -> &[String] {
        match self {
            Self::In(values) | Self::NotIn(values) => values,
            Self::Exists | Self::DoesNotExist => &[],
        }
    }
}

impl Selector {
    /// Chooses what has exactly these labels (and maybe more).
    pub fn from_labels(labels: &Labels) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In(vec![value.clone()]),
            })
            .collect();
        Self { requirements }
    }

    /// True where it chooses everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// True where whatever this selector chooses, `wider` chooses too. It may say false where that is so in a
    /// roundabout way (three requirements that together leave one value), and never says true where it is not:
    /// each requirement of `wider` must follow from one requirement here.
    pub fn implies(&self, wider: &Self) -> bool {
        wider
            .requirements
            .iter()
            .all(|wide| self.requirements.iter().any(|own| own.implies(wide)))
    }

    /// True where every requirement holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn implies(&self, wider: &Self) -> bool {
        let within = |some: &[String], all: &[String]| some.iter().all(|v| all.contains(v));
        let apart = |some: &[String], others: &[String]| !some.iter().any(|v| others.contains(v));
        self.key == wider.key
            && match (&self.operator, &wider.operator) {
                (Operator::In(own), Operator::In(wide)) => within(own, wide),
                (Operator::In(_) | Operator::Exists, Operator::Exists)
                | (Operator::DoesNotExist, Operator::DoesNotExist | Operator::NotIn(_)) => true,
                (Operator::In(own), Operator::NotIn(wide)) => apart(own, wide),
                (Operator::NotIn(own), Operator::NotIn(wide)) => within(wide, own),
                _ => false,
            }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// A text that is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a selector: write env=prod, env!=prod, env in (prod,test), env notin (prod), env or !env, separated by commas"
)]
pub struct InvalidSelector {
    text: String,
}

impl std::str::FromStr for Selector {
    type Err = InvalidSelector;

    /// Reads what [`Selector`] displays, and nothing as the selector of everything.
    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let wrong = || InvalidSelector {
            text: text.chars().take(200).collect(),
        };
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        if rest == EVERYTHING {
            return Ok(Self::default());
        }
        while !rest.is_empty() {
            let end = end_of_requirement(rest);
            let (part, after) = rest.split_at(end);
            requirements.push(Requirement::parse(part.trim()).ok_or_else(wrong)?);
            rest = after.strip_prefix(',').unwrap_or(after).trim();
        }
        Ok(Self { requirements })
    }
}

/// Where the first requirement ends: at the first comma outside of parentheses.
fn end_of_requirement(text: &str) -> usize {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return index,
            _ => {}
        }
    }
    text.len()
}

impl Requirement {
    fn parse(text: &str) -> Option<Self> {
        let (key, operator) = if let Some(key) = text.strip_prefix('!') {
            (key, Operator::DoesNotExist)
        } else if let Some((key, values)) = text.split_once(" notin ") {
            (key, Operator::NotIn(list(values)?))
        } else if let Some((key, values)) = text.split_once(" in ") {
            (key, Operator::In(list(values)?))
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, Operator::NotIn(vec![value.trim().to_owned()]))
        } else if let Some((key, value)) = text.split_once('=') {
            (
                key,
                Operator::In(vec![value.trim_start_matches('=').trim().to_owned()]),
            )
        } else {
            (text, Operator::Exists)
        };
        let key = key.trim();
        let are_labels = is_label(key) && operator.values().iter().all(|value| is_label(value));
        are_labels.then(|| Self {
            key: key.to_owned(),
            operator,
        })
    }
}

fn list(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(
        inner
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect(),
    )
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str(EVERYTHING);
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Operator::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn selectors_are_read_as_they_are_shown() {
        for text in [
            "env=prod",
            "env in (a,b),!x",
            "region notin (eu,us),tier",
            "a!=b",
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
        }
        assert_eq!("".parse::<Selector>().unwrap(), Selector::default());
        for bad in ["a b", "=x", "env in a", "ü=1"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_selector_implies_is_never_wider() {
        let texts = [
            "env=a",
            "env in (a,b)",
            "env notin (b)",
            "env notin (b,c)",
            "env",
            "!env",
            "x=1",
            "env=a,x=1",
            "",
        ];
        let values = [None, Some("a"), Some("b"), Some("c")];
        let mut implied = 0;
        for (own, wide) in texts
            .iter()
            .flat_map(|own| texts.iter().map(move |wide| (own, wide)))
        {
            let (own, wide): (Selector, Selector) = (own.parse().unwrap(), wide.parse().unwrap());
            if !own.implies(&wide) {
                continue;
            }
            implied += 1;
            for (env, x) in values
                .iter()
                .flat_map(|env| [None, Some("1")].map(|x| (env, x)))
            {
                let mut found = Labels::new();
                found.extend(env.map(|v| ("env".to_owned(), v.to_owned())));
                found.extend(x.map(|v| ("x".to_owned(), v.to_owned())));
                assert!(
                    !own.matches(&found) || wide.matches(&found),
                    "{own} -> {wide}: {found:?}"
                );
            }
        }
        assert!(implied > texts.len() * 2, "{implied}");
    }

    #[test]
    fn requirements_follow_kubernetes() {
        let prod = labels(&[("env", "prod"), ("region", "eu")]);
        let bare = labels(&[]);
        let values = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let cases = [
            (Operator::In(values(&["prod", "test"])), true, false),
            (Operator::NotIn(values(&["prod"])), false, true),
            (Operator::Exists, true, false),
            (Operator::DoesNotExist, false, true),
        ];
        for (operator, on_prod, on_bare) in cases {
            let selector = Selector {
                requirements: vec![Requirement {
                    key: "env".to_owned(),
                    operator,
                }],
            };
            assert_eq!(selector.matches(&prod), on_prod, "{selector}");
            assert_eq!(selector.matches(&bare), on_bare, "{selector}");
        }
        assert!(Selector::default().matches(&bare));
    }
}
