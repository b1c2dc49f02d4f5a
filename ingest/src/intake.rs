//! One batch, from text to the log: limit → visitor → validate → enrich → batcher. The same for both transports.

use std::{sync::Arc, time::Duration};

use footfall_schemas::{
    RejectReason, StreamId, VisitorId,
    record::partition_for,
    refusal::RetryReason,
    tracker::{Ack, ClientFrame, ClientTag, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Nack, Refusal, ServerFrame},
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    batcher::Contribution,
    clock::now_ms,
    cut, dead_letter,
    enrich::{agent::Agent, geography::Location, steps::Did},
    excess::Share,
    limits::SenderLimits,
    node::{Fault, Node},
    rates::Pressure,
    raw::RawBatch,
    receipt::{Outcome, Retry, Tally},
    sift::{Sent, sift},
    sites::SiteState,
    validate,
};

/// Who sends: one connection, or one request.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) site: Arc<SiteState>,
    pub(crate) visitor: VisitorId,
    pub(crate) agent: Agent,
    /// None without a database, or when it does not know the address.
    pub(crate) location: Option<Arc<Location>>,
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
    /// Taken, but a rate limit is near: the sender should gather more before it sends.
    pub(crate) slow: bool,
    /// The whole site has been over its rate for a while: what the sender should leave out.
    pub(crate) sample: Option<Share>,
}

/// The frame's type, read on its own.
pub(crate) fn tag(text: &str) -> Result<ClientFrame, Fault> {
    // As trackers write it: the tag comes first, and the rest need not be read twice.
    if text.starts_with(cut::BEGIN) {
        return Ok(ClientFrame::Batch);
    }
    serde_json::from_str::<ClientTag>(text).map(|tagged| tagged.tag).map_err(|error| {
        let detail = format!("frame: {error}; send a JSON object with a text `t`");
        Fault::new(validate::unreadable(text), detail)
    })
}

/// A batch whose events are still text. The events that it holds are counted in the fault's favour: as many as were
/// told apart, else one.
pub(crate) fn batch(text: &str) -> Result<RawBatch<'_>, (Fault, u64)> {
    if text.len() > MAX_BATCH_BYTES {
        let detail = format!("batch: {} bytes; send at most {MAX_BATCH_BYTES}", text.len());
        return Err((Fault::new(RejectReason::TooLarge, detail), 1));
    }
    let batch = RawBatch::parse(text)
        .map_err(|error| (Fault::new(validate::unreadable(text), format!("batch: {error}")), 1))?;
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

/// Over a rate limit: come again after `wait`, within reason.
pub(crate) fn limited(wait: Duration) -> Retry {
    let after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).clamp(250, 60_000);
    Retry { reason: RetryReason::RateLimited, after_ms }
}

impl Node {
    /// Counts the batch, and sees to it that its outcome is told, whatever becomes of it.
    pub(crate) fn take(&self, sender: &Sender, batch: RawBatch<'_>) -> Taken {
        let received_at = now_ms();
        let site = &sender.site;
        let count = batch.events.len() as u64;
        let span = self.sampling.batch(site.key(), &batch);
        site.ledger.received(count);

        let bytes = batch.events.iter().map(|event| event.len()).sum();
        let charged = self.limits.charge(&sender.limits, &site.limits, batch.events.len(), bytes);
        let slow = charged == Ok(Pressure::High);
        let (tally, refused, partition, lines) = match charged {
            Ok(_) => self.sift(sender, &batch, received_at),
            Err(over) => {
                let retry = limited(over.wait);
                let tally = Tally { accepted: count, ..Tally::default() };
                let (mut receipt, outcome) = self.batcher.receipt(site, tally);
                receipt.trace(span);
                receipt.settle(Err(retry), Instant::now());
                let limited = Some(Duration::from_millis(retry.after_ms.into()));
                let sample = if over.of_site { site.exceeded() } else { None };
                return Taken { limited, sample, ..Taken::new(&batch, Vec::new(), outcome) };
            }
        };
        let events = tally.accepted as usize;
        let (mut receipt, outcome) = self.batcher.receipt(site, tally);
        receipt.trace(span);
        if events == 0 {
            receipt.settle(Ok(()), Instant::now());
        } else {
            self.batcher.offer(Contribution { partition, lines, events, receipt });
        }
        Taken { slow, ..Taken::new(&batch, refused, outcome) }
    }

