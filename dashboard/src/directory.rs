//! How this role changes the directory. Where it lies is not its business.

use std::{future::Future, pin::Pin};

use serde_json::Value;

/// A write that may take as long as the log takes.
pub type Writing<'a> = Pin<Box<dyn Future<Output = Result<(), EditError>> + Send + 'a>>;

/// Writes entries of [`footfall_schemas::directory::Directory`].
pub trait Edit: Send + Sync {
    /// Writes `value` under `key`; `None` removes the entry. Returns once the log has it and this node's directory
    /// shows it, so that an answer never runs ahead of what the next question sees.
    fn write(&self, key: String, value: Option<Value>) -> Writing<'_>;
}

/// The log cannot be written at the moment: whether the entry arrives is not known. The reason is for the log, not for
/// whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the directory cannot be written: {0}")]
pub struct EditError(pub String);
