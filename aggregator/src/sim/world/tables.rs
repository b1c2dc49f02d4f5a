//! What the audit asks of the store in memory, and what somebody else does to it.

use std::collections::{BTreeMap, BTreeSet};

use footfall_schemas::{Dimension, rows::EventRow, time::minute_of};

use super::{World, broken};
use crate::{
    audit::{Booked, Counted, MinuteSums, Sample, SiteMinute, Span, Sums},
    error::StoreError,
    sim::reference,
};

impl World {
    /// Somebody deletes the newest row.
    pub(in crate::sim) fn lose_row(&self) {
        let mut inner = self.lock();
        inner.rows.pop();
        inner.is_spoiled = true;
    }

    /// Somebody inserts the newest row again.
    pub(in crate::sim) fn double_row(&self) {
        let mut inner = self.lock();
        let newest = inner.rows.last().cloned();
        inner.rows.extend(newest);
        inner.is_spoiled = true;
    }
}

impl Sample for World {
    async fn booked(&self, _partition: i32, span: Span) -> Result<Booked, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|row| (span.from..span.to).contains(&row._offset));
        let places: Vec<_> = rows.map(|row| (row._offset, row._index)).collect();
        let distinct: BTreeSet<_> = places.iter().collect();
        Ok(Booked { rows: places.len() as u64, distinct: distinct.len() as u64 })
    }

    async fn dead(&self, _partition: i32, span: Span) -> Result<u64, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        let inner = self.lock();
        let places: BTreeSet<_> =
            inner.letters.iter().filter(|(offset, _)| (span.from..span.to).contains(offset)).collect();
        Ok(places.len() as u64)
    }

    async fn raw(
        &self,
        _partition: i32,
        minutes: &[SiteMinute],
        before: i64,
    ) -> Result<BTreeMap<SiteMinute, MinuteSums>, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        let is_asked = |row: &&EventRow| {
            row._offset < before && minutes.contains(&(row.site.clone(), minute_of(row.event_time)))
        };
        let rows: Vec<EventRow> = self.lock().rows.iter().filter(is_asked).cloned().collect();
        let mut sums: BTreeMap<SiteMinute, MinuteSums> = BTreeMap::new();
        for ((site, minute, dimension, _), measures) in reference::counts(&rows) {
            let minute = sums.entry((site, minute)).or_default();
            add(minute, &dimension, measures.events, measures.views, measures.visitors);
        }
        Ok(sums)
    }

    async fn counted(
        &self,
        _partition: i32,
        minutes: &[SiteMinute],
    ) -> Result<BTreeMap<SiteMinute, Counted>, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        let mut counted: BTreeMap<SiteMinute, Counted> = BTreeMap::new();
        for ((site, minute, dimension, _), (version, measures)) in &self.lock().counts {
            let at = (site.clone(), *minute);
            if minutes.contains(&at) {
                let minute = counted.entry(at).or_default();
                minute.version = minute.version.max(*version as i64);
                add(&mut minute.sums, dimension, measures.events, measures.views, measures.visitors);
            }
        }
        Ok(counted)
    }
}

fn add(sums: &mut MinuteSums, dimension: &str, events: u64, views: u64, visitors: u64) {
    let sums = match dimension {
        _ if dimension == Dimension::Total.as_str() => &mut sums.total,
        _ if dimension == Dimension::Page.as_str() => &mut sums.page,
        _ => return,
    };
    *sums =
        Sums { events: sums.events + events, views: sums.views + views, visitors: sums.visitors + visitors };
}
