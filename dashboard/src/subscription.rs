//! What a viewer has asked to see, and how far it has been told: the same for a socket and for a stream of events.

use std::{future::pending, sync::Arc};

use footfall_schemas::{
    SiteId,
    viewer::{Filter, Position, ViewerError},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Session, Sessions},
    clock::wall_ms,
    config::{Config, ms},
    feed::{Feed, Pending},
    feeds::Feeds,
    filtered::{FilteredViews, TooMany},
    metrics::Metrics,
    tail::{Place, Tail},
    tails::Tails,
};

/// What every viewer of a node shares.
pub(crate) struct Shared {
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) filtered: Arc<FilteredViews>,
    pub(crate) tails: Arc<Tails>,
    pub(crate) sessions: Sessions,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// Why nothing is shown: goes to the viewer.
pub(crate) struct Refusal {
    pub(crate) reason: ViewerError,
    /// Names the field and the fix.
    pub(crate) detail: String,
}

pub(crate) struct Subscription {
    site: SiteId,
    filter: Filter,
    feed: Arc<Feed>,
    moved: watch::Receiver<u64>,
    position: Option<Position>,
    /// Whether it has been told anything.
    begun: bool,
    events: Option<Events>,
}

/// The events themselves, while they are asked for.
struct Events {
    tail: Arc<Tail>,
    moved: watch::Receiver<u64>,
    place: Option<Place>,
}

/// What has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    View,
    Events,
}

impl Shared {
    /// Begins to watch a site, or what matches a filter. `resume`: what the viewer has.
    pub(crate) fn subscribe(
        &self,
        session: Session,
        site: SiteId,
        filter: Filter,
        resume: Option<Position>,
    ) -> Result<Subscription, Refusal> {
        let refused = |reason, detail| Refusal { reason, detail };
        let found = self.feeds.site(&site).zip(self.feeds.get(&site));
        let Some((site_now, whole)) = found else {
            let detail = format!("site: no site \"{site}\" is configured here");
            return Err(refused(ViewerError::UnknownSite, detail));
        };
        if !may_watch(session, &site, &filter) {
            return Err(refused(ViewerError::NotAllowed, format!("site: \"{site}\" is not shown to you")));
        }
        if let Some(goal) = &filter.goal
            && !site_now.goals.iter().any(|known| known.name == *goal)
        {
            let detail = format!("filter.goal: \"{site}\" has no goal \"{goal}\"");
            return Err(refused(ViewerError::Malformed, detail));
        }
        let (feed, moved) = if filter.is_empty() {
            let moved = whole.watch();
            (whole, moved)
        } else {
            self.filtered.watch(&site, &filter).map_err(|TooMany(most)| {
                let detail = format!("filter: {most} distinct filters are watched here already: try later");
                refused(ViewerError::TooManyFilters, detail)
            })?
        };
        Ok(Subscription { site, filter, feed, moved, position: resume, begun: false, events: None })
    }

    /// Returns, with the reason, when somebody who was let in may stay no longer.
    pub(crate) async fn expelled(&self, session: Session) -> &'static str {
        let expires = Instant::now() + ms((session.expires_at - wall_ms()).clamp(0, 1 << 40) as u64);
        let mut revocations = self.sessions.revocations();
        loop {
            if self.sessions.is_revoked(session) {
                return "logged out";
            }
            tokio::select! {
                () = sleep_until(expires) => return "the login has expired",
                Ok(()) = revocations.changed() => {}
            }
        }
    }
}

/// Who is logged in may watch everything.
fn may_watch(_: Session, _: &SiteId, _: &Filter) -> bool {
    true
}

impl Subscription {
    /// What lies after the position, if that is at most `most` frames, else the whole. The position moves on.
    pub(crate) fn next(&mut self, most: usize) -> Pending {
        // A viewer that comes back may be as far behind as changes are kept.
        let most = if self.begun { most } else { self.feed.kept_frames() };
        let pending = self.feed.after(self.position, most);
        if let Pending::Changes(_, position) | Pending::Snapshot(_, position) = &pending {
            self.position = Some(*position);
        }
        self.begun |= pending != Pending::Unknown;
        pending
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Starts the events, or stops them.
    pub(crate) fn show_events(&mut self, shared: &Shared, on: bool) {
        if !on {
            self.events = None;
        } else if self.events.is_none() {
            let (tail, moved) = shared.tails.watch(&self.site, &self.filter);
            self.events = Some(Events { tail, moved, place: None });
        }
    }

    /// Goes on with the events of what was watched before, if that is the same.
    pub(crate) fn take_events(&mut self, before: Self) {
        if (&before.site, &before.filter) == (&self.site, &self.filter) {
            self.events = before.events;
        }
    }

    /// Frames of events that are new.
    pub(crate) fn next_events(&mut self) -> Vec<Utf8Bytes> {
        let Some(events) = &mut self.events else { return Vec::new() };
        let (frames, place) = events.tail.after(events.place);
        events.place = place;
        frames
    }

    /// Wakes when there is something to be sent.
    pub(crate) async fn moved(&mut self) -> Moved {
        let events = async {
            match &mut self.events {
                Some(events) => wait(&mut events.moved).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = wait(&mut self.moved) => Moved::View,
            () = events => Moved::Events,
        }
    }
}

async fn wait(moved: &mut watch::Receiver<u64>) {
    if moved.changed().await.is_err() {
        // What is watched outlives its watchers; were it gone, nothing would come any more.
        pending::<()>().await;
    }
}
