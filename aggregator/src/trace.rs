//! What ingest traced goes on here: a span for each block that holds a traced record, from the record's arrival until the
//! block is written.

use std::time::SystemTime;

use footfall_schemas::{
    topics,
    trace::{HEADER, TraceParent},
};
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan},
    trace::{
        Link, SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        Tracer as _,
    },
};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::{block::Block, source::GROUP};

/// Records linked to a block's span, its parent included. Beyond, they stay without one.
const MOST: usize = 64;

/// Where in a trace the record stands. A record that nobody traces has no headers, so this costs one call.
pub(crate) fn parent_of(message: &BorrowedMessage<'_>) -> Option<TraceParent> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == HEADER)?;
    let parent: TraceParent = std::str::from_utf8(header.value?).ok()?.parse().ok()?;
    parent.sampled.then_some(parent)
}

/// The traced records that are not yet in a closed block.
#[derive(Debug, Default)]
pub(crate) struct Traced(Vec<(i64, SystemTime, TraceParent)>);

impl Traced {
    pub(crate) fn note(&mut self, offset: i64, parent: TraceParent) {
        if self.0.len() < MOST {
            self.0.push((offset, SystemTime::now(), parent));
        }
    }

    /// The span of the block, a child of its first traced record with links to the others; `None` when it holds none.
    /// It ends when it is dropped.
    pub(crate) fn block(&mut self, partition: i32, block: &Block) -> Option<BoxedSpan> {
        let held = self.0.partition_point(|(offset, ..)| *offset < block.end);
        let mut records = self.0.drain(..held);
        let (_, arrived, first) = records.next()?;
        let links = records.map(|(.., parent)| Link::with_context(remote(parent))).collect();
        let attributes = [
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", topics::EVENTS),
            KeyValue::new("messaging.destination.partition.id", partition.to_string()),
            KeyValue::new("messaging.consumer.group.name", GROUP),
            KeyValue::new("messaging.batch.message_count", block.end - block.start),
            KeyValue::new("messaging.kafka.offset", block.start),
            KeyValue::new("footfall.rows", block.rows.len() as i64),
        ];
        let tracer = global::tracer("footfall.aggregator");
        let span = tracer
            .span_builder(format!("process {}", topics::EVENTS))
            .with_kind(SpanKind::Consumer)
            .with_start_time(arrived)
            .with_attributes(attributes)
            .with_links(links)
            .start_with_context(&tracer, &Context::new().with_remote_span_context(remote(first)));
        Some(span)
    }
}

fn remote(parent: TraceParent) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: TraceParent = TraceParent { trace_id: 7, span_id: 8, sampled: true };

    #[test]
    fn a_block_takes_the_traced_records_before_its_end() {
        let block = |end| Block { end, ..Block::default() };
        let mut traced = Traced::default();
        [1, 5, 9].into_iter().for_each(|offset| traced.note(offset, PARENT));
        assert!(traced.block(0, &block(1)).is_none());
        assert!(traced.block(0, &block(9)).is_some());
        assert_eq!(traced.0.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), [9]);
        assert!(traced.block(0, &block(10)).is_some());
        assert!(traced.block(0, &block(20)).is_none());
    }

    #[test]
    fn a_block_of_many_traced_records_remembers_a_bounded_number() {
        let mut traced = Traced::default();
        (0..1_000).for_each(|offset| traced.note(offset, PARENT));
        assert_eq!(traced.0.len(), MOST);
    }

    #[test]
    fn a_parent_keeps_its_ids() {
        let context = remote("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap());
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
    }
}
