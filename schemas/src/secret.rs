//! A site's secret: who has it may send events in the site's name from a server.

use serde::{Deserialize, Deserializer, de::Error as _};

/// 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SiteSecret([u8; 32]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("secret: write 64 hexadecimal digits (openssl rand -hex 32)")]
pub struct InvalidSecret;

impl SiteSecret {
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&str> for SiteSecret {
    type Error = InvalidSecret;

    fn try_from(text: &str) -> Result<Self, InvalidSecret> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidSecret);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16).ok_or(InvalidSecret)?;
            let low = (pair[1] as char).to_digit(16).ok_or(InvalidSecret)?;
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self(bytes))
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for SiteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SiteSecret(…)")
    }
}

impl<'de> Deserialize<'de> for SiteSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Not shown even when it is wrong: most of it may be right.
        Self::try_from(text.as_str()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn sixty_four_hexadecimal_digits_are_thirty_two_bytes() {
        let secret = SiteSecret::try_from("00fF".repeat(16).as_str()).unwrap();
        assert_eq!(secret.as_bytes()[..4], [0x00, 0xff, 0x00, 0xff]);
    }

    #[rstest]
    #[case("")]
    #[case(&"0".repeat(63))]
    #[case(&"0".repeat(65))]
    #[case(&"0g".repeat(32))]
    #[case(&"+1".repeat(32))]
    #[case(&"\u{e9}".repeat(32))]
    fn what_is_no_secret_is_refused_without_being_shown(#[case] text: &str) {
        let error = serde_json::from_value::<SiteSecret>(text.into()).unwrap_err().to_string();
        assert_eq!(error, InvalidSecret.to_string());
    }
}
