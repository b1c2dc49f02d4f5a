//! Whether a rule's condition holds at a moment of the log. Pure.
//!
//! Counts are known by minute; a window slides by the second, and its oldest minute counts in proportion.

use std::collections::BTreeMap;

use footfall_schemas::{
    SiteId,
    alert_rule::{AlertRule, Condition, Subject},
    live::MINUTES_SHOWN,
    time::{MINUTE_MS, SECOND_MS, minute_of},
};

/// Of one subject on one site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Series {
    /// By start of the minute (s since 1970).
    pub(crate) minutes: BTreeMap<i64, u64>,
    /// Log time (ms) from which on everything is counted.
    pub(crate) whole_from: i64,
    /// Log time (ms) of the newest.
    pub(crate) newest: Option<i64>,
    /// All of the half hour, also of before `whole_from`.
    pub(crate) half_hour: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Holds(Finding),
    Clear,
    /// Not enough is known: what was open stays so, and nothing opens.
    Unknown,
}

/// What was counted, and what it was held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finding {
    pub(crate) value: f64,
    pub(crate) threshold: f64,
}

impl Series {
    /// How many in the `minutes` before `clock` (ms).
    fn window(&self, clock: i64, minutes: i64) -> f64 {
        let newest = minute_of(clock);
        let oldest = newest - minutes * MINUTE_MS;
        let share = 1.0 - (clock - newest) as f64 / MINUTE_MS as f64;
        let partly = self.minutes.get(&(oldest / SECOND_MS)).copied().unwrap_or(0) as f64;
        self.sum(oldest + MINUTE_MS, newest) as f64 + partly * share
    }

    /// Of the minutes that start at `first` to `last` (ms).
    fn sum(&self, first: i64, last: i64) -> u64 {
        self.minutes.range(first / SECOND_MS..=last / SECOND_MS).map(|(_, count)| count).sum()
    }
}

/// Holds the rule against the counts of its subject at `clock` (ms).
pub(crate) fn judge(rule: &AlertRule, series: &Series, clock: i64) -> Verdict {
    let minutes = i64::from(rule.minutes);
    let start = clock - minutes * MINUTE_MS;
    match rule.condition {
        Condition::Threshold { at_least } => {
            let finding = Finding::new(series.window(clock, minutes), at_least as f64);
            if finding.value >= finding.threshold {
                Verdict::Holds(finding)
            } else if series.whole_from <= start {
                Verdict::Clear
            } else {
                Verdict::Unknown
            }
        }
        Condition::Change { factor, min } => {
            // The last of the half hour is left out: partitions whose clocks are ahead have forgotten it.
            let first = minute_of(clock) - (MINUTES_SHOWN - 2) * MINUTE_MS;
            let last = minute_of(start) - MINUTE_MS;
            if series.whole_from > first {
                return Verdict::Unknown;
            }
            let before = series.sum(first, last) as f64;
            let expected = before / ((last - first) / MINUTE_MS + 1) as f64 * minutes as f64;
            let finding = Finding::new(series.window(clock, minutes), expected * factor);
            let met = match factor > 1.0 {
                true => finding.value >= finding.threshold,
                false => finding.value <= finding.threshold,
            };
            if met && finding.value.max(expected) >= min as f64 {
                Verdict::Holds(finding)
            } else {
                Verdict::Clear
            }
        }
        Condition::Silence => match series.newest {
            Some(newest) if newest > start => Verdict::Clear,
            // Of what came before the watch began only the half hour's sum is known.
            newest if series.half_hour > 0 && series.whole_from <= start => {
                let since = newest.unwrap_or(series.whole_from);
                let quiet = if since > i64::MIN { clock - since } else { clock - start };
                Verdict::Holds(Finding::new(quiet as f64 / MINUTE_MS as f64, minutes as f64))
            }
            _ => Verdict::Unknown,
        },
    }
}

impl Finding {
    /// To a tenth: more precise it is not known.
    fn new(value: f64, threshold: f64) -> Self {
        let tenth = |number: f64| (number * 10.0).round() / 10.0;
        Self { value: tenth(value), threshold: tenth(threshold) }
    }

