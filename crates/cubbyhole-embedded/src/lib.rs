//! The embedded backend of Cubbyhole: one file, by redb.

use std::path::PathBuf;

use cubbyhole_core::{Error, ExecutionContext, Result};

/// Placeholder.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    path: PathBuf,
    create: bool,
}

impl EmbeddedConfig {
    /// From what follows `redb:` in a URL.
    ///
    /// # Errors
    /// Bad path.
    pub fn from_url_path(text: &str) -> Result<Self> {
        Ok(Self { path: text.into(), create: true })
    }

    /// Whether to create the file.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }
}

/// Placeholder.
#[derive(Debug)]
pub struct EmbeddedStore;

impl EmbeddedStore {
    /// Placeholder.
    ///
    /// # Errors
    /// None.
    pub async fn open(
        _: &ExecutionContext,
        _: EmbeddedConfig,
    ) -> Result<cubbyhole_core::InMemoryStore<cubbyhole_core::Bytes>> {
        Ok(cubbyhole_core::InMemoryStore::new())
    }
}

/// Placeholder.
///
/// # Errors
/// Always.
pub async fn diagnose(
    _: &ExecutionContext,
    _: &EmbeddedConfig,
) -> Result<cubbyhole_core::Diagnosis> {
    Err(Error::unsupported("not yet"))
}
