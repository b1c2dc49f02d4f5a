//! What is said on a tracker's socket: frames heard, batches taken, answers written. Knows no socket and no timer.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use footfall_schemas::{
    RejectReason,
    refusal::{RetryReason, close},
    tracker::{
        Ack, ClientFrame, Here, Limits as TrackerLimits, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, ServerFrame,
        Welcome,
    },
};
use tokio::{sync::oneshot::error::RecvError, time::Instant};

use crate::{
    clock::now_ms,
    enrich::page,
    frame::{self, Heard},
    intake::{self, Sender, Taken},
    node::{Fault, Node},
    presence::TabId,
    raw::RawBatch,
    receipt::{Outcome, Retry},
    wheel::Tick,
};

/// How long trackers over their rate should gather events before sending.
const SLOW_LINGER_MS: u32 = 2_000;

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer left, or does not read: nothing can be told any more.
    Gone,
    /// The peer closed; the answer to that is written.
    Closed,
    /// We close, with a code and a reason for humans.
    Close(u16, &'static str),
}

impl End {
    /// With the close code of the reason.
    fn refused(reason: RejectReason, why: &'static str) -> Self {
        Self::Close(reason.close().unwrap_or(close::POLICY), why)
    }
}

pub(crate) struct Conversation {
    pub(crate) node: Arc<Node>,
    pub(crate) sender: Sender,
    /// The connection's place among the visitor's tabs; left for once.
    tab: Option<TabId>,
    /// In the order of arrival, and so of the answers. Full: the socket is not read, so TCP slows the tracker.
    in_flight: VecDeque<Taken>,
    /// Until when the peer was told to wait, and how often it did not.
    wait_until: Option<Tick>,
    flood_strikes: u32,
    /// Whether the peer is near a limit and has been told so.
    slowed: bool,
    malformed_in_a_row: u16,
    /// A tracker that connects and says nothing is no tracker.
    pub(crate) first_message: bool,
}

impl Conversation {
    pub(crate) fn new(node: Arc<Node>, sender: Sender) -> Self {
        let tab = Some(sender.site.presence().enter(sender.visitor));
        Self {
            node,
            sender,
            tab,
            in_flight: VecDeque::new(),
            wait_until: None,
            flood_strikes: 0,
            slowed: false,
            malformed_in_a_row: 0,
            first_message: false,
        }
    }

    /// The first word: a welcome, or to stay away.
    pub(crate) fn welcome(&self, out: &mut Vec<u8>) -> Result<(), End> {
        if !self.sender.site.is_served() {
            self.node.metrics.denied(RejectReason::SiteDisabled.as_str());
            return Err(switched_off(out));
        }
        let now = now_ms();
        let limits = TrackerLimits {
            batch_events: MAX_BATCH_EVENTS as u32,
            batch_bytes: MAX_BATCH_BYTES as u32,
            idle_ms: self.node.config.timeouts.idle_ms,
        };
        let token = self.node.visitors.sign(self.sender.site.key(), self.sender.visitor, now);
        let (node, settings) = (self.node.name.clone(), self.sender.site.settings().tracker.clone());
        say(out, &ServerFrame::Welcome(Welcome { token, node, now, limits, settings }));
        Ok(())
    }

    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.len() < self.node.limits.settings().batches_in_flight
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Gives back what a busy time left behind.
    pub(crate) fn rest(&mut self) {
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
    }

