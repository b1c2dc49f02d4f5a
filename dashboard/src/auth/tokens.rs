//! What stands in for a login: an API key's token and a share link's. Neither opens anything that the directory does not
//! list.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use footfall_schemas::directory::{ApiKey, Directory};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::signer::{Secret, Signer};

const SHARE: &str = "footfall/share/v1";

/// A name for a new key or link: 16 hexadecimal digits.
pub(crate) fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// A new API key's token, shown once, such as `fk_0123456789abcdef_…` with 256 random bits.
pub(crate) fn new_key_token(id: &str) -> String {
    format!("fk_{id}_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// What the directory keeps of a token.
pub(crate) fn key_hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key that `token` belongs to, with its id.
pub(crate) fn find_key<'a>(token: &str, directory: &'a Directory) -> Option<(&'a str, &'a ApiKey)> {
    let (id, _) = token.strip_prefix("fk_")?.split_once('_')?;
    let (id, key) = directory.api_keys.get_key_value(id)?;
    let fits: bool = key_hash(token).as_bytes().ct_eq(key.hash.as_bytes()).into();
    fits.then_some((id, &**key))
}

/// Signs the ids of share links, so that an id alone opens nothing.
#[derive(Debug)]
pub(crate) struct Shares {
    signer: Signer,
}

impl Shares {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self { signer: Signer::new(secret, SHARE) }
    }

    /// The link's token, always the same.
    pub(crate) fn token(&self, id: &str, created_at: i64) -> String {
        self.signer.sign(created_at, [0; 16], id)
    }

    /// The id that was signed.
    pub(crate) fn read(&self, token: &str) -> Option<String> {
        self.signer.verify(token).map(|signed| signed.subject)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use footfall_schemas::directory::Grants;

    use super::*;

    #[test]
    fn a_key_is_found_by_its_whole_token_alone() {
        let (id, other) = (new_id(), new_id());
        let token = new_key_token(&id);
        let key = ApiKey {
            name: "ci".into(),
            hash: key_hash(&token),
            grants: Grants::everything(),
            created_at: 0,
            created_by: "ada".into(),
        };
        let mut directory = Directory::default();
        directory.api_keys.insert(id.clone(), Arc::new(key));
        assert_eq!(find_key(&token, &directory).unwrap().0, id);
        let cut = &token[..token.len() - 1];
        let of_another_id = token.replace(&id, &other);
        let hash = key_hash(&token);
        for wrong in ["", "fk_", cut, &of_another_id, &format!("fk_{id}_"), &token[3..], &hash] {
            assert!(find_key(wrong, &directory).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_share_links_id_opens_nothing_without_the_signature() {
        let shares = Shares::new(&[7; 32]);
        let token = shares.token("0123456789abcdef", 5);
        assert_eq!(shares.read(&token).unwrap(), "0123456789abcdef");
        assert_eq!(shares.read("0123456789abcdef"), None);
        assert_eq!(Shares::new(&[8; 32]).read(&token), None);
    }
}
