//! One batch, from text to the log: limit → visitor → validate → enrich → batcher. The same for both transports.

use std::{sync::Arc, time::Duration};

use footfall_schemas::{
    EventId, RejectReason, Sequence, StreamId, VisitorId,
    record::partition_for,
    refusal::RetryReason,
    tracker::{
        Ack, Batch, ClientFrame, ClientTag, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Nack, Refusal, ServerFrame,
    },
};
use tokio::{sync::oneshot, time::Instant};
use tracing::{Span, info_span};

use crate::{
    agent::Agent,
    batcher::Contribution,
    clock::now_ms,
    dead_letter,
    enrich::BatchContext,
    limits::SenderLimits,
    node::{Fault, Node},
    receipt::{Outcome, Retry, Tally},
    sites::SiteState,
    validate::{self, Rejected},
};

/// Who sends: one connection, or one request.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) site: Arc<SiteState>,
    pub(crate) visitor: VisitorId,
    pub(crate) agent: Agent,
    pub(crate) limits: SenderLimits,
}

/// A batch on its way. Its answer is known when `outcome` is.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) stream: StreamId,
    pub(crate) first: u32,
    pub(crate) upto: u32,
    refused: Vec<Refusal>,
    pub(crate) outcome: oneshot::Receiver<Outcome>,
    /// Over a rate limit: not taken, and this long to wait.
    pub(crate) limited: Option<Duration>,
    /// Ends with the batch.
    _span: Span,
}

/// The frame's type, read on its own.
pub(crate) fn tag(text: &str) -> Result<ClientFrame, Fault> {
    serde_json::from_str::<ClientTag>(text).map(|tagged| tagged.tag).map_err(|error| {
        Fault::new(RejectReason::Malformed, format!("frame: {error}; send a JSON object with a text `t`"))
    })
}

/// A batch whose events are still text. The events that it holds are counted in the fault's favour: as many as were
/// told apart, else one.
pub(crate) fn batch(text: &str) -> Result<Batch, (Fault, u64)> {
    if text.len() > MAX_BATCH_BYTES {
        let detail = format!("batch: {} bytes; send at most {MAX_BATCH_BYTES}", text.len());
        return Err((Fault::new(RejectReason::TooLarge, detail), 1));
    }
    let batch: Batch = serde_json::from_str(text)
        .map_err(|error| (Fault::new(RejectReason::Malformed, format!("batch: {error}")), 1))?;
    let events = batch.events.len() as u64;
    if batch.events.len() > MAX_BATCH_EVENTS {
        let detail = format!("batch: {events} events; send at most {MAX_BATCH_EVENTS}");
        return Err((Fault::new(RejectReason::TooLarge, detail), events));
    }
    if batch.first.checked_add(batch.events.len() as u32).is_none() {
        let detail = "first: sequences end at 4294967295; start a new stream".to_owned();
        return Err((Fault::new(RejectReason::BadSequence, detail), events));
    }
    Ok(batch)
}

impl Node {
    /// Counts the batch, and sees to it that its outcome is told, whatever becomes of it.
    pub(crate) fn take(&self, sender: &Sender, batch: Batch) -> Taken {
        let received_at = now_ms();
        let site = &sender.site;
        let count = batch.events.len() as u64;
        let key = site.key().as_str();
        let span =
            info_span!("batch", site = key, stream = %batch.stream, first = batch.first, events = count);
        let entered = span.enter();
        site.received(count);

        let (tally, refused, partition, lines) = match self.limits.charge(&sender.limits, batch.events.len())
        {
            Ok(()) => self.sift(sender, &batch, received_at),
            Err(over) => {
                let wait_ms = u32::try_from(over.wait.as_millis()).unwrap_or(u32::MAX).clamp(250, 60_000);
                let tally = Tally { accepted: count, ..Tally::default() };
                let (mut receipt, outcome) = self.batcher.receipt(site, tally);
                let retry = Retry { reason: RetryReason::RateLimited, after_ms: wait_ms };
                receipt.settle(Err(retry), Instant::now());
                drop(entered);
                let limited = Some(Duration::from_millis(wait_ms.into()));
                return Taken { limited, ..Taken::new(&batch, Vec::new(), outcome, span) };
            }
        };
        let events = tally.accepted as usize;
        let (mut receipt, outcome) = self.batcher.receipt(site, tally);
        if events == 0 {
            receipt.settle(Ok(()), Instant::now());
        } else {
            self.batcher.offer(Contribution { partition, lines, events, receipt });
        }
        drop(entered);
        Taken::new(&batch, refused, outcome, span)
    }

