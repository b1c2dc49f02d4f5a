//! Country from the browser's time zone.

use std::{collections::HashMap, sync::LazyLock};

static COUNTRIES: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    include_str!("zones.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .collect()
});

/// ISO 3166-1 alpha-2, or nothing for a zone of no country (`UTC`) and for what is no zone.
pub(crate) fn country_of(time_zone: &str) -> &'static str {
    COUNTRIES.get(time_zone).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("Europe/Berlin", "DE")]
    #[case("Asia/Kolkata", "IN")]
    #[case("Asia/Calcutta", "IN")]
    #[case("Europe/Kiev", "UA")]
    #[case("US/Eastern", "US")]
    #[case("Europe/Amsterdam", "NL")]
    #[case("UTC", "")]
    #[case("Mars/Olympus", "")]
    fn a_time_zone_lies_in_a_country(#[case] zone: &str, #[case] country: &str) {
        assert_eq!(country_of(zone), country);
    }
}
