//! The state of each alert rule that has fired, as `footfall.alerts` tells it.

use std::collections::{BTreeMap, HashMap};

use footfall_schemas::{
    SiteId,
    alert::{Alert, AlertRecord},
    time::MINUTE_MS,
};

/// How long a firing that is over is shown.
const SHOWN_MS: i64 = 30 * MINUTE_MS;

/// The newest firing of every rule, of sites that are unknown (yet), too: the topic tells each state once.
#[derive(Debug, Default)]
pub(crate) struct AlertBoard {
    sites: HashMap<SiteId, BTreeMap<String, Alert>>,
}

impl AlertBoard {
    /// Takes a record; without a value the rule's state is gone. The site, if something changed.
    pub(crate) fn take(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<Option<SiteId>, serde_json::Error> {
        let Some(value) = value else {
            let Some((site, rule)) = key.split_once('/') else { return Ok(None) };
            let Ok(site) = SiteId::try_from(site) else { return Ok(None) };
            let gone = self.sites.get_mut(&site).and_then(|rules| rules.remove(rule));
            return Ok(gone.map(|_| site));
        };
        let AlertRecord { alert, .. } = serde_json::from_slice(value)?;
        let site = alert.site.clone();
        let rules = self.sites.entry(site.clone()).or_default();
        if rules.get(&alert.rule) == Some(&alert) {
            return Ok(None);
        }
        rules.insert(alert.rule.clone(), alert);
        Ok(Some(site))
    }

    /// Those of a site that are open or were until a short while ago (`now`: ms since 1970), newest first.
    pub(crate) fn shown(&self, site: &SiteId, now: i64) -> Vec<Alert> {
        let rules = self.sites.get(site).into_iter().flat_map(BTreeMap::values);
        let mut shown: Vec<Alert> = rules.filter(|alert| is_shown(alert, now)).cloned().collect();
        shown.sort_by(|a, b| b.opened_at.cmp(&a.opened_at).then_with(|| a.rule.cmp(&b.rule)));
        shown
    }

    pub(crate) fn forget_old(&mut self, now: i64) {
        self.sites.retain(|_, rules| {
            rules.retain(|_, alert| is_shown(alert, now));
            !rules.is_empty()
        });
    }
}

fn is_shown(alert: &Alert, now: i64) -> bool {
    alert.resolved_at.is_none_or(|resolved_at| now - resolved_at < SHOWN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000;

    fn site(key: &str) -> SiteId {
        key.parse().unwrap()
    }

    fn told(board: &mut AlertBoard, rule: &str, opened_at: i64, resolved_at: Option<i64>) -> Option<SiteId> {
        let golden: Alert = serde_json::from_str(include_str!("../../schemas/golden/alert.json")).unwrap();
        let alert = Alert { rule: rule.into(), opened_at, resolved_at, ..golden };
        let record = AlertRecord { alert, settled: true };
        board.take(&record.key(), Some(&serde_json::to_vec(&record).unwrap())).unwrap()
    }

    fn shown(board: &AlertBoard, now: i64) -> Vec<String> {
        board.shown(&site("shop"), now).into_iter().map(|alert| alert.rule).collect()
    }

    #[test]
    fn open_firings_and_those_just_over_are_shown_newest_first() {
        let mut board = AlertBoard::default();
        assert_eq!(told(&mut board, "old and open", NOON - 99 * SHOWN_MS, None), Some(site("shop")));
        told(&mut board, "over", NOON - 60_000, Some(NOON));
        told(&mut board, "new", NOON, None);
        assert_eq!(shown(&board, NOON + SHOWN_MS - 1), ["new", "over", "old and open"]);
        assert_eq!(shown(&board, NOON + SHOWN_MS), ["new", "old and open"]);
        assert_eq!(board.shown(&site("blog"), NOON), []);
        board.forget_old(NOON + SHOWN_MS);
        assert_eq!(board.sites[&site("shop")].len(), 2);
    }

    #[test]
    fn the_newest_state_of_a_rule_holds_and_the_same_again_changes_nothing() {
        let mut board = AlertBoard::default();
        told(&mut board, "a", NOON, None);
        assert_eq!(told(&mut board, "a", NOON, None), None);
        assert_eq!(told(&mut board, "a", NOON, Some(NOON + 1)), Some(site("shop")));
        assert_eq!(board.shown(&site("shop"), NOON)[0].resolved_at, Some(NOON + 1));
        assert_eq!(board.take("shop/a", None).unwrap(), Some(site("shop")));
        assert_eq!(board.take("shop/a", None).unwrap(), None);
        assert_eq!(shown(&board, NOON), [""; 0]);
        assert!(board.take("shop/a", Some(b"{}")).is_err());
    }
}
