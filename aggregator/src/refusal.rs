//! Why ClickHouse refused: in words for whoever reads the status page, with its code and its own words behind.

use std::fmt::Write as _;

use clickhouse::error::Error;

/// Of ClickHouse's own words; the rest is in its log.
const LONGEST: usize = 300;

/// By ClickHouse's error code: what the matter is, and what comes of it or helps.
const REASONS: &[(u16, &str, &str)] = &[
    (16, "lacks a column", "run `footfall migrate`"),
    (60, "lacks a table", "run `footfall migrate`"),
    (81, "lacks the database", "run `footfall migrate`"),
    (159, "took too long", "it has too much to do, or max_execution_time is too short"),
    (164, "lets this user only read", "give clickhouse.writer the right to insert"),
    (192, "does not know this user", "check [clickhouse]"),
    (193, "refuses the password", "check [clickhouse]"),
    (202, "has too many queries at once", "inserts wait until others end"),
    (225, "does not reach Keeper", "inserts wait until it does"),
    (236, "is shutting down", "inserts wait until it is back"),
    (241, "is out of memory", "inserts wait until other queries end; a smaller block_rows needs less"),
    (242, "has the table read-only", "inserts wait until its replica is in step with Keeper"),
    (243, "has no disk space left", "inserts wait until there is some"),
    (252, "has too many parts", "inserts wait until merges catch up"),
    (285, "has too few live replicas", "inserts wait until they are back"),
    (394, "was told to cancel the query", "what it wrote of it is looked up"),
    (497, "does not grant this user the right", "check its grants"),
    (516, "refuses the login", "check [clickhouse]"),
    (999, "has trouble with Keeper", "inserts wait until that is over"),
];

/// One line: `ClickHouse has too many parts (code 252): inserts wait until merges catch up; it says: …`
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::BadResponse(text) => refused(text),
        Error::Network(cause) => {
            let mut text = format!("ClickHouse cannot be reached: {cause}");
            let mut next = cause.source();
            while let Some(cause) = next {
                let _ = write!(text, ": {cause}");
                next = cause.source();
            }
            text
        }
        Error::TimedOut => "ClickHouse did not answer in time".to_owned(),
        other => format!("ClickHouse: {other}"),
    }
}

/// `Code: 252. DB::Exception: Too many parts (…). (TOO_MANY_PARTS) (version …)`
fn refused(text: &str) -> String {
    let Some((code, words)) = parse(text) else {
        return format!("ClickHouse refused: {}", short(text));
    };
    match REASONS.iter().find(|(known, _, _)| *known == code) {
        Some((_, matter, then)) => format!("ClickHouse {matter} (code {code}): {then}; it says: {words}"),
        None => format!("ClickHouse refused (code {code}): {words}"),
    }
}

fn parse(text: &str) -> Option<(u16, &str)> {
    let (code, words) = text.strip_prefix("Code: ")?.split_once(". ")?;
    let words = words.strip_prefix("DB::Exception: ").unwrap_or(words);
    let words = words.split_once(" (version ").map_or(words, |(words, _)| words);
    Some((code.parse().ok()?, short(words)))
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::known(
        "Code: 252. DB::Exception: Too many parts (300). Merges are slow. (TOO_MANY_PARTS) (version 26.7.3.1)",
        "ClickHouse has too many parts (code 252): inserts wait until merges catch up; it says: Too many parts (300). \
         Merges are slow. (TOO_MANY_PARTS)"
    )]
    #[case::unknown(
        "Code: 27. DB::Exception: Cannot parse input (version 26.7.3.1)",
        "ClickHouse refused (code 27): Cannot parse input"
    )]
    #[case::without_a_code("502 Bad Gateway", "ClickHouse refused: 502 Bad Gateway")]
    fn a_refusal_is_told_in_words(#[case] text: &str, #[case] told: &str) {
        assert_eq!(explain(&Error::BadResponse(text.to_owned())), told);
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let told = explain(&Error::BadResponse(format!("Code: 1. DB::Exception: a{}", "ü".repeat(400))));
        assert_eq!(told, format!("ClickHouse refused (code 1): a{}", "ü".repeat(149)));
    }

    #[test]
    fn a_broken_connection_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Connect(#[source] std::io::Error);
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let told = explain(&Error::Network(Box::new(Connect(refused))));
        assert_eq!(told, "ClickHouse cannot be reached: client error (Connect): connection refused");
    }
}
