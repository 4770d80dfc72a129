//! What a person does with secrets in the KV v2 mount `secret/`.

use anyhow::Result;

use super::{Bao, number};

impl Bao {
    /// Writes one field of a secret in the KV v2 mount `secret/` and returns the new version's number.
    ///
    /// # Errors
    /// The server refuses.
    pub fn kv_put(&self, path: &str, field: &str, value: &str) -> Result<u64> {
        let arguments = [
            "kv",
            "put",
            "-format=json",
            "-mount=secret",
            path,
            &format!("{field}=-"),
        ];
        let answer = self.cli_with_input(&arguments, value)?;
        number(&answer, "/data/version")
    }

    /// Deletes versions so that they can be brought back.
    ///
    /// # Errors
    /// The server refuses.
    pub fn kv_delete(&self, path: &str, version: u64) -> Result<()> {
        self.cli(&[
            "kv",
            "delete",
            "-mount=secret",
            &format!("-versions={version}"),
            path,
        ])
        .map(drop)
    }

    /// Destroys a version for good.
    ///
    /// # Errors
    /// The server refuses.
    pub fn kv_destroy(&self, path: &str, version: u64) -> Result<()> {
        self.cli(&[
            "kv",
            "destroy",
            "-mount=secret",
            &format!("-versions={version}"),
            path,
        ])
        .map(drop)
    }
}
