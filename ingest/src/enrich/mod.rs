//! From a valid event to its line on the log: what is added, and what is left out. Pure.
//!
//! Named steps in order, each of which counts what it did ([`steps`]):
//!
//! | step | reads | writes |
//! |---|---|---|
//! | visitor | the batch's token, or who the connection is | `visitor` |
//! | [`bot`] | user agent | `device` = `bot` |
//! | [`agent`] | user agent, client hints | `browser`, `system`, `device` |
//! | [`geography`] | address, or the browser's time zone | `country`, `region`, `city` |
//! | [`page`] | the page's URL, the site's rules | `host`, `path` |
//! | [`campaign`] | the page's query | `utm_…` |
//! | [`referrer`], [`channel`] | referrer, campaign | `referrer`, `referrer_host`, `channel` |
//!
//! The first four hold for a batch: they are done once, and their fields are written once and copied for each event.

pub(crate) mod agent;
mod bot;
pub(crate) mod campaign;
pub(crate) mod channel;
pub(crate) mod geography;
pub(crate) mod page;
pub(crate) mod referrer;
pub(crate) mod steps;
mod zones;

use footfall_schemas::{
    EventKind, RejectReason, Sequence, StreamId, VisitorId,
    site::Site,
    time::{Clock, event_time},
    tracker::PageContext,
};

use crate::{
    line::Fields,
    raw::{RawEvent, RawProp, Text},
    validate::Rejected,
    web_url::WebUrl,
};

use self::{
    agent::Agent,
    campaign::Campaign,
    channel::Channel,
    geography::{Location, Place},
    page::Page,
    referrer::Referrer,
    steps::{Did, StepTally},
};

const MAX_LANGUAGE_BYTES: usize = 35;
const MAX_ZONE_BYTES: usize = 64;

/// What holds for all events of a batch.
#[derive(Debug)]
pub(crate) struct BatchContext<'a> {
    pub(crate) site: &'a Site,
    pub(crate) visitor: VisitorId,
    /// How the visitor was told.
    pub(crate) told_by: Did,
    pub(crate) agent: Agent,
    pub(crate) location: Option<&'a Location>,
    pub(crate) page: &'a PageContext,
    pub(crate) stream: StreamId,
    pub(crate) received_at: i64,
    pub(crate) sent: i64,
}

/// Writes the lines of a batch.
#[derive(Debug)]
pub(crate) struct LineWriter<'a> {
    context: &'a BatchContext<'a>,
    /// The beginning of every line, up to the event's sequence in its id.
    prefix: Vec<u8>,
    /// For the payload hash.
    scratch: Vec<u8>,
}

