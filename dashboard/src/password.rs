//! Passwords, hashed with argon2id. Hashing and verifying take some 20 ms and 19 MiB each: off the runtime's threads, a
//! few at once.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

pub const MIN_CHARS: usize = 8;
/// Bytes. Far beyond what anybody types; what is longer is somebody's attempt to keep the node busy.
pub const MAX_BYTES: usize = 1_024;

/// OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    #[error("password: shorter than {MIN_CHARS} characters; choose a longer one")]
    Short,
    #[error("password: longer than {MAX_BYTES} bytes; choose a shorter one")]
    Long,
}

/// The text is not repeated: it may be a password that was put in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an argon2id hash in PHC form ($argon2id$v=19$…); `footfall user hash` makes one")]
pub struct InvalidHash;

/// In PHC form, with a salt of its own.
pub fn hash(password: &str) -> Result<String, InvalidPassword> {
    if password.chars().count() < MIN_CHARS {
        return Err(InvalidPassword::Short);
    }
    if password.len() > MAX_BYTES {
        return Err(InvalidPassword::Long);
    }
    let hash =
        argon2().hash_password(password.as_bytes()).expect("the bounds fit and the system has random bytes");
    Ok(hash.to_string())
}

/// Whether `hash` is of this password. A text that is no hash is of none.
pub fn verify(password: &str, hash: &str) -> bool {
    if password.len() > MAX_BYTES {
        return false;
    }
    // Cost and salt are those of the hash.
    PasswordHash::new(hash).is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Whether [`verify`] can hold a password against it.
pub fn check_hash(text: &str) -> Result<(), InvalidHash> {
    let hash = PasswordHash::new(text).map_err(|_| InvalidHash)?;
    let is_argon2id = hash.algorithm.as_str() == Algorithm::Argon2id.as_str();
    let is_whole = hash.salt.is_some() && hash.hash.is_some() && Params::try_from(&hash).is_ok();
    (is_argon2id && is_whole).then_some(()).ok_or(InvalidHash)
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("constant costs are within bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_password_is_that_of_its_hash_alone() {
        let first = hash("correct horse").unwrap();
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert!(verify("correct horse", &first));
        for wrong in ["correct horsf", "correct hors", "correct horse ", "", &first] {
            assert!(!verify(wrong, &first), "{wrong}");
        }
        let second = hash("correct horse").unwrap();
        assert_ne!(first, second, "two users with a password are not seen to share it");
        assert!(verify("correct horse", &second));
        check_hash(&first).unwrap();
    }

    /// By another implementation (the reference one, of the Argon2 competition).
    #[test]
    fn a_hash_that_was_made_elsewhere_with_other_costs_is_taken() {
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        check_hash(hash).unwrap();
        assert!(verify("password", hash));
        assert!(!verify("passwore", hash));
    }

    #[rstest]
    #[case::empty("", Err(InvalidPassword::Short))]
    #[case::seven(&"x".repeat(7), Err(InvalidPassword::Short))]
    #[case::seven_wide(&"ä".repeat(7), Err(InvalidPassword::Short))]
    #[case::eight(&"x".repeat(8), Ok(()))]
    #[case::most(&"x".repeat(1_024), Ok(()))]
    #[case::too_long(&"x".repeat(1_025), Err(InvalidPassword::Long))]
    fn a_password_has_a_length(#[case] password: &str, #[case] expected: Result<(), InvalidPassword>) {
        assert_eq!(hash(password).map(drop), expected);
    }

    #[rstest]
    #[case::empty("")]
    #[case::the_password_itself("hunter2 hunter2")]
    #[case::of_another_family("$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW")]
    #[case::of_another_kind(
        "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
    )]
    #[case::without_the_hash("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ")]
    fn what_is_no_hash_is_refused_and_of_no_password(#[case] text: &str) {
        let told = check_hash(text).unwrap_err().to_string();
        assert!(text.is_empty() || !told.contains(text), "{told}");
        assert!(!verify(text, text));
    }
}
