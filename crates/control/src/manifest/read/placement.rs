//! Placements: which connectors, into which spaces, and which of what is there already becomes theirs.

use keyfleet_core::adoption::{Adopt, AdoptBy};
use keyfleet_core::id::{ConnectorName, PlacementName, StrategyName};
use keyfleet_core::placement::Placement;
use keyfleet_core::space::SpacePattern;
use keyfleet_kibana::is_plain_text;
use serde_saphyr::Spanned;

use super::Reader;
use crate::manifest::yaml::{AdoptForm, PlacementForm};
use crate::manifest::{InvalidManifest, Object};

/// Longest name or id of a connector that is there already, in characters: what agents report is kept as far as that.
const ADOPT_CHARS_MAX: usize = 200;

impl Reader<'_> {
    pub(super) fn placement(&self) -> Result<Object, InvalidManifest> {
        let (name, form): (PlacementName, PlacementForm) = self.document()?;
        if form.connectors.is_empty() {
            return Err(self.wrong("spec.connectors", "must name at least one connector"));
        }
        if form.spaces.is_empty() {
            return Err(self.wrong("spec.spaces", "must name at least one space"));
        }
        let strategy = match form.strategy_ref {
            Some(strategy) => strategy.0,
            None => self.default_strategy()?,
        };
        let placement = Placement {
            name,
            selector: form.selector.into(),
            connectors: form.connectors.into_iter().map(|word| word.0).collect(),
            spaces: form.spaces.into_iter().map(|word| word.0).collect(),
            except_spaces: form.except_spaces.into_iter().map(|word| word.0).collect(),
            adopt: Vec::new(),
            drift_policy: form.drift.0.0,
            strategy,
            task: form.task.map(|word| word.0.0),
        };
        if is_nowhere(&placement) {
            let problem = "takes away every space that spec.spaces names";
            return Err(self.wrong("spec.exceptSpaces", problem));
        }
        let adopt = self.adopt(&placement.connectors, &form.adopt)?;
        Ok(Object::Placement(Placement { adopt, ..placement }))
    }

    /// The strategy of a placement that names none.
    fn default_strategy(&self) -> Result<StrategyName, InvalidManifest> {
        let name = "default".parse();
        name.map_err(|err| self.wrong("spec.strategyRef", err))
    }

    /// Each connector becomes of at most one, and of each at most one becomes a connector.
    fn adopt(
        &self,
        connectors: &[ConnectorName],
        forms: &[Spanned<AdoptForm>],
    ) -> Result<Vec<Adopt>, InvalidManifest> {
        let mut all: Vec<Adopt> = Vec::new();
        for (index, form) in forms.iter().enumerate() {
            let field = format!("spec.adopt[{index}]");
            let wrong = |rest: &str, problem: String| {
                Err(self.wrong_at(form, &format!("{field}{rest}"), problem))
            };
            let connector = form.value.connector.0.clone();
            let by = match adopt_by(&form.value) {
                Ok(by) => by,
                Err((rest, problem)) => return wrong(rest, problem),
            };
            if !connectors.contains(&connector) {
                let problem = format!("{connector} is not in spec.connectors");
                return wrong(".connector", problem);
            }
            if all.iter().any(|known| known.connector == connector) {
                let problem = format!("{connector} stands in the list twice");
                return wrong(".connector", problem);
            }
            if let Some(known) = all.iter().find(|known| known.by == by) {
                let problem = format!("{by} is named for {} already", known.connector);
                return wrong("", problem);
            }
            all.push(Adopt { connector, by });
        }
        Ok(all)
    }
}

/// The one of the two that is there; else which field is wrong, and how.
fn adopt_by(form: &AdoptForm) -> Result<AdoptBy, (&'static str, String)> {
    let (field, text) = match (&form.name, &form.id) {
        (Some(name), None) => (".name", name),
        (None, Some(id)) => (".id", id),
        (None, None) => {
            let problem = "must have the `name` or the `id` of the connector in Kibana";
            return Err(("", problem.to_owned()));
        }
        (Some(_), Some(_)) => {
            let problem = "has a `name` and an `id`: keep the one that shall count";
            return Err(("", problem.to_owned()));
        }
    };
    if text.trim().is_empty() {
        return Err((field, "is blank".to_owned()));
    }
    if text.chars().count() > ADOPT_CHARS_MAX {
        return Err((
            field,
            format!("is longer than {ADOPT_CHARS_MAX} characters"),
        ));
    }
    if !is_plain_text(text) {
        let problem = "holds a character that nobody sees or that turns the text around";
        return Err((field, problem.to_owned()));
    }
    Ok(match field {
        ".id" => AdoptBy::Id(text.clone()),
        _ => AdoptBy::Name(text.clone()),
    })
}

