//! What is refused is kept with its reason, within bounds.

use std::sync::Arc;

use footfall_schemas::{
    EventId, RejectReason,
    record::{DeadLetter, MAX_DEAD_PAYLOAD_BYTES, Stage},
};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::debug;

use crate::{config::Rate, metrics::Metrics, rates::quota};

/// Letters waiting to be written. Full: the letter is counted as suppressed, its refusal stands.
const QUEUE: usize = 1_024;
/// Longest site key kept of a site that is not ours.
const MAX_SITE_BYTES: usize = 64;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    queue: mpsc::Sender<DeadLetter>,
    /// All sites that are not ours share one.
    stranger: Arc<DefaultDirectRateLimiter>,
    metrics: Arc<Metrics>,
}

impl DeadLetters {
    /// `rate`: of what names sites that are not ours.
    pub(crate) fn new(rate: Rate, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<DeadLetter>) {
        let (queue, letters) = mpsc::channel(QUEUE);
        (Self { queue, stranger: Arc::new(RateLimiter::direct(quota(rate))), metrics }, letters)
    }

    /// A letter beyond the site's share is counted, not kept.
    pub(crate) fn keep(&self, share: &DefaultDirectRateLimiter, letter: DeadLetter) {
        if share.check().is_err() {
            self.suppress(&letter);
            return;
        }
        match self.queue.try_send(letter) {
            Ok(()) => self.metrics.dead_letters.add(1, &[]),
            Err(TrySendError::Full(letter) | TrySendError::Closed(letter)) => self.suppress(&letter),
        }
    }

    pub(crate) fn keep_of_a_stranger(&self, letter: DeadLetter) {
        self.keep(&self.stranger, letter);
    }

    fn suppress(&self, letter: &DeadLetter) {
        debug!(site = letter.site, "a dead letter is counted but not kept");
        self.metrics.dead_letters_suppressed.add(1, &[]);
    }
}

/// A letter from this stage. Site and payload are cut to their bounds.
pub(crate) fn letter(
    site: &str,
    received_at: i64,
    reason: RejectReason,
    detail: &str,
    event_id: Option<EventId>,
    payload: &[u8],
) -> DeadLetter {
    // Cut before it is made text: a hostile payload may be large, and replacement characters make it longer.
    let payload = String::from_utf8_lossy(&payload[..payload.len().min(MAX_DEAD_PAYLOAD_BYTES)]);
    DeadLetter {
        site: cut(site, MAX_SITE_BYTES).to_owned(),
        received_at,
        stage: Stage::Ingest,
        reason,
        detail: detail.to_owned(),
        event_id,
        payload: cut(&payload, MAX_DEAD_PAYLOAD_BYTES).to_owned(),
    }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_letter_is_bounded_whatever_it_holds() {
        let hostile = vec![0xff; 1_000_000];
        let letter = letter(&"x".repeat(9_999), 0, RejectReason::BadUtf8, "", None, &hostile);
        assert!(letter.payload.len() <= MAX_DEAD_PAYLOAD_BYTES && letter.payload.starts_with('\u{fffd}'));
        assert_eq!(letter.site.len(), MAX_SITE_BYTES);
    }

    #[test]
    fn a_flood_of_one_site_leaves_the_others_their_share() {
        let rate = Rate::new(1, 10);
        let (dead, mut kept) = DeadLetters::new(rate, Arc::new(Metrics::new()));
        let [a, b] = [(); 2].map(|()| RateLimiter::direct(quota(rate)));
        let of = |key: &str| letter(key, 0, RejectReason::Malformed, "", None, b"x");
        (0..500).for_each(|_| dead.keep(&a, of("a")));
        dead.keep(&b, of("b"));
        (0..500).for_each(|_| dead.keep_of_a_stranger(of("stranger")));
        drop(dead);
        let mut counts = HashMap::new();
        while let Ok(letter) = kept.try_recv() {
            *counts.entry(letter.site).or_insert(0) += 1;
        }
        assert_eq!(counts["b"], 1);
        assert!(counts["a"] <= 11 && counts["stranger"] <= 11, "{counts:?}");
    }
}
