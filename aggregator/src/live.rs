//! Tells the live topic what changed: only sites that changed, whole windows every few seconds, and one last record
//! when a site's windows have become empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use footfall_schemas::{
    Dimension, SiteId,
    live::{LiveRecord, LiveState},
    time::SECOND_MS,
};

use crate::{
    partition::Partition,
    values::{DIMENSIONS, Top},
};

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
    /// All but the top lists.
    state: LiveState,
    tops: [Listed; DIMENSIONS],
    full_at: i64,
}

/// A top list by the address of its texts: they live as long as they are told, so two lists are compared without
/// looking at a text.
type Listed = Vec<(Arc<str>, u64)>;

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
        let mut windows = partition.windows(&site, clock);
        let empty = windows.seconds.is_empty() && windows.minutes.is_empty() && windows.totals.visitors == 0;
        let (newest, tops) = (windows.newest, std::mem::take(&mut windows.tops).map(listed));
        let state = windows.state();
        let (seq, change) = match self.told.get(&site) {
            None => (self.silent.remove(&site).unwrap_or(0) + 1, None),
            Some(told) if empty || now.saturating_sub(told.full_at) >= self.full_every_ms => {
                (told.seq + 1, None)
            }
            Some(told) => {
                let mut change = told.state.change_to(&state).unwrap_or_default();
                change.tops = changed(&told.tops, &tops);
                if change == LiveState::default() {
                    return None;
                }
                (told.seq + 1, Some(change))
            }
        };
        let full = change.is_none();
        let told = change.unwrap_or_else(|| LiveState { tops: whole(&tops), ..state.clone() });
        if empty {
            self.told.remove(&site);
            self.silent.insert(site.clone(), seq);
        } else {
            let full_at = if full { now } else { self.told.get(&site).map_or(now, |told| told.full_at) };
            self.told.insert(site.clone(), Told { seq, state, tops, full_at });
        }
        Some(LiveRecord {
            site,
            partition: self.partition,
            epoch: self.epoch,
            seq,
            full,
            clock,
            newest,
            at: now,
            state: told,
        })
    }
}

fn address(entry: &(Arc<str>, u64)) -> *const u8 {
    entry.0.as_ptr()
}

fn listed(top: Top) -> Listed {
    let mut listed = top.values;
    listed.sort_unstable_by_key(address);
    listed
}

fn whole(tops: &[Listed; DIMENSIONS]) -> BTreeMap<Dimension, BTreeMap<String, u64>> {
    let lists = Dimension::ALL.iter().zip(tops).filter(|(_, list)| !list.is_empty());
    lists
        .map(|(dimension, list)| {
            (*dimension, list.iter().map(|(text, count)| (text.to_string(), *count)).collect())
        })
        .collect()
}

/// The entries of the lists that changed; 0 for those that left.
fn changed(
    old: &[Listed; DIMENSIONS],
    new: &[Listed; DIMENSIONS],
) -> BTreeMap<Dimension, BTreeMap<String, u64>> {
    let mut tops = BTreeMap::new();
    for ((dimension, old), new) in Dimension::ALL.iter().zip(old).zip(new) {
        let mut left = BTreeMap::new();
        let mut came = BTreeMap::new();
        let (mut at, mut to) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (at.peek(), to.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => address(old).cmp(&address(new)),
            };
            let before = if order.is_le() { at.next() } else { None };
            let after = if order.is_ge() { to.next() } else { None };
            match (before, after) {
                (Some((text, _)), None) => {
                    left.insert(text.to_string(), 0);
                }
                (before, Some((text, count))) if before.is_none_or(|(_, before)| before != count) => {
                    came.insert(text.to_string(), *count);
                }
                _ => {}
            }
        }
        // A text that was forgotten and came again has another address: it has come, not left.
        left.append(&mut came);
        if !left.is_empty() {
            tops.insert(*dimension, left);
        }
    }
    tops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(pages: &[(Arc<str>, u64)]) -> [Listed; DIMENSIONS] {
        let mut lists: [Listed; DIMENSIONS] = Default::default();
        lists[Dimension::Page as usize] = listed(Top { values: pages.to_vec(), beyond: 0 });
        lists
    }

    #[test]
    fn a_list_tells_what_changed_and_what_left() {
        let [a, b, c, d] = ["/a", "/b", "/c", "/d"].map(Arc::<str>::from);
        let d_again = Arc::<str>::from("/d");
        let old = lists(&[(a.clone(), 1), (b.clone(), 2), (d, 4)]);
        let new = lists(&[(a, 1), (c, 3), (b.clone(), 5), (d_again, 4)]);
        let told = changed(&old, &new);
        let expected = [("/b", 5), ("/c", 3), ("/d", 4)].map(|(text, count)| (text.to_owned(), count));
        assert_eq!(told, BTreeMap::from([(Dimension::Page, BTreeMap::from(expected))]));
        let told = changed(&new, &lists(&[(b, 5)]));
        let left = ["/a", "/c", "/d"].map(|text| (text.to_owned(), 0));
        assert_eq!(told, BTreeMap::from([(Dimension::Page, BTreeMap::from(left))]));
        assert_eq!(changed(&old, &old), BTreeMap::new());
    }
}
