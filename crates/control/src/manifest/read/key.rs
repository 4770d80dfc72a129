//! Keys: where a secret lies, whole or in parts, and where it may travel.

use std::collections::BTreeMap;

use keyfleet_core::id::KeyName;
use keyfleet_core::key::{Key, KeyField, KeyLocation, Rotation};
use keyfleet_core::travel::host;
use serde_saphyr::Spanned;

use super::Reader;
use crate::manifest::yaml::{KeySpec, Provider, RotationForm, VaultPlace};
use crate::manifest::{InvalidManifest, Object};

/// The field of a secret that holds the key where nobody says otherwise.
const USUAL_FIELD: &str = "api_key";

/// Most parts of one key: no connector type has half as many secrets.
const PARTS_MAX: usize = 8;

/// Most people that a revocation may ask for.
const APPROVALS_MAX: u32 = 10;

/// Longest name of a part.
const PART_CHARS_MAX: usize = 40;

impl Reader<'_> {
    pub(super) fn key(&self) -> Result<Object, InvalidManifest> {
        let (name, spec): (KeyName, KeySpec) = self.document()?;
        let listed = match (spec.allowed_hosts, spec.provider.0) {
            (Some(listed), _) => listed,
            (None, Provider::OpenAi) => vec!["api.openai.com".to_owned()],
            (
                None,
                Provider::AzureOpenAi | Provider::Bedrock | Provider::Gemini | Provider::Other,
            ) => {
                let problem = "is missing: only the provider openai has a host that everybody uses; list yours";
                return Err(self.wrong("spec.allowedHosts", problem));
            }
        };
        if listed.is_empty() {
            return Err(self.wrong("spec.allowedHosts", "must list at least one host"));
        }
        let mut hosts = Vec::new();
        for (index, text) in listed.iter().enumerate() {
            let field = format!("spec.allowedHosts[{index}]");
            hosts.push(host(text).map_err(|err| self.wrong(&field, err))?);
        }
        Ok(Object::Key(Key {
            name,
            location: self.location(&spec.vault)?,
            allowed_hosts: hosts,
            scope: spec.scope.into(),
            rotation: self.rotation(&spec.rotation)?,
        }))
    }

    fn rotation(&self, form: &RotationForm) -> Result<Rotation, InvalidManifest> {
        let mut rotation = Rotation::default();
        if let Some(overlap) = &form.overlap {
            rotation.overlap_secs = overlap.0.0.as_secs();
        }
        if let Some(approvals) = &form.approvals {
            // Nobody but a person can revoke a key that a person wrote to Vault.
            if !(1..=APPROVALS_MAX).contains(&approvals.value) {
                let problem = format!("must be 1 to {APPROVALS_MAX} people");
                return Err(self.wrong_at(approvals, "spec.rotation.approvals", problem));
            }
            rotation.approvals = approvals.value;
        }
        Ok(rotation)
    }

    fn location(&self, vault: &VaultPlace) -> Result<KeyLocation, InvalidManifest> {
        let tidy = |text: &str| text.trim().trim_matches('/').to_owned();
        let (mount, path) = (tidy(&vault.mount), tidy(&vault.path));
        if mount.is_empty() {
            let problem = "must name the mount of a KV engine, such as secret";
            return Err(self.wrong("spec.vault.mount", problem));
        }
        if path.is_empty() {
            let problem = "must be a path below the mount, such as keyfleet/openai";
            return Err(self.wrong("spec.vault.path", problem));
        }
        let field = match (&vault.field, &vault.fields) {
            (Some(_), Some(fields)) => {
                let problem = "stands beside spec.vault.field: a key is one text or has several parts; keep one of the two";
                return Err(self.wrong_at(fields, "spec.vault.fields", problem));
            }
            (None, Some(fields)) => self.parts(fields)?,
            (Some(field), None) if field.trim().is_empty() => {
                return Err(
                    self.wrong("spec.vault.field", "must name the field that holds the key")
                );
            }
            (Some(field), None) => field.as_str().into(),
            (None, None) => USUAL_FIELD.into(),
        };
        Ok(KeyLocation { mount, path, field })
    }

    fn parts(
        &self,
        fields: &Spanned<BTreeMap<String, Spanned<String>>>,
    ) -> Result<KeyField, InvalidManifest> {
        let count = fields.value.len();
        if count == 0 || count > PARTS_MAX {
            let problem = format!("has {count} parts: name 1 to {PARTS_MAX}");
            return Err(self.wrong_at(fields, "spec.vault.fields", problem));
        }
        for (part, field) in &fields.value {
            if !is_part(part) {
                let problem = format!(
                    "{part:?} cannot be the name of a part: use up to {PART_CHARS_MAX} letters and digits, a letter first, such as accessKey"
                );
                return Err(self.wrong_at(field, "spec.vault.fields", problem));
            }
            if field.value.trim().is_empty() {
                let problem = "must name the field that holds this part of the key";
                let at = format!("spec.vault.fields.{part}");
                return Err(self.wrong_at(field, &at, problem));
            }
        }
        let parts = fields.value.iter();
        let parts = parts.map(|(part, field)| (part.clone(), field.value.clone()));
        Ok(KeyField::Parts(parts.collect()))
    }
}

