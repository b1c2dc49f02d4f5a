//! What a `standalone` node keeps to stay the same node: its secret and the passwords of its engine's users. Made on
//! the first start, readable by the owner only.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    embedded::clickhouse::{ADMIN, DATABASE, READER, WRITER},
    settings::{ClickHouse, Login},
};

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    #[serde(with = "as_base64")]
    pub secret: [u8; 32],
    pub reader_password: String,
    pub writer_password: String,
    pub admin_password: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    /// Reads `identity.json` in the data directory, or makes it.
    pub fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("identity.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{}: damaged; restore it from a backup (a new one would give every visitor a new id)",
                    path.display()
                )
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(data_dir)
                    .with_context(|| format!("data_dir {}: cannot be made", data_dir.display()))?;
                let identity = Self::random();
                write_private(&path, &serde_json::to_vec_pretty(&identity)?)?;
                Ok(identity)
            }
            Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
        }
    }

    /// The embedded engine at `url`, with its three users.
    pub fn clickhouse(&self, url: &str) -> ClickHouse {
        let login = |user: &str, password: &str| Login { user: user.into(), password: password.into() };
        ClickHouse {
            url: url.to_owned(),
            database: DATABASE.to_owned(),
            writer: login(WRITER, &self.writer_password),
            reader: login(READER, &self.reader_password),
            admin: login(ADMIN, &self.admin_password),
        }
    }

    fn random() -> Self {
        let password = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>());
        Self {
            secret: rand::random(),
            reader_password: password(),
            writer_password: password(),
            admin_password: password(),
        }
    }
}

/// Writes a file that only its owner reads; it is there whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

mod as_base64 {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("a secret is 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_stays_the_same_node() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(&dir.path().join("new")).unwrap();
        let second = Identity::load_or_create(&dir.path().join("new")).unwrap();
        assert_eq!(first.secret, second.secret);
        assert_eq!(first.reader_password, second.reader_password);
        assert_ne!(first.reader_password, first.writer_password);
        let mode = fs::metadata(dir.path().join("new/identity.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_identity_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.json"), "{}").unwrap();
        assert!(Identity::load_or_create(dir.path()).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("identity.json")).unwrap(), "{}");
    }
}
