//! Tokens that any node with the same secret takes: a time, a nonce and a subject, signed for one purpose.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

/// Secrets as each role is given them.
pub(crate) type Secret = [u8; 32];

pub(super) type Nonce = [u8; 16];

const VERSION: u8 = 1;
/// Version, time (ms since 1970, big endian), nonce; the subject follows.
const HEAD_BYTES: usize = 1 + 8 + 16;
const SIGNATURE_BYTES: usize = 32;

pub(super) struct Signer {
    key: HmacSha256,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    /// ms since 1970.
    pub(super) made_at: i64,
    pub(super) nonce: Nonce,
    pub(super) subject: String,
}

impl Signed {
    /// Names the token in the directory's list of what is revoked.
    pub(super) fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.nonce)
    }
}

impl std::fmt::Debug for Signer {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    pub(super) fn new(secret: &Secret, purpose: &str) -> Self {
        let derived = keyed(secret).chain_update(purpose).finalize().into_bytes();
        Self { key: keyed(&derived) }
    }

    pub(super) fn sign(&self, made_at: i64, nonce: Nonce, subject: &str) -> String {
        let mut token = Vec::with_capacity(HEAD_BYTES + subject.len() + SIGNATURE_BYTES);
        token.push(VERSION);
        token.extend_from_slice(&made_at.to_be_bytes());
        token.extend_from_slice(&nonce);
        token.extend_from_slice(subject.as_bytes());
        let signature = self.key.clone().chain_update(&token).finalize().into_bytes();
        token.extend_from_slice(&signature);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Compares the signature in constant time.
    pub(super) fn verify(&self, token: &str) -> Option<Signed> {
        // Decoding refuses bits that are left over, so a token has one spelling only.
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        self.key.clone().chain_update(body).verify_slice(signature).ok()?;
        let (head, subject) = body.split_at_checked(HEAD_BYTES)?;
        let (version, rest) = head.split_first()?;
        let (made_at, nonce) = rest.split_at(8);
        (*version == VERSION).then_some(Signed {
            made_at: i64::from_be_bytes(made_at.try_into().ok()?),
            nonce: nonce.try_into().ok()?,
            subject: String::from_utf8(subject.to_vec()).ok()?,
        })
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SECRET: Secret = [7; 32];

    fn signer(purpose: &str) -> Signer {
        Signer::new(&SECRET, purpose)
    }

    #[rstest]
    #[case("")]
    #[case("ada")]
    fn a_token_says_what_was_signed(#[case] subject: &str) {
        let signed = signer("a").verify(&signer("a").sign(5, [3; 16], subject)).unwrap();
        assert_eq!(signed, Signed { made_at: 5, nonce: [3; 16], subject: subject.into() });
    }

    #[test]
    fn a_token_with_any_bit_changed_is_invalid() {
        let good = URL_SAFE_NO_PAD.decode(signer("a").sign(5, [3; 16], "ada")).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(signer("a").verify(&URL_SAFE_NO_PAD.encode(bad)), None, "bit {bit}");
        }
    }

    #[rstest]
    #[case::empty(String::new())]
    #[case::of_another_secret(Signer::new(&[8; 32], "a").sign(5, [3; 16], ""))]
    #[case::of_another_purpose(signer("b").sign(5, [3; 16], ""))]
    #[case::cut(signer("a").sign(5, [3; 16], "")[..40].to_owned())]
    #[case::longer(signer("a").sign(5, [3; 16], "") + "AAAA")]
    fn what_was_not_signed_for_this_is_invalid(#[case] token: String) {
        assert_eq!(signer("a").verify(&token), None);
    }
}