    /// Answers every batch in front that is settled; acks of a stream in a row become one. Whether there was any.
    pub(crate) fn answer(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        let mut answered = false;
        let mut open: Option<Ack> = None;
        while let Some(front) = self.in_flight.front_mut() {
            let Poll::Ready(outcome) = Pin::new(&mut front.outcome).poll(cx) else { break };
            let Some(taken) = self.in_flight.pop_front() else { break };
            answered = true;
            let slow = is_over_a_rate(&outcome);
            match (open.take(), taken.answer(outcome)) {
                (Some(mut before), ServerFrame::Ack(ack)) if continues(&before, &ack) => {
                    before.upto = ack.upto;
                    before.refused.extend(ack.refused);
                    open = Some(before);
                }
                (before, answer) => {
                    if let Some(before) = before {
                        say(out, &ServerFrame::Ack(before));
                    }
                    if slow {
                        say(out, &ServerFrame::Slow { linger_ms: SLOW_LINGER_MS });
                    }
                    match answer {
                        ServerFrame::Ack(ack) => open = Some(ack),
                        other => say(out, &other),
                    }
                }
            }
        }
        if let Some(ack) = open {
            say(out, &ServerFrame::Ack(ack));
        }
        answered
    }

    pub(crate) fn hear(&mut self, heard: Heard<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        match heard {
            Heard::Text(text) => {
                self.first_message = true;
                self.hear_text(text, out)
            }
            Heard::Binary(_) => Err(End::Close(close::UNSUPPORTED, "text frames only")),
            Heard::Ping => self.charge_frame(0),
            Heard::Pong => Ok(()),
            Heard::Close => Err(End::Closed),
            Heard::Fault(fault) => Err(self.hear_fault(&fault)),
        }
    }

    fn hear_fault(&self, fault: &frame::Fault<'_>) -> End {
        let (reason, detail, payload, why) = match fault {
            frame::Fault::Protocol => return End::Close(close::PROTOCOL, "protocol error"),
            frame::Fault::BadUtf8(payload) => {
                let detail = "frame: text is not UTF-8".to_owned();
                (RejectReason::BadUtf8, detail, payload, "text is not UTF-8")
            }
            frame::Fault::TooBig(payload) => {
                let detail = format!("frame: over {MAX_BATCH_BYTES} bytes; send smaller batches");
                (RejectReason::TooLarge, detail, payload, "frame too large")
            }
        };
        self.node.refuse_whole(&self.sender.site, &Fault::new(reason, detail), 1, payload);
        End::refused(reason, why)
    }

    fn hear_text(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), End> {
        match intake::tag(text) {
            Ok(ClientFrame::Batch) => match intake::batch(text) {
                Ok(batch) => {
                    self.malformed_in_a_row = 0;
                    self.take(batch, out)
                }
                Err((fault, events)) if fault.reason == RejectReason::TooLarge => {
                    self.node.refuse_whole(&self.sender.site, &fault, events, text.as_bytes());
                    Err(End::refused(fault.reason, "batch too large"))
                }
                Err((fault, events)) => self.malformed(&fault, events, text, out),
            },
            Ok(ClientFrame::Here) => match serde_json::from_str::<Here>(text) {
                Ok(here) => {
                    self.malformed_in_a_row = 0;
                    self.charge_frame(text.len())?;
                    if let Some(tab) = self.tab {
                        let visitor = self.sender.visitor;
                        let settings = self.sender.site.settings();
                        let path = page::shown(&settings, &here.path);
                        self.sender.site.presence().show(visitor, tab, path, here.visible);
                    }
                    Ok(())
                }
                Err(error) => {
                    let fault = Fault::new(RejectReason::Malformed, format!("here: {error}"));
                    self.malformed(&fault, 1, text, out)
                }
            },
            Ok(ClientFrame::Unknown) => self.charge_frame(text.len()),
            Err(fault) => self.malformed(&fault, 1, text, out),
        }
    }

    fn take(&mut self, batch: RawBatch<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        let now = self.node.wheel.now();
        let early = self.wait_until.is_some_and(|until| now < until);
        let taken = self.node.take(&self.sender, batch);
        match taken.limited {
            Some(wait) => {
                self.wait_until = Some(now.after(wait));
                if early {
                    self.strike()?;
                }
            }
            None if early => {}
            None => {
                self.wait_until = None;
                self.flood_strikes = 0;
            }
        }
        // Once when a limit comes near, not with each batch that is near it.
        if taken.slow && !self.slowed {
            say(out, &ServerFrame::Slow { linger_ms: SLOW_LINGER_MS });
        }
        self.slowed = taken.slow;
        if let Some(share) = taken.sample {
            say(out, &share.frame());
        }
        self.in_flight.push_back(taken);
        Ok(())
    }

