//! The state of every rule that has fired: opened once, resolved when its condition has not held for a while. Pure; what
//! it decides is written to the log before it is put in here.

use std::collections::HashMap;

use footfall_schemas::{
    SiteId,
    alert::{Alert, AlertRecord},
    alert_rule::AlertRule,
    time::MINUTE_MS,
};

use super::verdict::Verdict;

/// Site and name of a rule.
pub(crate) type Key = (SiteId, String);

#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    record: AlertRecord,
    /// Log time (ms) since which the condition has not held.
    clear_since: Option<i64>,
}

impl Book {
    pub(crate) fn new(records: impl IntoIterator<Item = AlertRecord>) -> Self {
        let mut book = Self::default();
        records.into_iter().for_each(|record| book.put(record));
        book
    }

    /// What changes with this verdict at `clock` (ms), if anything does.
    pub(crate) fn weigh(
        &mut self,
        site: &SiteId,
        rule: &AlertRule,
        verdict: Verdict,
        clock: i64,
    ) -> Option<Alert> {
        let last = self.entries.get_mut(&(site.clone(), rule.name.clone()));
        let last_opened = last.as_ref().map(|entry| entry.record.alert.opened_at);
        let open = last.filter(|entry| entry.record.alert.is_open());
        match (verdict, open) {
            (Verdict::Holds(finding), None) => {
                let (opened_at, id) = Alert::opening(site, &rule.name, clock);
                // A clock that was set back by a partition that joined must not open a firing again.
                let is_new = last_opened.is_none_or(|last| last < opened_at);
                is_new.then(|| Alert {
                    id,
                    site: site.clone(),
                    rule: rule.name.clone(),
                    kind: rule.kind(),
                    opened_at,
                    resolved_at: None,
                    value: finding.value,
                    threshold: finding.threshold,
                    text: finding.text(site, rule),
                })
            }
            (Verdict::Clear, Some(entry)) => {
                let since = *entry.clear_since.get_or_insert(clock);
                let over = clock - since >= i64::from(rule.cooldown_minutes) * MINUTE_MS;
                over.then(|| resolved(&entry.record.alert, clock))
            }
            (Verdict::Holds(_) | Verdict::Unknown, Some(entry)) => {
                entry.clear_since = None;
                None
            }
            (Verdict::Clear | Verdict::Unknown, None) => None,
        }
    }

    /// Resolves, at `clock` (ms), what is open of rules that are no more.
    pub(crate) fn orphans(&self, is_rule: impl Fn(&Key) -> bool, clock: i64) -> Vec<Alert> {
        let open = self.entries.iter().filter(|(key, entry)| entry.record.alert.is_open() && !is_rule(key));
        open.map(|(_, entry)| resolved(&entry.record.alert, clock)).collect()
    }

    /// Takes over what the log has.
    pub(crate) fn put(&mut self, record: AlertRecord) {
        let key = (record.alert.site.clone(), record.alert.rule.clone());
        let same = self.entries.get(&key).filter(|entry| entry.record.alert == record.alert);
        let clear_since = same.and_then(|entry| entry.clear_since);
        self.entries.insert(key, Entry { record, clear_since });
    }

    /// What is to be written when everybody was told; nothing when the firing has changed since.
    pub(crate) fn settled(&self, alert: &Alert) -> Option<AlertRecord> {
        let entry = self.entries.get(&(alert.site.clone(), alert.rule.clone()))?;
        let owed = entry.record.alert == *alert && !entry.record.settled;
        owed.then(|| AlertRecord { alert: alert.clone(), settled: true })
    }

    /// Firings that somebody may not have been told of.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = &Alert> {
        self.entries.values().map(|entry| &entry.record).filter(|record| !record.settled).map(|r| &r.alert)
    }

    pub(crate) fn open(&self) -> usize {
        self.entries.values().filter(|entry| entry.record.alert.is_open()).count()
    }
}

