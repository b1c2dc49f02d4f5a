//! The place in a trace that a record carries from ingest to the aggregator (W3C Trace Context §3.2, version 00).

use std::{fmt, str::FromStr};

/// Name of the record's header. There is none unless a batch in the record is traced.
pub const HEADER: &str = "traceparent";

/// A span of which others are children. Ids are never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent: write 00-(32 hexadecimal digits)-(16)-(2), all in lower case")]
pub struct InvalidTraceParent;

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// A later version is read as far as this one goes (§4.3).
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut digits = |count: usize| {
            let part = parts.next().filter(|part| part.len() == count).ok_or(InvalidTraceParent)?;
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if !part.bytes().all(is_digit) {
                return Err(InvalidTraceParent);
            }
            u128::from_str_radix(part, 16).map_err(|_| InvalidTraceParent)
        };
        let (version, trace_id, span_id, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
        let ends = parts.next().is_none();
        if version == 0xff || (version == 0 && !ends) || trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceParent);
        }
        let span_id = u64::try_from(span_id).map_err(|_| InvalidTraceParent)?;
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_survives_its_text() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        assert_eq!((parent.span_id, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_string(), EXAMPLE);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_this_one_goes() {
        let later = format!("cc{}-what-comes", &EXAMPLE[2..]);
        assert_eq!(later.parse::<TraceParent>(), EXAMPLE.parse());
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(InvalidTraceParent), "{wrong}");
        }
    }
}