fn is_part(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && name.len() <= PART_CHARS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    fn key(provider: &str, vault: &str, rest: &str) -> String {
        format!(
            "apiVersion: keyfleet/v1\nkind: Key\nmetadata: {{name: k}}\nspec:\n  provider: {provider}\n  vault:\n    mount: secret\n    path: keyfleet/k\n{vault}{rest}"
        )
    }

    fn field(text: &str) -> Result<KeyField, String> {
        let manifests = read("f.yaml", text).map_err(|err| err.to_string())?;
        let Object::Key(key) = &manifests[0].object else {
            unreachable!()
        };
        Ok(key.location.field.clone())
    }

    #[test]
    fn only_openai_has_hosts_by_itself() {
        assert!(field(&key("openai", "", "")).is_ok());
        for provider in ["azure-openai", "bedrock", "gemini", "other"] {
            let found = field(&key(provider, "", "")).unwrap_err();
            assert!(found.contains("spec.allowedHosts: is missing"), "{found}");
            let listed = key(provider, "", "  allowedHosts: [a.example]\n");
            assert!(field(&listed).is_ok());
        }
        let found = field(&key("azure", "", "")).unwrap_err();
        assert!(
            found.starts_with("f.yaml:5: spec.provider") && found.contains("gemini"),
            "{found}"
        );
    }

    #[test]
    fn a_key_is_one_field_or_has_parts() {
        let hosts = "  allowedHosts: [a.example]\n";
        let found = |vault: &str| field(&key("bedrock", vault, hosts));
        assert_eq!(found("").unwrap(), KeyField::One("api_key".to_owned()));
        assert_eq!(found("    field: token\n").unwrap(), "token".into());
        let parts = found("    fields: {secret: aws_secret, accessKey: aws_id}\n").unwrap();
        assert_eq!(parts.parts(), ["accessKey", "secret"]);
        assert_eq!(parts.to_string(), "aws_id+aws_secret");
    }

    #[test]
    fn parts_that_cannot_be_are_named_with_their_line() {
        let many: String = (0..9).map(|i| format!("      p{i}: f\n")).collect();
        for (vault, says) in [
            (
                "    field: a\n    fields: {b: c}\n",
                "f.yaml:10: spec.vault.fields: stands beside",
            ),
            ("    field: \" \"\n", "f.yaml:9: spec.vault.field: must"),
            ("    fields: {}\n", "f.yaml:9: spec.vault.fields: has 0"),
            (
                &format!("    fields:\n{many}"),
                "f.yaml:10: spec.vault.fields: has 9",
            ),
            (
                "    fields:\n      good: a\n      1st: b\n",
                "f.yaml:11: spec.vault.fields: \"1st\"",
            ),
            (
                "    fields:\n      good: a\n      access_key: b\n",
                "f.yaml:11: spec.vault.fields: \"access_key\"",
            ),
            (
                "    fields:\n      good: a\n      other: \" \"\n",
                "f.yaml:11: spec.vault.fields.other: must",
            ),
            (
                "    fields:\n      good: a\n      good: b\n",
                "f.yaml:11: spec.vault.fields",
            ),
            ("    fields: [a]\n", "f.yaml:9: spec.vault.fields"),
        ] {
            let found = field(&key("bedrock", vault, "  allowedHosts: [a.example]\n"));
            let found = found.unwrap_err();
            assert!(found.starts_with(says), "{vault}: {found}");
        }
    }
}