    /// Sorts good events from bad ones: what is refused, and the lines of the rest with their partition.
    fn sift(&self, sender: &Sender, batch: &Batch, received_at: i64) -> (Tally, Vec<Refusal>, i32, Vec<u8>) {
        let site = sender.site.key();
        let visitor = match &batch.token {
            Some(token) => self.visitors.verify(site, token, received_at),
            None => Ok(sender.visitor),
        };
        let context = BatchContext {
            site,
            visitor: visitor.unwrap_or(sender.visitor),
            agent: sender.agent,
            page: &batch.ctx,
            received_at,
            sent: batch.sent,
        };
        let mut tally = Tally { evicted: batch.evicted.into(), ..Tally::default() };
        let mut refused = Vec::new();
        let mut lines = Vec::with_capacity(batch.events.len() * 384);
        for (seq, raw) in (batch.first..).zip(&batch.events) {
            let json = raw.get();
            let event_id = Sequence::new(seq).map(|sequence| EventId::new(batch.stream, sequence));
            let checked = match (event_id, visitor) {
                (None, _) => Err(Rejected {
                    reason: RejectReason::BadSequence,
                    detail: "first: sequences start at 1".to_owned(),
                }),
                (Some(_), Err(bad)) => {
                    Err(Rejected { reason: RejectReason::BadToken, detail: bad.to_string() })
                }
                (Some(id), Ok(_)) => validate::event(json).map(|valid| (id, valid)),
            };
            match checked {
                Ok((id, valid)) => {
                    serde_json::to_writer(&mut lines, &context.record(id, valid))
                        .expect("plain fields with text keys always serialise");
                    lines.push(b'\n');
                    tally.accepted += 1;
                }
                Err(Rejected { reason, detail }) => {
                    let letter = dead_letter::letter(
                        site.as_str(),
                        received_at,
                        reason,
                        &detail,
                        event_id,
                        json.as_bytes(),
                    );
                    tally.refuse(reason);
                    tally.dead_letters.push(letter);
                    refused.push(Refusal { seq, reason, detail });
                }
            }
        }
        let partition = partition_for(site, context.visitor, self.batcher.partitions);
        (tally, refused, partition, lines)
    }
}

impl Taken {
    fn new(batch: &Batch, refused: Vec<Refusal>, outcome: oneshot::Receiver<Outcome>, span: Span) -> Self {
        let count = batch.events.len() as u32;
        // Without events there is nothing to settle: `upto` stands one below `first`.
        let first = if count == 0 { batch.first.max(1) } else { batch.first };
        let upto = first.saturating_add(count) - 1;
        Self { stream: batch.stream, first, upto, refused, outcome, limited: None, _span: span }
    }

    /// The answer to the batch. A receipt that was lost settles nothing: come again.
    pub(crate) fn answer(self, outcome: Result<Outcome, oneshot::error::RecvError>) -> ServerFrame {
        let lost = Err(Retry { reason: RetryReason::Draining, after_ms: 1_000 });
        let Self { stream, first, upto, refused, .. } = self;
        match outcome.unwrap_or(lost) {
            Ok(()) => ServerFrame::Ack(Ack { stream, first, upto, refused, token: None }),
            Err(Retry { reason, after_ms }) => {
                ServerFrame::Nack(Nack { stream, first, upto, reason, retry_ms: after_ms })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#"{"t":"batch"}"#, Some(ClientFrame::Batch))]
    #[case(r#"{"t":"here","path":"/","visible":true}"#, Some(ClientFrame::Here))]
    #[case(r#"{"t":"from_the_future","x":[1]}"#, Some(ClientFrame::Unknown))]
    #[case(r#"{"x":1}"#, None)]
    #[case(r#"{"t":1}"#, None)]
    #[case("[]", None)]
    #[case("", None)]
    fn a_frame_is_known_by_its_tag(#[case] text: &str, #[case] expected: Option<ClientFrame>) {
        assert_eq!(tag(text).ok(), expected);
    }

    #[rstest]
    #[case::no_stream(r#"{"t":"batch","first":1,"sent":1,"events":[]}"#.into(), RejectReason::Malformed, 1)]
    #[case::sequence_overflow(format!(r#"{{"t":"batch","stream":"{:024}","first":4294967295,"sent":1,"events":[1]}}"#, 1), RejectReason::BadSequence, 1)]
    #[case::too_many(format!(r#"{{"t":"batch","stream":"{:024}","first":1,"sent":1,"events":[{}]}}"#, 1, vec!["1"; 257].join(",")), RejectReason::TooLarge, 257)]
    #[case::too_long(format!("{{{}}}", " ".repeat(MAX_BATCH_BYTES)), RejectReason::TooLarge, 1)]
    fn a_bad_batch_is_refused_whole(#[case] text: String, #[case] reason: RejectReason, #[case] events: u64) {
        let (fault, counted) = batch(&text).unwrap_err();
        assert_eq!((fault.reason, counted), (reason, events), "{}", fault.detail);
    }
}