    /// A frame that is no batch counts like one event; over the limit it is a strike.
    fn charge_frame(&mut self, bytes: usize) -> Result<(), End> {
        match self.node.limits.charge(&self.sender.limits, &self.sender.site.limits, 1, bytes) {
            Ok(_) => Ok(()),
            Err(_) => self.strike(),
        }
    }

    fn strike(&mut self) -> Result<(), End> {
        self.flood_strikes += 1;
        if self.flood_strikes > self.node.limits.settings().flood_strikes {
            return Err(End::Close(close::POLICY, "flood: sent on although told to wait"));
        }
        Ok(())
    }

    fn malformed(&mut self, fault: &Fault, events: u64, text: &str, out: &mut Vec<u8>) -> Result<(), End> {
        self.node.refuse_whole(&self.sender.site, fault, events, text.as_bytes());
        self.charge_frame(text.len())?;
        say(out, &fault.frame());
        self.malformed_in_a_row += 1;
        if u32::from(self.malformed_in_a_row) >= self.node.limits.settings().malformed_strikes {
            return Err(End::refused(RejectReason::Malformed, "malformed frames"));
        }
        Ok(())
    }

    /// Whoever is told to leave is gone from the site, even while his socket lingers.
    pub(crate) fn leave(&mut self) {
        if let Some(tab) = self.tab.take() {
            self.sender.site.presence().leave(self.sender.visitor, tab, Instant::now());
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The site takes nothing, or nothing any more.
pub(crate) fn switched_off(out: &mut Vec<u8>) -> End {
    say(out, &ServerFrame::site_disabled());
    End::refused(RejectReason::SiteDisabled, "the site is switched off")
}

/// Appends a frame.
pub(crate) fn say(out: &mut Vec<u8>, frame: &ServerFrame) {
    frame::write_text(out, |out| {
        serde_json::to_writer(out, frame).expect("plain fields with text keys always serialise");
    });
}

fn is_over_a_rate(outcome: &Result<Outcome, RecvError>) -> bool {
    matches!(outcome, Ok(Err(Retry { reason: RetryReason::RateLimited, .. })))
}

/// Whether two acks can be one. Refusals are bounded by the batch, so that a frame is.
fn continues(before: &Ack, ack: &Ack) -> bool {
    before.stream == ack.stream
        && before.upto.checked_add(1) == Some(ack.first)
        && before.refused.len() + ack.refused.len() <= MAX_BATCH_EVENTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use footfall_schemas::{StreamId, tracker::Refusal};
    use rstest::rstest;

    const SOME: usize = MAX_BATCH_EVENTS / 2;

    fn ack(stream: u64, first: u32, upto: u32, refused: usize) -> Ack {
        let refusal = Refusal { seq: first, reason: RejectReason::BadUrl, detail: String::new() };
        let refused = vec![refusal; refused];
        Ack { stream: StreamId::from_parts(1, stream), first, upto, refused, token: None, settings: None }
    }

    #[rstest]
    #[case::the_next(ack(1, 6, 9, 0), true)]
    #[case::of_another_stream(ack(2, 6, 9, 0), false)]
    #[case::behind_a_gap(ack(1, 7, 9, 0), false)]
    #[case::once_more(ack(1, 1, 5, 0), false)]
    #[case::with_as_many_refusals_as_a_batch_has(ack(1, 6, 300, SOME), true)]
    #[case::with_more(ack(1, 6, 300, SOME + 1), false)]
    fn acks_are_one_where_a_stream_goes_on(#[case] ack_behind: Ack, #[case] expected: bool) {
        assert_eq!(continues(&ack(1, 1, 5, SOME), &ack_behind), expected);
    }
}