impl<'a> LineWriter<'a> {
    /// Does the steps that hold for the whole batch of `events`.
    pub(crate) fn new(context: &'a BatchContext<'a>, events: usize, tally: &mut StepTally) -> Self {
        let agent = context.agent;
        let time_zone = tidy(context.page.z.as_deref(), MAX_ZONE_BYTES, b"/_+-");
        let place = Place::of(context.location, time_zone);
        for did in [context.told_by, agent.bot_mark(), agent.did(), place.did] {
            tally.count_all(did, events);
        }

        let mut prefix = Vec::with_capacity(384);
        let mut fields = Fields::new(&mut prefix);
        fields.plain("{\"site\":\"", context.site.key.as_str());
        fields.raw(",\"visitor\":\"");
        fields.hex(context.visitor.0, 16);
        fields.number("\",\"received_at\":", context.received_at);
        fields.escaped(",\"country\":\"", place.country);
        fields.escaped(",\"region\":\"", place.region);
        fields.escaped(",\"city\":\"", place.city);
        fields.escaped(",\"language\":\"", tidy(context.page.l.as_deref(), MAX_LANGUAGE_BYTES, b"-"));
        fields.escaped(",\"time_zone\":\"", time_zone);
        fields.escaped(",\"browser\":\"", agent.browser.as_str());
        fields.escaped(",\"system\":\"", agent.system.as_str());
        fields.escaped(",\"device\":\"", agent.device.as_str());
        fields.count(",\"screen_width\":", context.page.w.unwrap_or_default().min(u16::MAX.into()));
        // An event's id is a UUID: 24 digits of the stream, 8 of the sequence.
        fields.raw(",\"event_id\":\"");
        for (at, byte) in context.stream.as_bytes().iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                fields.raw("-");
            }
            fields.hex((*byte).into(), 2);
        }
        Self { context, prefix, scratch: Vec::with_capacity(512) }
    }

    /// Appends the event's line to `lines`, or nothing when the site does not want the event.
    pub(crate) fn write(
        &mut self,
        sequence: Sequence,
        event: &RawEvent<'_>,
        url: &WebUrl<'_>,
        lines: &mut Vec<u8>,
        tally: &mut StepTally,
    ) -> Result<(), Rejected> {
        let site = self.context.site;
        let Some(page) = Page::clean(site, url, tally) else {
            let detail = "u: the site's path_rules drop events of this page".to_owned();
            return Err(Rejected { reason: RejectReason::IgnoredPath, detail });
        };
        let campaign = Campaign::read(url.query.as_str(), tally);
        let (event_time, clock) = event_time(self.context.received_at, self.context.sent, event.at);

        lines.extend_from_slice(&self.prefix);
        let mut fields = Fields::new(lines);
        fields.hex(sequence.get().into(), 8);
        fields.plain("\",\"kind\":\"", event.k.as_str());
        fields.number(",\"event_time\":", event_time);
        if clock != Clock::Told {
            fields.plain(",\"clock\":\"", clock.as_str());
        }
        fields.text(",\"host\":\"", &url.host);
        fields.raw(",\"path\":\"");
        fields.inner(&page.path);
        if !page.query.is_empty() {
            fields.raw("?");
            fields.escape(&page.query);
        }
        fields.raw("\"");
        match event.k {
            EventKind::PageView => {
                fields.text(",\"title\":\"", event.t.as_ref().unwrap_or(&Text::EMPTY));
                let referrer = Referrer::read(event.r.as_ref(), url, tally);
                let channel = Channel::of(&campaign, referrer.host(), referrer.internal);
                if let Some(url) = &referrer.url {
                    fields.raw(",\"referrer\":\"");
                    fields.inner(&url.origin);
                    fields.inner(&url.path);
                    fields.raw("\",\"referrer_host\":\"");
                    fields.escape(referrer.host());
                    fields.raw("\"");
                }
                fields.plain(",\"channel\":\"", channel.as_str());
            }
            EventKind::Custom => fields.text(",\"name\":\"", event.n.as_ref().unwrap_or(&Text::EMPTY)),
            EventKind::Engagement => {}
        }
        fields.escaped(",\"utm_source\":\"", &campaign.source);
        fields.escaped(",\"utm_medium\":\"", &campaign.medium);
        fields.escaped(",\"utm_campaign\":\"", &campaign.name);
        fields.escaped(",\"utm_term\":\"", &campaign.term);
        fields.escaped(",\"utm_content\":\"", &campaign.content);
        fields.count(",\"engaged_ms\":", event.d.unwrap_or_default());
        fields.count(",\"scroll_depth\":", event.s.unwrap_or_default().into());
        fields.count(",\"page_view\":", event.pv.unwrap_or_default());
        let mut before = ",\"props\":{\"";
        for (key, value) in event.p.iter() {
            fields.raw(before);
            fields.inner(key);
            fields.raw("\":\"");
            match value {
                RawProp::Bool(value) => fields.raw(if *value { "true" } else { "false" }),
                RawProp::Number(value) => fields.json_number(value),
                RawProp::Text(value) => fields.inner(value),
            }
            before = "\",\"";
        }
        if !event.p.is_empty() {
            fields.raw("\"}");
        }
        fields.number(",\"payload_hash\":", event.payload_hash(&mut self.scratch));
        fields.raw("}\n");
        Ok(())
    }
}

/// ASCII letters, digits and `also`; empty when it holds anything else or is too long.
fn tidy<'t>(text: Option<&'t str>, most: usize, also: &[u8]) -> &'t str {
    text.filter(|text| {
        text.len() <= most && text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests;
