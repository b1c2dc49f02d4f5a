//! Durations on the command line.

use std::time::Duration;

/// `90s`, `5m`, `1500ms`, `2h`; a plain number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a number and ms, s, m or h, such as 90s".into()),
    };
    let number: f64 =
        number.parse().map_err(|_| "write a number and ms, s, m or h, such as 90s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| "a duration is neither negative nor endless".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("90s", Some(90_000))]
    #[case("90", Some(90_000))]
    #[case("1.5m", Some(90_000))]
    #[case("250ms", Some(250))]
    #[case("2h", Some(7_200_000))]
    #[case("", None)]
    #[case("-1s", None)]
    #[case("1d", None)]
    #[case("infs", None)]
    fn a_duration_is_a_number_and_a_unit(#[case] text: &str, #[case] ms: Option<u128>) {
        assert_eq!(parse_duration(text).ok().map(|duration| duration.as_millis()), ms);
    }
}