    /// What it says of the rule, on one line.
    pub(crate) fn text(&self, site: &SiteId, rule: &AlertRule) -> String {
        let Self { value, threshold } = self;
        let what = match &rule.subject {
            Subject::Views => "page views".to_owned(),
            Subject::Events => "events".to_owned(),
            Subject::Page(pattern) => format!("views of {}", pattern.as_str()),
            Subject::Event(name) => format!("events {name:?}"),
        };
        let within = match rule.minutes {
            1 => "a minute".to_owned(),
            minutes => format!("{minutes} minutes"),
        };
        let found = match rule.condition {
            Condition::Threshold { .. } => format!("{value} {what} in {within}, {threshold} or more"),
            Condition::Change { factor, .. } => {
                let way = if factor > 1.0 { "more" } else { "fewer" };
                format!("{value} {what} in {within}, {threshold} or {way}: {factor} times what was before")
            }
            Condition::Silence => format!("no {what} for {within}"),
        };
        format!("{site}: {}: {found}", rule.name)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A full minute, in s.
    const START: i64 = 1_800_000_000;

    fn rule(more: Value) -> AlertRule {
        let mut rule = json!({"name": "a rule"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(rule).unwrap()
    }

    /// Counts of the minutes up to the one that starts at `START`, the newest last.
    fn series(counts: &[u64]) -> Series {
        let minutes = counts.iter().rev().zip(0..).map(|(count, back)| (START - back * 60, *count));
        let minutes: BTreeMap<i64, u64> = minutes.filter(|(_, count)| *count > 0).collect();
        let newest = minutes.last_key_value().map(|(minute, _)| (minute + 60) * 1_000 - 1);
        Series { half_hour: minutes.values().sum(), minutes, whole_from: i64::MIN, newest }
    }

    /// Thirty minutes of `before`, then these.
    fn after(before: u64, counts: &[u64]) -> Vec<u64> {
        [vec![before; 30], counts.to_vec()].concat()
    }

    #[rstest]
    #[case::at_the_minutes_start(0, 1, 80.0)]
    #[case::in_its_middle(30, 1, 60.0)]
    #[case::at_its_end(45, 1, 40.0)]
    #[case::two_minutes(30, 2, 160.0)]
    fn a_window_slides_over_the_minutes(#[case] second: i64, #[case] minutes: i64, #[case] expected: f64) {
        let counts = [120, 80, if second == 0 { 0 } else { 20 }];
        assert_eq!(series(&counts).window((START + second) * 1_000, minutes), expected);
    }

    fn verdict(rule: Value, series: &Series, second: i64) -> (&'static str, f64, f64) {
        match judge(&self::rule(rule), series, (START + second) * 1_000) {
            Verdict::Holds(Finding { value, threshold }) => ("holds", value, threshold),
            Verdict::Clear => ("clear", 0.0, 0.0),
            Verdict::Unknown => ("unknown", 0.0, 0.0),
        }
    }

    #[rstest]
    #[case::below(&[49], ("clear", 0.0, 0.0))]
    #[case::at_it(&[50], ("holds", 50.0, 50.0))]
    #[case::over_minutes(&[20, 20, 20], ("holds", 60.0, 50.0))]
    #[case::too_long_ago(&[60, 0, 0, 0, 0, 0, 0], ("clear", 0.0, 0.0))]
    #[case::half_of_the_oldest(&[80, 0, 0, 0, 10], ("holds", 50.0, 50.0))]
    #[case::less_than_half(&[79, 0, 0, 0, 10], ("clear", 0.0, 0.0))]
    fn a_threshold_is_reached(#[case] counts: &[u64], #[case] expected: (&str, f64, f64)) {
        let rule = json!({"kind": "threshold", "at_least": 50, "minutes": 4});
        assert_eq!(verdict(rule, &series(counts), 30), expected);
    }

    #[rstest]
    #[case::three_times_as_many(3.0, 10, &after(20, &[60, 60, 60]), ("holds", 180.0, 180.0))]
    #[case::not_quite(3.0, 10, &after(20, &[60, 60, 59]), ("clear", 0.0, 0.0))]
    #[case::too_few_to_matter(3.0, 200, &after(20, &[60, 60, 60]), ("clear", 0.0, 0.0))]
    #[case::out_of_nothing(3.0, 10, &[10, 10, 10], ("holds", 30.0, 0.0))]
    #[case::out_of_nothing_but_few(3.0, 31, &[10, 10, 10], ("clear", 0.0, 0.0))]
    #[case::a_fifth(0.2, 50, &after(20, &[4, 4, 4]), ("holds", 12.0, 12.0))]
    #[case::more_than_a_fifth(0.2, 50, &after(20, &[4, 4, 5]), ("clear", 0.0, 0.0))]
    #[case::nothing_any_more(0.2, 50, &after(20, &[0, 0, 0]), ("holds", 0.0, 12.0))]
    #[case::hardly_any_before(0.2, 61, &after(20, &[0, 0, 0]), ("clear", 0.0, 0.0))]
    #[case::never_any(0.2, 1, &[], ("clear", 0.0, 0.0))]
    #[case::as_always(0.2, 50, &after(20, &[20, 20, 20]), ("clear", 0.0, 0.0))]
    fn a_change_is_held_against_the_minutes_before(
        #[case] factor: f64,
        #[case] min: u64,
        #[case] counts: &[u64],
        #[case] expected: (&str, f64, f64),
    ) {
        let rule = json!({"kind": "change", "factor": factor, "min": min, "minutes": 3});
        // At the end of the third minute: the window is those three.
        let counts = [counts, &[0]].concat();
        assert_eq!(verdict(rule, &series(&counts), 0), expected);
    }

    #[rstest]
    #[case::just_now(-1, 9, i64::MIN, "clear")]
    #[case::within(-599, 9, i64::MIN, "clear")]
    #[case::for_ten_minutes(-600, 9, i64::MIN, "holds")]
    #[case::for_long(-1_500, 9, i64::MIN, "holds")]
    #[case::of_the_half_hour_none(-1_800, 0, i64::MIN, "unknown")]
    #[case::watched_for_ten_minutes(-1_500, 9, START - 600, "holds")]
    #[case::watched_for_less(-1_500, 9, START - 599, "unknown")]
    fn a_site_falls_silent(
        #[case] newest: i64,
        #[case] half_hour: u64,
        #[case] from: i64,
        #[case] expected: &str,
    ) {
        let whole_from = if from > i64::MIN { from * 1_000 } else { from };
        let newest = Some((START + newest) * 1_000);
        let series = Series { newest, half_hour, whole_from, ..Series::default() };
        let found = verdict(json!({"kind": "silence", "minutes": 10}), &series, 0);
        assert_eq!(found.0, expected);
        assert_eq!(found.1 >= 10.0, expected == "holds", "{found:?}");
    }

    #[rstest]
    #[case::silence_that_was_there_before_the_watch(json!({"kind": "silence", "minutes": 10, "event": "buy"}), None, START - 600, "holds")]
    #[case::nothing_is_known_yet(json!({"kind": "silence", "minutes": 10, "event": "buy"}), None, START - 30, "unknown")]
    #[case::too_few_but_not_all_are_known(json!({"kind": "threshold", "at_least": 10, "minutes": 2, "page": "/404"}), None, START - 30, "unknown")]
    #[case::too_few(json!({"kind": "threshold", "at_least": 10, "minutes": 2, "page": "/404"}), None, START - 120, "clear")]
    #[case::enough_though_not_all_are_known(json!({"kind": "threshold", "at_least": 9, "minutes": 2, "page": "/404"}), None, START - 30, "holds")]
    #[case::no_half_hour_to_hold_it_against(json!({"kind": "change", "factor": 2, "min": 1, "minutes": 2, "page": "/404"}), None, START - 1_679, "unknown")]
    #[case::a_half_hour(json!({"kind": "change", "factor": 2, "min": 1, "minutes": 2, "page": "/404"}), None, START - 1_680, "holds")]
    fn what_is_not_known_opens_nothing(
        #[case] rule: Value,
        #[case] newest: Option<i64>,
        #[case] from: i64,
        #[case] expected: &str,
    ) {
        let series = Series { newest, whole_from: from * 1_000, ..series(&[9]) };
        assert_eq!(verdict(rule, &series, 0).0, expected);
    }

    #[rstest]
    #[case(json!({"kind": "threshold", "at_least": 50, "minutes": 5, "page": "/404"}), "shop: a rule: 7.5 views of /404 in 5 minutes, 50 or more")]
    #[case(json!({"kind": "change", "factor": 0.2, "min": 9, "minutes": 1}), "shop: a rule: 7.5 page views in a minute, 50 or fewer: 0.2 times what was before")]
    #[case(json!({"kind": "silence", "minutes": 5, "event": "buy"}), "shop: a rule: no events \"buy\" for 5 minutes")]
    fn a_finding_is_told_on_a_line(#[case] rule: Value, #[case] expected: &str) {
        let finding = Finding { value: 7.5, threshold: 50.0 };
        assert_eq!(finding.text(&"shop".parse().unwrap(), &self::rule(rule)), expected);
    }
}
