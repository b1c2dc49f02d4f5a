//! Sorts a batch: the lines of its good events, and why the others are refused. Pure.

use footfall_schemas::{EventId, RejectReason, Sequence, VisitorId, site::Site};

use crate::{
    enrich::{
        BatchContext, LineWriter,
        agent::{Agent, Browser, Device, System},
        geography::Location,
        steps::{Did, StepTally},
    },
    intake,
    raw::RawBatch,
    validate::{self, Rejected},
    visitor::BadToken,
};

/// What an event's line takes, as a first guess.
const LINE_BYTES: usize = 640;

/// Who sent a batch, and when it came.
#[derive(Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) site: &'a Site,
    /// Of the batch's token, or of its sender when it has none.
    pub(crate) visitor: Result<VisitorId, BadToken>,
    pub(crate) told_by: Did,
    pub(crate) agent: Agent,
    pub(crate) location: Option<&'a Location>,
    pub(crate) received_at: i64,
}

/// A batch sorted.
#[derive(Debug, Default)]
pub(crate) struct Sifted<'a> {
    /// NDJSON, each line ended.
    pub(crate) lines: Vec<u8>,
    pub(crate) accepted: usize,
    pub(crate) refused: Vec<RefusedEvent<'a>>,
    pub(crate) steps: StepTally,
}

#[derive(Debug)]
pub(crate) struct RefusedEvent<'a> {
    pub(crate) seq: u32,
    /// None when the sequence is none.
    pub(crate) event_id: Option<EventId>,
    pub(crate) rejected: Rejected,
    pub(crate) json: &'a str,
}

/// A batch's whole way from its text to its lines, sent by a stand-in: for benchmarks and fuzzing.
///
/// # Errors
/// Why the batch is refused whole.
pub fn lines_of(text: &str, site: &Site, received_at: i64) -> Result<Vec<u8>, String> {
    let batch = intake::batch(text).map_err(|(fault, _)| fault.detail)?;
    let sent = Sent {
        site,
        visitor: Ok(VisitorId(0)),
        told_by: Did::VisitorDerived,
        agent: Agent { browser: Browser::Firefox, system: System::Linux, device: Device::Desktop },
        location: None,
        received_at,
    };
    Ok(sift(&batch, &sent).lines)
}

/// One bad event refuses itself, its siblings pass.
pub(crate) fn sift<'a>(batch: &RawBatch<'a>, sent: &Sent<'_>) -> Sifted<'a> {
    let mut sifted = Sifted::default();
    let visitor = match sent.visitor {
        Ok(visitor) => visitor,
        Err(bad) => {
            sifted.steps.count_all(Did::VisitorBadToken, batch.events.len());
            for (event_id, seq, json) in numbered(batch) {
                let rejected = Rejected { reason: RejectReason::BadToken, detail: bad.to_string() };
                sifted.refused.push(RefusedEvent { seq, event_id, rejected, json });
            }
            return sifted;
        }
    };
    let context = BatchContext {
        site: sent.site,
        visitor,
        told_by: sent.told_by,
        agent: sent.agent,
        location: sent.location,
        page: &batch.ctx,
        stream: batch.stream,
        received_at: sent.received_at,
        sent: batch.sent,
    };
    let mut writer = LineWriter::new(&context, batch.events.len(), &mut sifted.steps);
    sifted.lines.reserve_exact(batch.events.len() * LINE_BYTES);
    let mut read = batch.read.iter().map(Option::as_ref);
    for (event_id, seq, json) in numbered(batch) {
        let read = read.next().flatten();
        let written = match event_id {
            Some(id) => validate::read(json, read).and_then(|event| {
                let url = validate::bounds(&event)?;
                writer.write(id.sequence, &event, &url, &mut sifted.lines, &mut sifted.steps)
            }),
            None => Err(Rejected {
                reason: RejectReason::BadSequence,
                detail: "first: sequences start at 1".to_owned(),
            }),
        };
        match written {
            Ok(()) => sifted.accepted += 1,
            Err(rejected) => sifted.refused.push(RefusedEvent { seq, event_id, rejected, json }),
        }
    }
    sifted
}

fn numbered<'a>(batch: &RawBatch<'a>) -> impl Iterator<Item = (Option<EventId>, u32, &'a str)> {
    let stream = batch.stream;
    (batch.first..).zip(&batch.events).map(move |(seq, json)| {
        let event_id = Sequence::new(seq).map(|sequence| EventId::new(stream, sequence));
        (event_id, seq, *json)
    })
}
