//! Whole-system tests: `architecture.rs`, `documents.rs`, `deploy.rs` and `e2e/` beside this folder, a binary each.
//! The library itself is empty; cargo wants one to have a package.
