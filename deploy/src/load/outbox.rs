//! Events that are not settled yet. The same rules as the browser's: an event leaves by an ack only.

use std::collections::BTreeMap;

use footfall_schemas::{
    StreamId,
    tracker::{Batch, ClientFrame, PageContext},
};
use serde_json::value::RawValue;

#[derive(Debug)]
pub(super) struct Outbox {
    pending: BTreeMap<u32, Box<RawValue>>,
    /// Next sequence to send on the present connection.
    cursor: u32,
    next: u32,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { pending: BTreeMap::new(), cursor: 1, next: 1 }
    }

    pub(super) fn next_sequence(&self) -> u32 {
        self.next
    }

    pub(super) fn push(&mut self, event: Box<RawValue>) {
        self.pending.insert(self.next, event);
        self.next += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// After a reconnect everything is to be sent again.
    pub(super) fn rewind(&mut self, sequence: u32) {
        self.cursor = self.cursor.min(sequence);
    }

    /// Takes the next run of consecutive events, at most `limit`.
    pub(super) fn next_batch(
        &mut self,
        limit: usize,
        stream: StreamId,
        sent: i64,
        context: &PageContext,
    ) -> Option<Batch> {
        let first = *self.pending.range(self.cursor..).next()?.0;
        let run =
            self.pending.range(first..).zip(first..).take_while(|((seq, _), expected)| **seq == *expected);
        let events: Vec<_> = run.take(limit).map(|((_, event), _)| event.clone()).collect();
        self.cursor = first + events.len() as u32;
        let ctx = context.clone();
        Some(Batch { tag: ClientFrame::Batch, stream, first, sent, token: None, ctx, evicted: 0, events })
    }

    /// Settles `first..=upto`; returns how many left.
    pub(super) fn settle(&mut self, first: u32, upto: u32) -> u64 {
        let before = self.pending.len();
        self.pending.retain(|seq, _| !(first..=upto).contains(seq));
        (before - self.pending.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(events: u32) -> Outbox {
        let mut outbox = Outbox::new();
        (0..events).for_each(|_| outbox.push(RawValue::from_string("{}".into()).unwrap()));
        outbox
    }

    fn batch(outbox: &mut Outbox, limit: usize) -> Option<(u32, usize)> {
        let batch = outbox.next_batch(limit, StreamId::from_parts(1, 1), 0, &PageContext::default())?;
        Some((batch.first, batch.events.len()))
    }

    #[test]
    fn batches_are_consecutive_and_resent_after_a_rewind() {
        let mut outbox = outbox(5);
        assert_eq!(batch(&mut outbox, 2), Some((1, 2)));
        assert_eq!(batch(&mut outbox, 2), Some((3, 2)));
        assert_eq!(outbox.settle(3, 4), 2);
        outbox.rewind(1);
        assert_eq!(batch(&mut outbox, 9), Some((1, 2)));
        assert_eq!(batch(&mut outbox, 9), Some((5, 1)));
        assert_eq!(batch(&mut outbox, 9), None);
    }

    #[test]
    fn a_second_ack_settles_nothing_more() {
        let mut outbox = outbox(3);
        batch(&mut outbox, 9);
        assert_eq!((outbox.settle(1, 2), outbox.settle(1, 3), outbox.len()), (2, 1, 0));
    }
}