/// True where no space is left whatever a Kibana has.
fn is_nowhere(placement: &Placement) -> bool {
    let is_taken = |pattern: &SpacePattern| match pattern {
        SpacePattern::Exact(space) => !placement.places_in(space),
        SpacePattern::Like(_) => {
            let is_all = |except: &SpacePattern| except == pattern || except.to_string() == "*";
            placement.except_spaces.iter().any(is_all)
        }
    };
    placement.spaces.iter().all(is_taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;
    use keyfleet_core::models::Task;

    fn placement(rest: &str) -> Result<Placement, String> {
        let text = format!(
            "apiVersion: keyfleet/v1\nkind: Placement\nmetadata: {{name: a}}\nspec:\n  connectors: [a, b]\n{rest}"
        );
        let manifests = read("f.yaml", &text).map_err(|err| err.to_string())?;
        let Object::Placement(placement) = &manifests[0].object else {
            unreachable!()
        };
        Ok(placement.clone())
    }

    fn refused(rest: &str, says: &str) {
        let found = placement(rest).unwrap_err();
        assert!(found.starts_with(says), "{rest}: {found}");
    }

    #[test]
    fn a_placement_may_say_what_its_models_are_for() {
        assert_eq!(placement("").unwrap().task, None);
        let found = placement("  task: attack-discovery\n").unwrap();
        assert_eq!(found.task, Some(Task::AttackDiscovery));
        let found = placement("  task: poetry\n").unwrap_err();
        assert!(
            found.starts_with("f.yaml:6: spec.task") && found.contains("agent-builder"),
            "{found}"
        );
    }

    #[test]
    fn spaces_are_ids_and_patterns() {
        let found =
            placement("  spaces: [default, soc-*]\n  exceptSpaces: [soc-test, \"*-old\"]\n");
        let found = found.unwrap();
        let is_in = |space: &str| found.places_in(&space.parse().unwrap());
        assert!(is_in("default") && is_in("soc-eu"));
        assert!(!is_in("soc-test") && !is_in("soc-old") && !is_in("other"));
        refused("  spaces: [Soc-*]\n", "f.yaml:6: spec.spaces[0]");
        refused("  spaces: []\n", "f.yaml:6: spec.spaces: must");
        refused(
            "  exceptSpaces: [\"a b\"]\n",
            "f.yaml:6: spec.exceptSpaces[0]",
        );
        refused(
            "  spaces: [soc]\n  exceptSpaces:\n    - s*\n",
            "f.yaml:7: spec.exceptSpaces: takes away",
        );
    }

    #[test]
    fn what_is_adopted_has_a_name_or_an_id() {
        let found = placement(
            "  adopt:\n    - {connector: a, name: OpenAI prod}\n    - {connector: b, id: f00-1}\n",
        );
        let adopt = found.unwrap().adopt;
        assert_eq!(adopt[0].by, AdoptBy::Name("OpenAI prod".to_owned()));
        assert_eq!(adopt[1].by, AdoptBy::Id("f00-1".to_owned()));
        let first = "  adopt:\n    - {connector: a, name: x}\n";
        for (rest, says) in [
            (
                "  adopt: [{connector: a}]\n",
                "f.yaml:6: spec.adopt[0]: must",
            ),
            (
                "  adopt:\n    - {connector: a, name: x, id: y}\n",
                "f.yaml:7: spec.adopt[0]: has",
            ),
            (
                "  adopt: [{connector: c, id: y}]\n",
                "f.yaml:6: spec.adopt[0].connector: c is not in",
            ),
            (
                &format!("{first}    - {{connector: a, id: y}}\n"),
                "f.yaml:8: spec.adopt[1].connector: a stands",
            ),
            (
                &format!("{first}    - {{connector: b, name: x}}\n"),
                "f.yaml:8: spec.adopt[1]: the name \"x\" is named for a",
            ),
            (
                "  adopt: [{connector: a, id: \" \"}]\n",
                "f.yaml:6: spec.adopt[0].id: is blank",
            ),
            (
                "  adopt: [{connector: a, name: \"x\\u200b\"}]\n",
                "f.yaml:6: spec.adopt[0].name: holds",
            ),
            (
                "  adopt: [{connector: a, title: x}]\n",
                "f.yaml:6: spec.adopt[0]",
            ),
        ] {
            refused(rest, says);
        }
    }
}
