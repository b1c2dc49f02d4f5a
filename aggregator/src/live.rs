//! Tells the live topic what changed: only sites that changed, whole windows every few seconds, and one last record
//! when a site's windows have become empty.

use std::collections::{BTreeMap, BTreeSet};

use footfall_schemas::{
    SiteId,
    live::{LiveRecord, LiveState},
    time::SECOND_MS,
};

use crate::partition::Partition;

pub(crate) struct Teller {
    partition: i32,
    /// When the partition was assigned.
    epoch: u64,
    full_every_ms: i64,
    /// Sites with something in their windows, as last told.
    told: BTreeMap<SiteId, Told>,
    /// Sequence numbers of sites that are silent now.
    silent: BTreeMap<SiteId, u64>,
    /// Sites whose last record was not sent; it may have been their last word.
    again: BTreeSet<SiteId>,
    /// Second of the last look at every site, not only at the changed ones.
    looked_at: i64,
}

struct Told {
    seq: u64,
    state: LiveState,
    full_at: i64,
}

impl Teller {
    pub(crate) fn new(partition: i32, epoch: u64, full_every_ms: i64) -> Self {
        Self {
            partition,
            epoch,
            full_every_ms,
            told: BTreeMap::new(),
            silent: BTreeMap::new(),
            again: BTreeSet::new(),
            looked_at: i64::MIN,
        }
    }

    /// What is to be told at `now` (wall clock), windows as of `clock` (log time).
    pub(crate) fn tell(&mut self, partition: &mut Partition, clock: i64, now: i64) -> Vec<LiveRecord> {
        let mut sites = std::mem::take(&mut self.again);
        sites.extend(partition.take_touched());
        // Windows also change as time passes; once a second is enough for that.
        if self.looked_at != now.div_euclid(SECOND_MS) {
            self.looked_at = now.div_euclid(SECOND_MS);
            sites.extend(self.told.keys().cloned());
        }
        sites.into_iter().filter_map(|site| self.tell_site(site, partition, clock, now)).collect()
    }

    /// The site's next record must tell everything: the last one was not sent.
    pub(crate) fn lost(&mut self, site: &SiteId) {
        if let Some(told) = self.told.remove(site) {
            self.silent.insert(site.clone(), told.seq);
        }
        self.again.insert(site.clone());
    }

    fn tell_site(
        &mut self,
        site: SiteId,
        partition: &mut Partition,
        clock: i64,
        now: i64,
    ) -> Option<LiveRecord> {
        let (state, newest) = partition.live(&site, clock);
        let empty = state.seconds.is_empty()
            && state.minutes.is_empty()
            && state.totals.is_none_or(|totals| totals.visitors == 0);
        let (seq, change) = match self.told.get(&site) {
            None => (self.silent.remove(&site).unwrap_or(0) + 1, None),
            Some(told) if empty || now.saturating_sub(told.full_at) >= self.full_every_ms => {
                (told.seq + 1, None)
            }
            Some(told) => match told.state.change_to(&state) {
                Ok(None) => return None,
                Ok(Some(change)) => (told.seq + 1, Some(change)),
                Err(_) => (told.seq + 1, None),
            },
        };
        let full = change.is_none();
        let record = LiveRecord {
            site: site.clone(),
            partition: self.partition,
            epoch: self.epoch,
            seq,
            full,
            clock,
            newest,
            at: now,
            state: change.unwrap_or_else(|| state.clone()),
        };
        if empty {
            self.told.remove(&site);
            self.silent.insert(site, seq);
        } else {
            let full_at = if full { now } else { self.told.get(&site).map_or(now, |told| told.full_at) };
            self.told.insert(site, Told { seq, state, full_at });
        }
        Some(record)
    }
}
