//! The events of a signed request: each with an identity, a visitor and a time of its own, on their way to the log.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use footfall_schemas::{
    EventId, RejectReason, Sequence, SiteId, StreamId, VisitorId,
    record::{DeadLetter, partition_for},
    refusal::RetryReason,
    server::{EventResult, EventsAnswer, MAX_KEY_BYTES, MAX_SKEW_MS},
    time::{RESEND_WINDOW_MS, SECOND_MS},
    tracker::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, PageContext},
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    batcher::Contribution,
    clock::now_ms,
    dead_letter,
    enrich::{
        BatchContext, LineWriter,
        agent::{Agent, Hints},
        steps::{Did, StepTally},
    },
    intake::limited,
    node::Node,
    rates::Over,
    receipt::{Outcome, Retry, Tally},
    sites::SiteState,
    validate::{self, Rejected},
};

/// What says who the visitor is, and is left out of dead letters.
const PERSONAL: [&str; 3] = ["visitor", "ip", "user_agent"];

/// The fields of an event, each still text.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// An event as it goes into a record.
struct Line {
    id: EventId,
    partition: i32,
    /// Ended.
    json: Vec<u8>,
}

/// Events of one partition that share a record and an outcome.
struct Group {
    /// Places among the request's events, and the ids there.
    events: Vec<(usize, EventId)>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Node {
    /// Counts the events, and answers for each when its outcome is known.
    pub(crate) async fn take_from_server(
        &self,
        site: &Arc<SiteState>,
        address: IpAddr,
        events: &[Box<RawValue>],
    ) -> EventsAnswer {
        site.ledger.received(events.len() as u64);
        let mut results: Vec<Option<EventResult>> = vec![None; events.len()];
        let mut groups = Vec::new();
        for part in parts(events) {
            let bytes = events[part.clone()].iter().map(|event| event.get().len()).sum();
            let sender = self.limits.sender(address);
            let charged = self.limits.charge(&sender, &site.limits, part.len(), bytes);
            groups.extend(self.take_part(site, charged.err(), events, part, &mut results));
        }
        for Group { events, outcome } in groups {
            let lost = Err(Retry { reason: RetryReason::Draining, after_ms: 1_000 });
            let outcome = outcome.await.unwrap_or(lost);
            for (place, id) in events {
                results[place] = Some(result(id, outcome));
            }
        }
        let results = results.into_iter().map(|result| result.expect("each event has a fate")).collect();
        EventsAnswer { results }
    }

    /// Sorts good events from bad ones; the good ones are on their way, by partition.
    fn take_part(
        &self,
        site: &Arc<SiteState>,
        over: Option<Over>,
        events: &[Box<RawValue>],
        part: Range<usize>,
        results: &mut [Option<EventResult>],
    ) -> Vec<Group> {
        let received_at = now_ms();
        let mut refusals = Tally::default();
        let mut by_partition: HashMap<i32, Vec<(usize, Line)>> = HashMap::new();
        for place in part {
            let json = events[place].get();
            let fields = serde_json::from_str::<Fields>(json).unwrap_or_default();
            let id = event_id(site.key(), &fields);
            match self.line(site, id.clone(), json, &fields, received_at) {
                Ok(line) => by_partition.entry(line.partition).or_default().push((place, line)),
                Err(Rejected { reason, detail }) => {
                    let id = id.ok();
                    refusals.refuse(reason);
                    // The site wants nothing of such a page kept.
                    if reason != RejectReason::IgnoredPath {
                        refusals.dead_letters.push(letter(site, received_at, reason, &detail, id, &fields));
                    }
                    results[place] = Some(EventResult::Refused { id, reason, detail });
                }
            }
        }
        if !refusals.refused.is_empty() {
            self.batcher.receipt(site, refusals).0.settle(Ok(()), Instant::now());
        }
        by_partition
            .into_iter()
            .map(|(partition, lines)| self.offer(site, partition, lines, over.map(|over| over.wait)))
            .collect()
    }

    fn offer(
        &self,
        site: &Arc<SiteState>,
        partition: i32,
        events: Vec<(usize, Line)>,
        over: Option<Duration>,
    ) -> Group {
        let tally = Tally { accepted: events.len() as u64, ..Tally::default() };
        let (mut receipt, outcome) = self.batcher.receipt(site, tally);
        let places = events.iter().map(|(place, line)| (*place, line.id)).collect();
        match over {
            Some(wait) => receipt.settle(Err(limited(wait)), Instant::now()),
            None => {
                let lines = events.iter().flat_map(|(_, line)| &line.json).copied().collect();
                let events = events.len();
                self.batcher.offer(Contribution { partition, lines, events, receipt });
            }
        }
        Group { events: places, outcome }
    }

    fn line(
        &self,
        site: &SiteState,
        id: Result<EventId, Rejected>,
        json: &str,
        fields: &Fields<'_>,
        received_at: i64,
    ) -> Result<Line, Rejected> {
        let key = site.key();
        let valid = validate::event(json)?;
        let id = id?;
        check_time(valid.event.at, received_at)?;
        let user_agent = text(fields, "user_agent")?.unwrap_or_default();
        let address = address_of(fields)?;
        let visitor = self.visitor_of(key, fields, address, &user_agent, valid.event.at)?;
        let page = field::<PageContext>(fields, "ctx", "send {\"w\", \"l\", \"z\"}")?.unwrap_or_default();
        let location = address.and_then(|address| self.geography.locate(address));
        let context = BatchContext {
            site: &site.settings(),
            visitor,
            told_by: Did::VisitorServer,
            agent: Agent::parse(&user_agent, Hints::default()),
            location: location.as_deref(),
            page: &page,
            stream: id.stream,
            received_at,
            // The sender's clock is the wall's: an event is as old as it says.
            sent: received_at,
        };
        let (mut json, mut steps) = (Vec::new(), StepTally::default());
        let mut writer = LineWriter::new(&context, 1, &mut steps);
        let written = writer.write(id.sequence, &valid.event, &valid.url, &mut json, &mut steps);
        self.steps.add(&steps);
        written?;
        Ok(Line { id, partition: partition_for(key, visitor, self.batcher.partitions), json })
    }

    /// A name is hashed; else address and user agent are, as for a tracker's, with the key of the event's day: a
    /// resend on the next day must meet its first copy.
    fn visitor_of(
        &self,
        site: &SiteId,
        fields: &Fields<'_>,
        address: Option<IpAddr>,
        user_agent: &str,
        at: i64,
    ) -> Result<VisitorId, Rejected> {
        if let Some(name) = key_text(fields, "visitor")? {
            return Ok(self.visitors.named(site, &name));
        }
        match address {
            Some(address) => Ok(self.visitors.visitor(site, address, user_agent, at)),
            None => {
                reject(RejectReason::MissingField, "visitor: missing; send visitor, or ip and user_agent")
            }
        }
    }
}

fn address_of(fields: &Fields<'_>) -> Result<Option<IpAddr>, Rejected> {
    let address = text(fields, "ip")?.map(|address| address.parse()).transpose();
    address.map_err(|_| Rejected {
        reason: RejectReason::BadField,
        detail: "ip: no address; send an IPv4 or IPv6 address without port".to_owned(),
    })
}

/// Parts no larger than a tracker's batch: limits are made for those.
fn parts(events: &[Box<RawValue>]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (place, event) in events.iter().enumerate() {
        bytes += event.get().len();
        match parts.last_mut() {
            Some(part) if part.len() < MAX_BATCH_EVENTS && bytes <= MAX_BATCH_BYTES => part.end += 1,
            _ => {
                bytes = event.get().len();
                parts.push(place..place + 1);
            }
        }
    }
    parts
}

fn result(id: EventId, outcome: Outcome) -> EventResult {
    match outcome {
        Ok(()) => EventResult::Accepted { id },
        Err(Retry { reason, after_ms }) => EventResult::Retry { id, reason, retry_ms: after_ms },
    }
}

fn check_time(at: i64, now: i64) -> Result<(), Rejected> {
    let age = now.saturating_sub(at);
    if age > RESEND_WINDOW_MS {
        return reject(RejectReason::TooOld, "at: more than 7 days ago; send ms since 1970");
    }
    if age < -MAX_SKEW_MS {
        let ahead = age.saturating_abs() / SECOND_MS;
        let detail = format!("at: {ahead} s ahead of this node's clock; send ms since 1970");
        return reject(RejectReason::BadNumber, detail);
    }
    Ok(())
}

fn event_id(site: &SiteId, fields: &Fields<'_>) -> Result<EventId, Rejected> {
    if let Some(id) = field(fields, "id", "send a UUID whose last 32 bits are no zero")? {
        return Ok(id);
    }
    match key_text(fields, "idempotency")? {
        Some(key) => Ok(id_of_key(site, &key)),
        None => reject(
            RejectReason::MissingField,
            "id: missing; send id or idempotency, the same for every resend",
        ),
    }
}

/// 80 bits of SHA-256(site, NUL, key). The 48 bits of page-load time stay zero: a time made up from a hash could lie
/// in the future and would count as a wrong clock.
fn id_of_key(site: &SiteId, key: &str) -> EventId {
    let mut hash = Sha256::new();
    hash.update(site.as_str());
    hash.update([0]);
    hash.update(key);
    let hash = hash.finalize();
    let mut stream = [0; 12];
    stream[6..].copy_from_slice(&hash[..6]);
    let sequence = u32::from_be_bytes(hash[6..10].try_into().expect("4 of 32 bytes"));
    EventId::new(StreamId::new(stream), Sequence::new(sequence).unwrap_or(Sequence::MIN))
}

fn field<T: DeserializeOwned>(fields: &Fields<'_>, name: &str, fix: &str) -> Result<Option<T>, Rejected> {
    let Some(raw) = fields.get(name) else { return Ok(None) };
    serde_json::from_str::<Option<T>>(raw.get())
        .map_err(|_| Rejected { reason: RejectReason::BadField, detail: format!("{name}: {fix}") })
}

fn text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, Rejected> {
    field(fields, name, "no text; send valid Unicode text")
}

/// A text that stands for something: neither empty nor long.
fn key_text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, Rejected> {
    match text(fields, name)? {
        Some(text) if text.is_empty() || text.len() > MAX_KEY_BYTES => {
            reject(RejectReason::BadField, format!("{name}: send 1 to {MAX_KEY_BYTES} bytes"))
        }
        text => Ok(text),
    }
}

fn reject<T>(reason: RejectReason, detail: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected { reason, detail: detail.into() })
}

