//! What a webhook's receiver checks: that the body is ours, and when it was sent.

use footfall_schemas::secret::SiteSecret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// `t=SECONDS,v1=HEX`: HMAC-SHA256, under the secret's 32 bytes, of the seconds since 1970, a dot and the body.
pub(crate) fn sign(secret: &SiteSecret, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let digits = mac.finalize().into_bytes();
    digits.iter().fold(format!("t={seconds},v1="), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with: printf '%s' '1800000000.{"a":1}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0f0f…0f
    #[test]
    fn openssl_signs_the_same() {
        let secret = SiteSecret::try_from("0f".repeat(32).as_str()).unwrap();
        let signed = sign(&secret, 1_800_000_000, br#"{"a":1}"#);
        assert_eq!(
            signed,
            "t=1800000000,v1=649346e5ec438bd12370ba13d2af26c5b56b15537632523ceabab903c9cd8c67"
        );
    }
}
