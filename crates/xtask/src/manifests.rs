//! The manifests of `deploy/examples/`, made to fit simulated providers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::binaries;

/// The example manifests in a directory of their own, with the simulated OpenAI in the place of the real one and
/// short soaks. Nothing else is changed.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// Copies the examples into `dir` for a simulated OpenAI at `openai_url`.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn copy(dir: &Path, openai_url: &str) -> Result<Self> {
        let examples = binaries::workspace().join("deploy").join("examples");
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(&examples).context("deploy/examples is not there")? {
            let path = entry?.path();
            let Some(name) = path.file_name() else {
                continue;
            };
            let text = fs::read_to_string(&path)?
                .replace("https://api.openai.com", openai_url)
                .replace("[api.openai.com]", "[127.0.0.1]")
                .replace("soak: 10m", "soak: 2s");
            fs::write(dir.join(name), text)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where they lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces a text in one of them.
    ///
    /// # Errors
    /// The file is not there, or does not hold the text.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("no manifest {file}"))?;
        anyhow::ensure!(text.contains(from), "{file} does not hold {from:?}");
        Ok(fs::write(&path, text.replace(from, to))?)
    }
}