fn resolved(alert: &Alert, clock: i64) -> Alert {
    Alert {
        resolved_at: Some(clock.max(alert.opened_at)),
        text: format!("Resolved: {}", alert.text),
        ..alert.clone()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::alerts::verdict::Finding;

    const NOON: i64 = 1_800_000_000_000;
    const HOLDS: Verdict = Verdict::Holds(Finding { value: 7.0, threshold: 5.0 });
    use Verdict::{Clear, Unknown};

    fn site() -> SiteId {
        "shop".parse().unwrap()
    }

    fn rule() -> AlertRule {
        let rule =
            json!({"name": "a", "kind": "threshold", "at_least": 5, "minutes": 1, "cooldown_minutes": 2});
        serde_json::from_value(rule).unwrap()
    }

    /// Weighs these verdicts, each at a second after noon, and puts in what they decide. What was decided: the second of
    /// the opening minute, and of the resolution.
    fn decided(book: &mut Book, steps: &[(i64, Verdict)]) -> Vec<(i64, Option<i64>)> {
        let mut decided = Vec::new();
        for (second, verdict) in steps {
            if let Some(alert) = book.weigh(&site(), &rule(), *verdict, NOON + second * 1_000) {
                let seconds = |at: i64| (at - NOON) / 1_000;
                decided.push((seconds(alert.opened_at), alert.resolved_at.map(seconds)));
                book.put(AlertRecord { alert, settled: false });
            }
        }
        decided
    }

    #[rstest]
    #[case::nothing_happens(&[(0, Clear), (1, Unknown)], &[])]
    #[case::opened_once(&[(61, HOLDS), (62, HOLDS), (300, HOLDS)], &[(60, None)])]
    #[case::over_after_a_while(&[(0, HOLDS), (10, Clear), (129, Clear), (130, Clear), (131, Clear)], &[(0, None), (0, Some(130))])]
    #[case::held_again_in_between(&[(0, HOLDS), (10, Clear), (129, HOLDS), (130, Clear), (249, Clear)], &[(0, None)])]
    #[case::unknown_is_not_over(&[(0, HOLDS), (10, Clear), (129, Unknown), (600, Unknown), (601, Clear), (720, Clear)], &[(0, None)])]
    #[case::opened_again(&[(0, HOLDS), (10, Clear), (130, Clear), (131, HOLDS)], &[(0, None), (0, Some(130)), (120, None)])]
    #[case::a_clock_set_back(&[(0, HOLDS), (10, Clear), (130, Clear), (59, HOLDS)], &[(0, None), (0, Some(130))])]
    fn a_firing_is_opened_once_and_resolved_after_a_while(
        #[case] steps: &[(i64, Verdict)],
        #[case] expected: &[(i64, Option<i64>)],
    ) {
        assert_eq!(decided(&mut Book::default(), steps), expected);
    }

    #[test]
    fn what_was_not_written_is_decided_again_and_is_the_same() {
        let mut book = Book::default();
        let first = book.weigh(&site(), &rule(), HOLDS, NOON).unwrap();
        assert_eq!(book.weigh(&site(), &rule(), HOLDS, NOON + 59_999).unwrap(), first);
        assert_eq!((first.value, first.threshold, first.is_open()), (7.0, 5.0, true));
    }

    #[test]
    fn a_book_read_from_the_log_goes_on() {
        let mut book = Book::default();
        let alert = book.weigh(&site(), &rule(), HOLDS, NOON).unwrap();
        let mut next = Book::new([AlertRecord { alert: alert.clone(), settled: false }]);
        assert_eq!((next.open(), next.unsettled().collect::<Vec<_>>()), (1, vec![&alert]));
        assert_eq!(decided(&mut next, &[(1, HOLDS), (2, Clear), (122, Clear)]), [(0, Some(122))]);
        let told: Vec<_> = next.unsettled().map(|alert| (alert.id, alert.text.clone())).collect();
        assert_eq!(told, [(alert.id, format!("Resolved: {}", alert.text))]);
        assert_eq!(next.open(), 0);
    }

    #[test]
    fn what_changed_since_is_not_settled() {
        let mut book = Book::default();
        let opened = book.weigh(&site(), &rule(), HOLDS, NOON).unwrap();
        assert_eq!(book.settled(&opened), None, "the log does not have it");
        book.put(AlertRecord { alert: opened.clone(), settled: false });
        let settled = book.settled(&opened).unwrap();
        decided(&mut book, &[(1, Clear), (121, Clear)]);
        assert_eq!(book.settled(&opened), None, "its end is still to be told");
        book.put(settled.clone());
        assert_eq!((book.unsettled().count(), book.settled(&opened)), (0, None));
    }

    #[test]
    fn a_firing_that_is_settled_late_is_over_in_time() {
        let mut book = Book::default();
        decided(&mut book, &[(0, HOLDS), (10, Clear)]);
        let alert = book.unsettled().next().unwrap().clone();
        book.put(AlertRecord { alert, settled: true });
        assert_eq!(decided(&mut book, &[(130, Clear)]), [(0, Some(130))]);
    }

    #[test]
    fn a_firing_of_a_rule_that_is_no_more_is_resolved() {
        let mut book = Book::default();
        decided(&mut book, &[(0, HOLDS)]);
        assert_eq!(book.orphans(|_| true, NOON), []);
        let orphans = book.orphans(|(site, rule)| (site.as_str(), rule.as_str()) == ("shop", "b"), NOON + 5);
        assert_eq!(orphans.iter().map(|alert| alert.resolved_at).collect::<Vec<_>>(), [Some(NOON + 5)]);
    }
}