/// Keeps what was refused but for what says who the visitor is. Of what is no object nothing is kept.
fn letter(
    site: &SiteState,
    received_at: i64,
    reason: RejectReason,
    detail: &str,
    id: Option<EventId>,
    fields: &Fields<'_>,
) -> DeadLetter {
    let kept: BTreeMap<_, _> = fields.iter().filter(|(name, _)| !PERSONAL.contains(&name.as_str())).collect();
    let payload = serde_json::to_vec(&kept).expect("JSON that was read is written");
    dead_letter::letter(site.key().as_str(), received_at, reason, detail, id, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::tests::sites_of;
    use footfall_schemas::site::Site;
    use rstest::rstest;

    const NOW: i64 = 1_800_000_000_000;

    fn site(key: &str) -> SiteId {
        key.parse().unwrap()
    }

    #[rstest]
    #[case(NOW, None)]
    #[case(NOW - RESEND_WINDOW_MS, None)]
    #[case(NOW - RESEND_WINDOW_MS - 1, Some(RejectReason::TooOld))]
    #[case(NOW / 1_000, Some(RejectReason::TooOld))]
    #[case(NOW + MAX_SKEW_MS, None)]
    #[case(NOW + MAX_SKEW_MS + 1, Some(RejectReason::BadNumber))]
    #[case(NOW * 1_000, Some(RejectReason::BadNumber))]
    #[case(i64::MIN, Some(RejectReason::TooOld))]
    #[case(i64::MAX, Some(RejectReason::BadNumber))]
    fn an_event_may_be_a_resend_window_old_and_hardly_ahead(
        #[case] at: i64,
        #[case] refused: Option<RejectReason>,
    ) {
        assert_eq!(check_time(at, NOW).err().map(|rejected| rejected.reason), refused);
    }

    #[rstest]
    #[case::few(&[10, 10], &[Range { start: 0, end: 2 }])]
    #[case::many(&[1; 600], &[0..256, 256..512, 512..600])]
    #[case::large(&[40_000, 40_000, 20_000, 70_000, 5], &[0..1, 1..3, 3..4, 4..5])]
    #[case::none(&[], &[])]
    fn a_request_is_taken_in_parts_as_large_as_a_batch(
        #[case] sizes: &[usize],
        #[case] expected: &[Range<usize>],
    ) {
        let event = |size: &usize| RawValue::from_string("1".repeat(*size)).unwrap();
        let events: Vec<_> = sizes.iter().map(event).collect();
        assert_eq!(parts(&events), expected);
    }

    fn id(json: &str) -> Result<EventId, Rejected> {
        event_id(&site("shop"), &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_key_is_the_same_id_for_ever_and_another_one_on_another_site() {
        let of = |site_key, key| id_of_key(&site(site_key), key);
        assert_eq!(of("shop", "order-4711").to_string(), GOLDEN_ID);
        assert_ne!(of("shop", "order-4711"), of("shop", "order-4712"));
        assert_ne!(of("shop", "order-4711"), of("blog", "order-4711"));
        assert_eq!(id(r#"{"idempotency":"order-4711"}"#).unwrap().to_string(), GOLDEN_ID);
    }

    #[test]
    fn an_id_counts_before_a_key() {
        let told = "01a315e4-6800-7000-8000-c3d400000001";
        assert_eq!(
            id(&format!(r#"{{"id":"{told}","idempotency":"order-4711"}}"#)).unwrap().to_string(),
            told
        );
    }

    #[test]
    fn a_key_is_no_longer_than_told() {
        let of = |length| id(&format!(r#"{{"idempotency":"{}"}}"#, "x".repeat(length)));
        of(MAX_KEY_BYTES).unwrap();
        assert_eq!(of(MAX_KEY_BYTES + 1).unwrap_err().reason, RejectReason::BadField);
    }

    /// printf 'shop\0order-4711' | sha256sum
    const GOLDEN_ID: &str = "00000000-0000-4afe-c05b-13e7ab12a1d6";

    #[rstest]
    #[case("{}", RejectReason::MissingField)]
    #[case(r#"{"id":null,"idempotency":null}"#, RejectReason::MissingField)]
    #[case(r#"{"id":7}"#, RejectReason::BadField)]
    #[case(r#"{"id":"01a315e4-6800-a1b2-c3d4-e5f600000000"}"#, RejectReason::BadField)]
    #[case(r#"{"id":"order-4711"}"#, RejectReason::BadField)]
    #[case(r#"{"idempotency":""}"#, RejectReason::BadField)]
    #[case(r#"{"idempotency":"\ud800"}"#, RejectReason::BadField)]
    fn an_event_without_an_id_is_refused(#[case] json: &str, #[case] reason: RejectReason) {
        assert_eq!(id(json).unwrap_err().reason, reason);
    }

    #[test]
    fn who_the_visitor_is_goes_into_no_dead_letter() {
        let json = r#"{"k":"view","visitor":"anna@mail.example","ip":"203.0.113.9","user_agent":"UA","u":"nonsense"}"#;
        let fields: Fields = serde_json::from_str(json).unwrap();
        let sites = sites_of([Site::new(site("shop"), vec![])]);
        let letter = letter(&sites.get("shop").unwrap(), NOW, RejectReason::BadUrl, "", None, &fields);
        assert_eq!(letter.payload, r#"{"k":"view","u":"nonsense"}"#);
    }
}
