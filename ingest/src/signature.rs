//! The signature of a request from a server: who has the site's secret, and when it was made. Pure.

use footfall_schemas::{RejectReason, secret::SiteSecret, server::MAX_SKEW_MS, time::SECOND_MS};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::node::Fault;

const VERSION: &str = "v1=";

/// Whether the request was signed within five minutes of `now_ms`. A captured one may be sent again until then: its
/// events have ids of their own and count once.
pub(crate) fn check_time(timestamp: &str, now_ms: i64) -> Result<(), Fault> {
    let told = timestamp.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(SECOND_MS));
    let Some(told) = told else {
        let detail = "footfall-timestamp: send whole seconds since 1970";
        return Err(Fault::new(RejectReason::BadTimestamp, detail));
    };
    let skew_ms = now_ms.saturating_sub(told);
    if skew_ms.saturating_abs() > MAX_SKEW_MS {
        let way = if skew_ms > 0 { "behind" } else { "ahead of" };
        let seconds = skew_ms.saturating_abs() / SECOND_MS;
        let detail = format!("footfall-timestamp: {seconds} s {way} this node's clock; sign when you send");
        return Err(Fault::new(RejectReason::BadTimestamp, detail));
    }
    Ok(())
}

/// Whether `signature` is `v1=` and HMAC-SHA256, in hex, of site, LF, timestamp, LF and the body as it was sent.
pub(crate) fn check(
    secret: &SiteSecret,
    site: &str,
    timestamp: &str,
    body: &[u8],
    signature: &str,
) -> Result<(), Fault> {
    let Some(told) = signature.strip_prefix(VERSION).and_then(from_hex) else {
        let detail = "footfall-signature: send v1= and 64 hexadecimal digits";
        return Err(Fault::new(RejectReason::BadSignature, detail));
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    for part in [site.as_bytes(), b"\n", timestamp.as_bytes(), b"\n", body] {
        mac.update(part);
    }
    // Compares in constant time.
    mac.verify_slice(&told).map_err(|_| {
        let detail =
            "footfall-signature: does not fit; sign site, LF, timestamp, LF and the body as it is sent";
        Fault::new(RejectReason::BadSignature, detail)
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    // The same digits as a secret's.
    SiteSecret::try_from(text).ok().map(|bytes| *bytes.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PAGE: &str = include_str!("../../schemas/PROTOCOL.md");

    /// The value of `NAME='…'` or `NAME=…` in the page's signing example.
    fn shown(name: &str) -> &'static str {
        let start = PAGE.find(&format!("\n{name}=")).unwrap_or_else(|| panic!("no {name}")) + name.len() + 2;
        PAGE[start..].lines().next().unwrap().trim_matches('\'')
    }

    fn shown_signature() -> &'static str {
        let start = PAGE.find("\nv1=").expect("the page shows the signature") + 1;
        PAGE[start..].lines().next().unwrap()
    }

    fn secret() -> SiteSecret {
        SiteSecret::try_from(shown("SECRET")).unwrap()
    }

    #[test]
    fn the_example_of_the_page_holds() {
        let (site, timestamp, body) = (shown("SITE"), shown("TIMESTAMP"), shown("BODY"));
        check(&secret(), site, timestamp, body.as_bytes(), shown_signature()).unwrap();
        check_time(timestamp, timestamp.parse::<i64>().unwrap() * 1_000).unwrap();
    }

    #[rstest]
    #[case::another_site("blog", "1800000000", "{}", 0)]
    #[case::another_time("shop", "1800000001", "{}", 0)]
    #[case::another_body("shop", "1800000000", "{ }", 0)]
    #[case::parts_moved("shop", "180000000", "0\n{}", 0)]
    #[case::a_bit_of_the_signature("shop", "1800000000", "{}", 1)]
    fn what_was_not_signed_is_refused(
        #[case] site: &str,
        #[case] timestamp: &str,
        #[case] body: &str,
        #[case] flip: u8,
    ) {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret().as_bytes()).unwrap();
        mac.update(b"shop\n1800000000\n{}");
        let mut tag = mac.finalize().into_bytes();
        let hex = |tag: &[u8]| tag.iter().fold(VERSION.to_owned(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(check(&secret(), "shop", "1800000000", b"{}", &hex(&tag)), Ok(()));
        tag[31] ^= flip;
        let fault = check(&secret(), site, timestamp, body.as_bytes(), &hex(&tag)).unwrap_err();
        assert_eq!(fault.reason, RejectReason::BadSignature);
    }

    #[rstest]
    #[case("")]
    #[case("v1=")]
    #[case("v2=00")]
    #[case(&"0".repeat(64))]
    #[case(&format!("v1={}", "0".repeat(62)))]
    fn what_is_no_signature_is_refused(#[case] signature: &str) {
        let fault = check(&secret(), "shop", "1", b"", signature).unwrap_err();
        assert_eq!(fault.reason, RejectReason::BadSignature);
    }

    #[rstest]
    #[case("1800000000", true)]
    #[case("1799999700", true)]
    #[case("1800000300", true)]
    #[case("1799999699", false)]
    #[case("1800000301", false)]
    #[case("1800000000000", false)]
    #[case("-9223372036854775808", false)]
    #[case("now", false)]
    #[case("", false)]
    fn a_clock_five_minutes_away_is_too_far(#[case] timestamp: &str, #[case] holds: bool) {
        assert_eq!(check_time(timestamp, 1_800_000_000_000).is_ok(), holds);
    }
}
