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
