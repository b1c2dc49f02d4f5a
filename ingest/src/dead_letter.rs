//! What is refused is kept with its reason, within bounds.

use std::{collections::HashMap, sync::Arc};

use footfall_schemas::{
    EventId, RejectReason,
    record::{DeadLetter, MAX_DEAD_PAYLOAD_BYTES, Stage},
    site::Site,
};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use tokio::sync::mpsc;
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
    limits: Arc<HashMap<String, DefaultDirectRateLimiter>>,
    /// All sites that are not ours share one.
    stranger: Arc<DefaultDirectRateLimiter>,
    metrics: Arc<Metrics>,
}

impl DeadLetters {
    pub(crate) fn new(
        sites: &[Site],
        rate: Rate,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<DeadLetter>) {
        let (queue, letters) = mpsc::channel(QUEUE);
        let limiter = || RateLimiter::direct(quota(rate));
        let limits = sites.iter().map(|site| (site.key.as_str().to_owned(), limiter())).collect();
        (Self { queue, limits: Arc::new(limits), stranger: Arc::new(limiter()), metrics }, letters)
    }

    /// `site` decides whose share it takes; a letter beyond the share is counted, not kept.
    pub(crate) fn keep(&self, site: &str, letter: DeadLetter) {
        let limit = self.limits.get(site).unwrap_or(&self.stranger);
        let kept = limit.check().is_ok() && self.queue.try_send(letter).is_ok();
        if kept {
            self.metrics.dead_letters.add(1, &[]);
        } else {
            debug!(site, "a dead letter is counted but not kept");
            self.metrics.dead_letters_suppressed.add(1, &[]);
        }
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
        let site = |key: &str| Site::new(key.try_into().unwrap(), vec![]);
        let (dead, mut kept) =
            DeadLetters::new(&[site("a"), site("b")], Rate::new(1, 10), Arc::new(Metrics::new()));
        let of = |key: &str| letter(key, 0, RejectReason::Malformed, "", None, b"x");
        (0..500).for_each(|_| dead.keep("a", of("a")));
        dead.keep("b", of("b"));
        (0..500).for_each(|n| dead.keep(&format!("stranger-{n}"), of("stranger")));
        drop(dead);
        let mut counts = HashMap::new();
        while let Ok(letter) = kept.try_recv() {
            *counts.entry(letter.site).or_insert(0) += 1;
        }
        assert_eq!(counts["b"], 1);
        assert!(counts["a"] <= 11 && counts["stranger"] <= 11, "{counts:?}");
    }
}
