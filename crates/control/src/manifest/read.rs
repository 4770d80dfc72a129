//! From text to objects.

mod connector;
mod key;
mod placement;
mod strategy;

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

use super::yaml::{Document, Head};
use super::{InvalidManifest, Manifest, Place, line_of};

/// The one version of the manifests' form.
const API_VERSION: &str = "keyfleet/v1";

/// Largest file in bytes: far beyond any fleet's manifests, small enough to refuse nonsense at once.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Most values of one document, what its aliases stand for counted each time: a few lines of aliases of aliases
/// stand for billions of values. A placement of a thousand connectors stays far below.
const NODES_MAX: usize = 10_000;

/// Longest problem, in characters: it may repeat what was written, and nobody reads more.
const PROBLEM_CHARS_MAX: usize = 600;

/// Longest path of a field, in characters: no path of ours is half as long.
const PATH_CHARS_MAX: usize = 200;

/// Reads every document of one file.
///
/// # Errors
/// The first [`InvalidManifest`].
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Manifest>, InvalidManifest> {
    let at = |line| Place {
        file: file.to_owned(),
        line,
    };
    if text.len() > FILE_BYTES_MAX {
        return Err(invalid(
            at(1),
            "",
            format!("the file is larger than {FILE_BYTES_MAX} bytes"),
        ));
    }
    let mut manifests = Vec::new();
    for (first_line, document) in documents(text) {
        let reader = Reader {
            file,
            first_line,
            document,
        };
        if let Some(manifest) = reader.manifest()? {
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

fn invalid(place: Place, field: &str, problem: impl Display) -> InvalidManifest {
    InvalidManifest {
        place,
        field: field.to_owned(),
        problem: cut(&problem.to_string()),
    }
}

/// The path of a field, whose last part may be anything that was written in its place.
fn shown_path(path: &str) -> String {
    let visible = path.chars().filter(|c| !c.is_control());
    visible.take(PATH_CHARS_MAX).collect()
}

/// What the library says in its own words, in those of an operator.
fn plain(problem: &str) -> &str {
    match problem {
        "expected mapping start" => "write fields, each with a value: {field: value}",
        "expected sequence start" => "write a list: [value], or lines that begin with `- `",
        "invalid u8" => "write a whole number from 0 to 255",
        "invalid u32" => "write a whole number, not below 0",
        other => other,
    }
}

fn cut(problem: &str) -> String {
    problem.chars().take(PROBLEM_CHARS_MAX).collect()
}

/// Splits at the lines that begin a document, with the number of each document's first line.
/// YAML gives `---` at the beginning of a line this meaning everywhere, also inside block scalars.
fn documents(text: &str) -> Vec<(u64, String)> {
    let mut all = vec![(1, String::new())];
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let is_marker = line.trim_end() == "---" || line.starts_with("--- ");
        if is_marker {
            all.push((number + 1, String::new()));
        } else if let Some((_, document)) = all.last_mut() {
            document.push_str(line);
        }
    }
    all
}

/// One document of a file.
struct Reader<'a> {
    file: &'a str,
    first_line: u64,
    document: String,
}

impl Reader<'_> {
    fn manifest(&self) -> Result<Option<Manifest>, InvalidManifest> {
        let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if self.document.lines().all(is_empty) {
            return Ok(None);
        }
        let head: Head = self.parse()?;
        if head.api_version != API_VERSION {
            let problem = format!(
                "is {:?}, this version knows {API_VERSION:?}",
                head.api_version
            );
            return Err(invalid(self.begin(), "apiVersion", problem));
        }
        let object = match head.kind.as_str() {
            "Key" => self.key()?,
            "Connector" => self.connector()?,
            "Placement" => self.placement()?,
            "Strategy" => self.strategy()?,
            other => {
                let problem = format!("is {other:?}: use Key, Connector, Placement or Strategy");
                return Err(invalid(self.begin(), "kind", problem));
            }
        };
        Ok(Some(Manifest {
            place: self.begin(),
            object,
            written: (self.first_line - 1, self.document.clone()),
        }))
    }

    fn begin(&self) -> Place {
        let skipped = self
            .document
            .lines()
            .take_while(|line| line.trim().is_empty())
            .count();
        self.place(1 + u64::try_from(skipped).unwrap_or(0))
    }

    /// The place of a line of this document, counted from 1.
    fn place(&self, line: u64) -> Place {
        Place {
            file: self.file.to_owned(),
            line: self.first_line + line.max(1) - 1,
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, InvalidManifest> {
        let mut path = String::new();
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: NODES_MAX },
        };
        let parsed = serde_saphyr::with_deserializer_from_str_with_options(
            &self.document,
            options,
            |deserializer| {
                serde_path_to_error::deserialize(deserializer).map_err(|err| {
                    path = err.path().to_string();
                    err.into_inner()
                })
            },
        );
        parsed.map_err(|err| {
            let field = if path == "." {
                String::new()
            } else {
                shown_path(&path)
            };
            self.yaml_error(field, &err)
        })
    }

    fn yaml_error(&self, field: String, err: &serde_saphyr::Error) -> InvalidManifest {
        let line = err.location().map_or(1, |location| location.line());
        let text = err.without_snippet().to_string();
        // The library ends its text with the location, which we print in front, counted for the whole file.
        let problem = match text.find(" at line ") {
            Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
            None => text,
        };
        let problem = cut(plain(problem.lines().next().unwrap_or_default()));
        InvalidManifest {
            place: self.place(line),
            field,
            problem,
        }
    }

    fn document<N, S>(&self) -> Result<(N, S), InvalidManifest>
    where
        N: FromStr<Err: Display>,
        S: DeserializeOwned,
    {
        let document: Document<N, S> = self.parse()?;
        Ok((document.metadata.name.0, document.spec))
    }

    /// What is wrong with a field that stands there as text.
    fn wrong(&self, field: &str, problem: impl Display) -> InvalidManifest {
        let place = line_of(&self.document, field).map_or_else(|| self.begin(), |n| self.place(n));
        invalid(place, field, problem)
    }

    /// What is wrong with a field whose place is known.
    fn wrong_at<T>(
        &self,
        value: &Spanned<T>,
        field: &str,
        problem: impl Display,
    ) -> InvalidManifest {
        invalid(self.place(value.referenced.line()), field, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTOR: &str = "apiVersion: keyfleet/v1
kind: Connector
metadata: {name: assistant}
spec:
  type: .gen-ai
  displayName: OpenAI GPT-4.1
  key: openai
  config:
    apiProvider: OpenAI
    apiUrl: https://api.openai.com/v1/chat/completions
    defaultModel: gpt-4.1
";

    fn error(text: &str) -> String {
        read("f.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn several_documents_and_comments_are_read() {
        let text = format!(
            "# keys\n---\napiVersion: keyfleet/v1\nkind: Key\nmetadata: {{name: openai}}\nspec:\n  provider: openai\n  vault: {{mount: secret, path: keyfleet/openai}}\n---\n{CONNECTOR}"
        );
        let manifests = read("f.yaml", &text).unwrap();
        let kinds: Vec<_> = manifests
            .iter()
            .map(|m| (m.object.kind(), m.place.line))
            .collect();
        assert_eq!(kinds, [("Key", 3), ("Connector", 10)]);
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let cases = [
            ("config:", "confg:", "f.yaml:8: spec"),
            ("/chat/completions", "", "f.yaml:10: spec.config.apiUrl"),
            ("keyfleet/v1", "keyfleet/v2", "f.yaml:1: apiVersion"),
            ("kind: Connector", "kind: Conector", "f.yaml:1: kind"),
            ("key: openai", "key: Open AI", "f.yaml:7: spec.key"),
            ("type: .gen-ai", "type: .slack", "f.yaml:5: spec.type"),
            ("name: assistant", "nme: assistant", "f.yaml:3: metadata"),
        ];
        for (from, to, expected) in cases {
            let text = CONNECTOR.replace(from, to);
            let found = error(&text);
            assert!(found.starts_with(expected), "{from} -> {to}: {found}");
        }
    }
}
