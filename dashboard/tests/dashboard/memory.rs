//! A directory without a log.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use footfall_dashboard::directory::{Edit, EditError, Writing};
use footfall_schemas::directory::Directory;
use serde_json::json;
use tokio::sync::watch;

use crate::stage::with_goals;

/// A directory that lies in memory, of one node or of several.
pub(crate) struct Memory {
    pub(crate) shown: watch::Sender<Arc<Directory>>,
    /// As if the log were away.
    pub(crate) refuses: AtomicBool,
}

impl Memory {
    /// With the sites `demo` and `shop`.
    pub(crate) fn new() -> Arc<Self> {
        let memory = Arc::new(Self { shown: watch::Sender::default(), refuses: AtomicBool::new(false) });
        memory.set("site/demo", Some(with_goals()));
        memory.set("site/shop", Some(json!({"key": "shop", "origins": ["*"]})));
        memory
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.shown.borrow().clone()
    }

    pub(crate) fn replace(&self, directory: Directory) {
        self.shown.send_replace(Arc::new(directory));
    }

    pub(crate) fn set(&self, key: &str, value: Option<serde_json::Value>) {
        let mut directory = Directory::clone(&self.directory());
        let value = value.map(|value| value.to_string());
        directory.apply(key, value.as_ref().map(String::as_bytes)).unwrap();
        self.replace(directory);
    }
}

impl Edit for Memory {
    fn write(&self, key: String, value: Option<serde_json::Value>) -> Writing<'_> {
        Box::pin(async move {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(EditError("broker-7 is away".into()));
            }
            self.set(&key, value);
            Ok(())
        })
    }
}
