//! A share of the batches is traced: one span from a batch's arrival to its outcome, and one for the record that carries
//! it, whose place in the trace goes with the record to the aggregator.

pub(crate) use footfall_schemas::trace::HEADER;
use footfall_schemas::{SiteId, topics, trace::TraceParent, tracker::Batch};
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan},
    trace::{Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};

use crate::receipt::{Outcome, Receipt};

const SCOPE: &str = "footfall.ingest";

/// Decides which batches are traced, before anything is made for them.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// Of 2³² draws, so many are traced. 0: there is not even a draw.
    threshold: u64,
}

impl Sampling {
    /// `ratio` from 0 to 1.
    pub(crate) fn new(ratio: f64) -> Self {
        Self { threshold: (ratio * 4_294_967_296.0) as u64 }
    }

    fn hits(&self) -> bool {
        self.threshold > 0 && u64::from(rand::random::<u32>()) < self.threshold
    }

    pub(crate) fn batch(&self, site: &SiteId, batch: &Batch) -> Option<BatchSpan> {
        if !self.hits() {
            return None;
        }
        let attributes = [
            KeyValue::new("footfall.site", site.to_string()),
            KeyValue::new("footfall.stream", batch.stream.to_string()),
            KeyValue::new("footfall.first", i64::from(batch.first)),
            KeyValue::new("footfall.events", batch.events.len() as i64),
        ];
        let tracer = global::tracer(SCOPE);
        let span = tracer
            .span_builder("batch")
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start(&tracer);
        Some(BatchSpan { spans: Box::new(Spans { batch: span, record: None }) })
    }
}

/// Travels in the batch's receipt.
pub(crate) struct BatchSpan {
    /// Boxed: most receipts have none.
    spans: Box<Spans>,
}

struct Spans {
    batch: BoxedSpan,
    /// Of the record, if this batch is the first in it that is traced.
    record: Option<BoxedSpan>,
}

impl BatchSpan {
    pub(crate) fn end(mut self, outcome: &Outcome) {
        for span in self.spans.record.iter_mut().chain([&mut self.spans.batch]) {
            if let Err(retry) = outcome {
                span.set_attribute(KeyValue::new("error.type", retry.reason.as_str()));
                span.set_status(Status::error(""));
            }
            span.end();
        }
    }
}

/// Begins the span of a record for the first batch in it that is traced, with links to the others. `None` when none is.
pub(crate) fn record(partition: i32, receipts: &mut [Receipt]) -> Option<TraceParent> {
    let mut traced = receipts.iter_mut().filter_map(Receipt::span);
    let first = traced.next()?;
    let parent = Context::new().with_remote_span_context(first.spans.batch.span_context().clone());
    let links = traced.map(|other| Link::with_context(other.spans.batch.span_context().clone())).collect();
    let attributes = [
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "send"),
        KeyValue::new("messaging.operation.type", "send"),
        KeyValue::new("messaging.destination.name", topics::EVENTS),
        KeyValue::new("messaging.destination.partition.id", partition.to_string()),
    ];
    let tracer = global::tracer(SCOPE);
    let span = tracer
        .span_builder(format!("send {}", topics::EVENTS))
        .with_kind(SpanKind::Producer)
        .with_attributes(attributes)
        .with_links(links)
        .start_with_context(&tracer, &parent);
    let context = span.span_context();
    let here = TraceParent {
        trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(context.span_id().to_bytes()),
        sampled: context.is_sampled(),
    };
    first.spans.record = Some(span);
    here.sampled.then_some(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0.0, 0..=0)]
    #[case(0.25, 2_000..=3_000)]
    #[case(1.0, 10_000..=10_000)]
    fn the_share_of_the_batches_is_traced(
        #[case] ratio: f64,
        #[case] expected: std::ops::RangeInclusive<usize>,
    ) {
        let sampling = Sampling::new(ratio);
        let hits = (0..10_000).filter(|_| sampling.hits()).count();
        assert!(expected.contains(&hits), "{hits}");
    }
}
