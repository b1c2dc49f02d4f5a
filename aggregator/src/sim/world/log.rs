//! The log and the group.

use super::*;

pub(in crate::sim) struct PlayedLog {
    pub(super) world: Arc<World>,
    pub(super) epoch: u64,
    pub(super) inbox: UnboundedSender<Input>,
}

impl PlayedLog {
    fn owned(&self) -> Result<MutexGuard<'_, Inner>, LogError> {
        let inner = self.world.lock();
        if inner.epoch == self.epoch { Ok(inner) } else { Err(LogError::Gone) }
    }
}

impl Log for PlayedLog {
    async fn committed(&self) -> Result<Option<Committed>, LogError> {
        if self.world.call(1).await.is_some() {
            return Err(LogError::Retry("played".into()));
        }
        Ok(self.owned()?.committed.clone())
    }

    async fn bounds(&self) -> Result<(i64, i64), LogError> {
        if self.world.call(1).await.is_some() {
            return Err(LogError::Retry("played".into()));
        }
        let inner = self.owned()?;
        Ok((inner.low, inner.published as i64))
    }

    async fn start(&self, offset: i64) -> Result<(), LogError> {
        assert!(offset >= self.owned()?.low, "offsets that are gone are asked for");
        let (world, inbox) = (self.world.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let mut next = offset as usize;
            let mut told_end = false;
            while !inbox.is_closed() {
                {
                    let mut inner = world.lock();
                    let some = inner.rng.below(6) as usize;
                    for record in inner.records[next..inner.published].iter().take(some) {
                        let _ = inbox.send(Input::Record(record.clone()));
                        next += 1;
                        told_end = false;
                    }
                    if next == inner.published && !told_end {
                        told_end = true;
                        let _ = inbox.send(Input::End);
                    }
                }
                sleep(Duration::from_millis(7)).await;
            }
        });
        Ok(())
    }

    async fn commit(&self, offset: i64, metadata: String) -> Result<(), LogError> {
        let fault = self.world.call(2).await;
        let mut inner = self.owned()?;
        if fault == Some(0) {
            felt("commit: refused");
            return Err(LogError::Retry("played".into()));
        }
        let before = inner.committed.as_ref().map_or(0, |committed| committed.offset);
        assert!(offset >= before, "a commit goes back from {before} to {offset}");
        if !metadata.is_empty() && !self.world.faults.truncation {
            let announced = inner.announced.entry(offset).or_insert_with(|| metadata.clone());
            assert_eq!(*announced, metadata, "the block at {offset} was rebuilt other than announced");
        }
        inner.committed = Some(Committed { offset, metadata });
        if fault.is_some() {
            felt("commit: reply lost");
            return Err(LogError::Retry("played".into()));
        }
        Ok(())
    }

    fn taken(&self, _bytes: usize) {}
}