    /// Sorts good events from bad ones: what is refused, and the lines of the rest with their partition.
    fn sift(
        &self,
        sender: &Sender,
        batch: &RawBatch<'_>,
        received_at: i64,
    ) -> (Tally, Vec<Refusal>, i32, Vec<u8>) {
        let site = sender.site.key();
        let (visitor, told_by) = match &batch.token {
            Some(token) => (self.visitors.verify(site, token, received_at), Did::VisitorToken),
            None => (Ok(sender.visitor), Did::VisitorDerived),
        };
        let sent = Sent {
            site: &sender.site.settings(),
            visitor,
            told_by,
            agent: sender.agent,
            location: sender.location.as_deref(),
            received_at,
        };
        let sifted = sift(batch, &sent);
        self.steps.add(&sifted.steps);
        let mut tally =
            Tally { accepted: sifted.accepted as u64, evicted: batch.evicted.into(), ..Tally::default() };
        let mut refused = Vec::with_capacity(sifted.refused.len());
        for event in sifted.refused {
            let reason = event.rejected.reason;
            tally.refuse(reason);
            // The site wants nothing of such a page kept.
            if reason != RejectReason::IgnoredPath {
                tally.dead_letters.push(dead_letter::letter(
                    site.as_str(),
                    received_at,
                    reason,
                    &event.rejected.detail,
                    event.event_id,
                    event.json.as_bytes(),
                ));
            }
            refused.push(Refusal { seq: event.seq, reason, detail: event.rejected.detail });
        }
        let partition = partition_for(site, visitor.unwrap_or(sender.visitor), self.batcher.partitions);
        (tally, refused, partition, sifted.lines)
    }
}

impl Taken {
    fn new(batch: &RawBatch<'_>, refused: Vec<Refusal>, outcome: oneshot::Receiver<Outcome>) -> Self {
        let count = batch.events.len() as u32;
        // Without events there is nothing to settle: `upto` stands one below `first`.
        let first = if count == 0 { batch.first.max(1) } else { batch.first };
        let upto = first.saturating_add(count) - 1;
        Self { stream: batch.stream, first, upto, refused, outcome, limited: None, slow: false, sample: None }
    }

    /// The answer to the batch. A receipt that was lost settles nothing: come again.
    pub(crate) fn answer(self, outcome: Result<Outcome, oneshot::error::RecvError>) -> ServerFrame {
        let lost = Err(Retry { reason: RetryReason::Draining, after_ms: 1_000 });
        let Self { stream, first, upto, refused, .. } = self;
        match outcome.unwrap_or(lost) {
            Ok(()) => ServerFrame::Ack(Ack { stream, first, upto, refused, token: None, settings: None }),
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
    #[case(r#"{"t":"batch","stream":"#, Some(ClientFrame::Batch))]
    #[case(r#"{"stream":"x","t":"batch"}"#, Some(ClientFrame::Batch))]
    #[case(r#"{"t":"batches","stream":"x"}"#, Some(ClientFrame::Unknown))]
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
    #[case::depth_bomb(format!(r#"{{"t":"batch","stream":"{:024}","first":1,"sent":{}1"#, 1, "[".repeat(9_999)), RejectReason::TooDeep, 1)]
    #[case::first_nan(r#"{"t":"batch","stream":"000000000000000000000001","first":NaN,"sent":1,"events":[]}"#.into(), RejectReason::Malformed, 1)]
    #[case::first_1e400(r#"{"t":"batch","stream":"000000000000000000000001","first":1e400,"sent":1,"events":[]}"#.into(), RejectReason::Malformed, 1)]
    #[case::twice(r#"{"t":"batch","stream":"000000000000000000000001","first":1,"first":2,"sent":1,"events":[]}"#.into(), RejectReason::Malformed, 1)]
    #[case::too_long(format!("{{{}}}", " ".repeat(MAX_BATCH_BYTES)), RejectReason::TooLarge, 1)]
    fn a_bad_batch_is_refused_whole(#[case] text: String, #[case] reason: RejectReason, #[case] events: u64) {
        let (fault, counted) = batch(&text).unwrap_err();
        assert_eq!((fault.reason, counted), (reason, events), "{}", fault.detail);
    }
}
