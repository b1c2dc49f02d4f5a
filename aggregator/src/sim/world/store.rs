//! The tables, as their writer sees them.

use super::*;

impl Store for World {
    async fn insert_events(&self, partition: i32, token: &str, rows: &[EventRow]) -> Result<(), StoreError> {
        assert_eq!(partition, PARTITION);
        let fault = self.call(6).await;
        let mut inner = self.lock();
        match fault {
            None => {
                inner.insert(token, rows, Fate::Whole);
                return Ok(());
            }
            Some(0) => felt("insert: nothing done"),
            Some(1) => {
                felt("insert: reply lost");
                inner.insert(token, rows, Fate::Whole);
            }
            Some(2) => inner.insert(token, rows, Fate::Lost),
            Some(3) => inner.insert(token, rows, Fate::Half),
            Some(_) => {
                felt("insert: arrives later");
                inner.underway.push((token.to_owned(), rows.to_vec()));
            }
        }
        Err(broken())
    }

    async fn settle(&self, token_prefix: &str) -> Result<(), StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        // What the store has begun is found; what still lies in a socket is not.
        let mut inner = self.lock();
        let Inner { underway, rng, .. } = &mut *inner;
        underway.retain(|(token, _)| !token.starts_with(token_prefix) || rng.percent(50));
        Ok(())
    }

    async fn present(
        &self,
        _partition: i32,
        start: i64,
        end: i64,
    ) -> Result<HashSet<(i64, u16)>, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|row| (start..end).contains(&row._offset));
        Ok(rows.map(|row| (row._offset, row._index)).collect())
    }

    async fn end(&self, _partition: i32) -> Result<i64, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        Ok(self.lock().rows.iter().map(|row| row._offset + 1).max().unwrap_or(0))
    }

    async fn look_up(
        &self,
        _partition: i32,
        events: &[(SiteId, EventId)],
        before: i64,
    ) -> Result<Stored, StoreError> {
        if self.call(1).await.is_some() {
            return Err(broken());
        }
        let mut stored = Stored::new();
        for (site, id) in events {
            let is_it = |row: &&EventRow| {
                row.site == site.as_str() && row.event_id == id.to_uuid() && row._offset < before
            };
            match self.lock().rows.iter().find(is_it) {
                Some(row) => {
                    felt("look-up: found");
                    let place = (row._offset, row._index);
                    let event = StoredEvent { place, payload_hash: row.payload_hash };
                    stored.insert((site.clone(), *id), event);
                }
                None => felt("look-up: not found"),
            }
        }
        Ok(stored)
    }

    async fn insert_counts(&self, rows: &[RollingRow]) -> Result<(), StoreError> {
        let fault = self.call(2).await;
        if fault == Some(0) {
            return Err(broken());
        }
        let mut inner = self.lock();
        for row in rows {
            assert_eq!(row._partition, PARTITION);
            let stored = inner.rows.iter().filter(|stored| stored._offset < row.version as i64).count();
            assert!(stored > 0, "counts are ahead of the rows");
            inner.count(row.clone());
        }
        if fault.is_some() { Err(broken()) } else { Ok(()) }
    }

    async fn insert_sessions(&self, rows: &[SessionRow]) -> Result<(), StoreError> {
        let fault = self.call(3).await;
        if fault == Some(0) {
            return Err(broken());
        }
        // Not told from a write that arrives twice or by half: it is written again, whole.
        let landed = if fault == Some(1) { rows.len() / 2 } else { rows.len() };
        let mut inner = self.lock();
        for row in &rows[..landed] {
            assert_eq!(row._partition, PARTITION);
            let is_stored = inner.rows.iter().any(|stored| stored._offset + 1 == row.version as i64);
            assert!(is_stored || inner.is_spoiled, "a session is ahead of the rows");
            if row.is_deleted == 1 {
                felt("session: joined");
            }
            let known = inner.sessions.entry(row.session).or_insert_with(|| row.clone());
            assert_eq!(known.opened, row.opened, "the key of a session has changed");
            if row.version == known.version {
                assert_eq!(known, row, "two truths of one version");
            }
            if row.version > known.version {
                if row.start < known.start {
                    felt("session: start moved");
                }
                *known = row.clone();
            }
        }
        if fault.is_some() { Err(broken()) } else { Ok(()) }
    }

    async fn recount(
        &self,
        partition: i32,
        minutes: &[(SiteId, i64)],
        before: i64,
    ) -> Result<(), StoreError> {
        let fault = self.call(2).await;
        if fault == Some(0) {
            return Err(broken());
        }
        let mut inner = self.lock();
        let rows: Vec<EventRow> = inner
            .rows
            .iter()
            .filter(|row| row._offset < before)
            .filter(|row| {
                minutes
                    .iter()
                    .any(|(site, minute)| row.site == site.as_str() && minute_of(row.event_time) == *minute)
            })
            .cloned()
            .collect();
        felt("counts: minute recounted");
        for ((site, minute, dimension, value), measures) in reference::counts(&rows) {
            inner.count(RollingRow {
                site,
                minute: (minute / 1_000) as u32,
                dimension,
                value,
                _partition: partition,
                events: measures.events,
                views: measures.views,
                visitors: measures.visitors,
                engaged_ms: measures.engaged_ms,
                version: before as u64,
            });
        }
        if fault.is_some() { Err(broken()) } else { Ok(()) }
    }
}
