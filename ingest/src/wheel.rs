//! One timing wheel for all connections of a node: a deadline costs 24 bytes and no timer of its own.
//!
//! Deadlines move all the time (every frame heard puts the idle deadline off) and almost never come. So a connection
//! sets the wheel only for a deadline that comes earlier than the one it is set to; when the wheel wakes it, it looks
//! which of its deadlines has really come, and sets the next (Varghese and Lauck 1987, scheme 6, with lazy moves).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Waker,
    time::Duration,
};

use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What a deadline is rounded up to.
const TICK: Duration = Duration::from_millis(50);
/// Farther deadlines go round more than once.
const SLOTS: u32 = 2_048;

/// A point in time, in ticks since the node started. Wraps after six years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Tick(u32);

impl Tick {
    /// Never early: rounded up, and one more for the part of the running tick that is over.
    pub(crate) fn after(self, time: Duration) -> Self {
        let ticks = time.as_nanos().div_ceil(TICK.as_nanos()) + 1;
        Self(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    pub(crate) fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u32::try_from(time.as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX)))
    }
}

/// A connection's place in the wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(u32);

#[derive(Debug)]
pub(crate) struct Wheel {
    now: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Vec<u32>>,
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Entry {
    due: u32,
    /// The tick in whose slot it stands; what another slot says of it is out of date. `u32::MAX`: in none.
    stands: u32,
    waker: Waker,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { now: AtomicU32::new(0), inner: Mutex::new(Inner { slots, entries: Slab::new() }) }
    }

    pub(crate) fn now(&self) -> Tick {
        Tick(self.now.load(Ordering::Relaxed))
    }

    /// `waker` must stay the task's own, as a spawned task's does.
    pub(crate) fn enter(&self, waker: Waker, due: Tick) -> Key {
        let mut inner = self.lock();
        let key = inner.entries.insert(Entry { due: due.0, stands: u32::MAX, waker }) as u32;
        inner.place(key, self.now().0);
        Key(key)
    }

    /// Wakes the connection at `due`, or up to one round before.
    pub(crate) fn set(&self, key: Key, due: Tick) {
        let mut inner = self.lock();
        let entry = &mut inner.entries[key.0 as usize];
        entry.due = due.0;
        // One that stands in an earlier slot is moved when that comes.
        if due.0 < entry.stands {
            inner.place(key.0, self.now().0);
        }
    }

    pub(crate) fn leave(&self, key: Key) {
        self.lock().entries.remove(key.0 as usize);
    }

    /// Whoever is in it looks at everything anew.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> = self.lock().entries.iter().map(|(_, entry)| entry.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Turns until it is aborted; wakes everybody at the shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let started = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut told = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled(), if !told => {
                    told = true;
                    self.wake_all();
                }
            }
            let to = started.elapsed().as_nanos() / TICK.as_nanos();
            self.turn(u32::try_from(to).unwrap_or(u32::MAX));
        }
    }

    fn turn(&self, to: u32) {
        let mut due = Vec::new();
        let mut inner = self.lock();
        for now in self.now().0 + 1..=to {
            self.now.store(now, Ordering::Relaxed);
            for key in std::mem::take(&mut inner.slots[(now % SLOTS) as usize]) {
                let Some(entry) = inner.entries.get_mut(key as usize) else { continue };
                if entry.stands != now {
                    continue;
                }
                entry.stands = u32::MAX;
                if entry.due <= now {
                    due.push(entry.waker.clone());
                } else {
                    inner.place(key, now);
                }
            }
        }
        drop(inner);
        due.into_iter().for_each(Waker::wake);
    }

    /// A std Mutex: no await happens while it is held. Every change under it is whole, so a poisoned one is sound.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// In the slot of its deadline, or in the farthest.
    fn place(&mut self, key: u32, now: u32) {
        let entry = &mut self.entries[key as usize];
        entry.stands = entry.due.clamp(now + 1, now + SLOTS - 1);
        self.slots[(entry.stands % SLOTS) as usize].push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::{sync::atomic::AtomicUsize, task::Wake};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Sleeper {
        woken: Arc<Woken>,
        key: Key,
    }

    impl Sleeper {
        fn enter(wheel: &Wheel, due: u32) -> Self {
            let woken = Arc::new(Woken::default());
            let key = wheel.enter(Waker::from(Arc::clone(&woken)), Tick(due));
            Self { woken, key }
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[rstest]
    #[case(1)]
    #[case(7)]
    #[case(SLOTS - 1)]
    #[case(SLOTS)]
    #[case(3 * SLOTS + 5)]
    fn a_deadline_wakes_once_and_never_early(#[case] due: u32) {
        let wheel = Wheel::new();
        let sleeper = Sleeper::enter(&wheel, due);
        (1..due).for_each(|now| wheel.turn(now));
        assert_eq!(sleeper.woken(), 0);
        wheel.turn(due + 3 * SLOTS);
        assert_eq!(sleeper.woken(), 1);
    }

    #[test]
    fn a_deadline_in_the_past_wakes_at_the_next_tick() {
        let wheel = Wheel::new();
        wheel.turn(100);
        let sleeper = Sleeper::enter(&wheel, 5);
        wheel.turn(101);
        assert_eq!(sleeper.woken(), 1);
    }

    #[test]
    fn a_deadline_can_be_put_off_and_brought_forward() {
        let wheel = Wheel::new();
        let (later, sooner) = (Sleeper::enter(&wheel, 10), Sleeper::enter(&wheel, 1_000));
        wheel.set(later.key, Tick(1_500));
        wheel.set(sooner.key, Tick(20));
        wheel.turn(19);
        assert_eq!((later.woken(), sooner.woken()), (0, 0));
        wheel.turn(20);
        assert_eq!((later.woken(), sooner.woken()), (0, 1));
        wheel.set(sooner.key, Tick(30));
        wheel.turn(1_499);
        assert_eq!((later.woken(), sooner.woken()), (0, 2));
        wheel.turn(4_000);
        assert_eq!((later.woken(), sooner.woken()), (1, 2));
    }

    #[test]
    fn who_left_is_not_woken_and_its_place_is_used_again() {
        let wheel = Wheel::new();
        let left = Sleeper::enter(&wheel, 10);
        wheel.leave(left.key);
        let next = Sleeper::enter(&wheel, 40);
        assert_eq!(left.key.0, next.key.0);
        wheel.turn(39);
        assert_eq!((left.woken(), next.woken()), (0, 0));
        wheel.turn(40);
        assert_eq!((left.woken(), next.woken()), (0, 1));
    }

    #[test]
    fn all_can_be_woken_at_once() {
        let wheel = Wheel::new();
        let sleepers: Vec<_> = (0..10).map(|due| Sleeper::enter(&wheel, due * 100)).collect();
        wheel.wake_all();
        assert!(sleepers.iter().all(|sleeper| sleeper.woken() == 1));
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_follow_the_clock_and_are_rounded_up() {
        let wheel = Arc::new(Wheel::new());
        let turning = tokio::spawn(Arc::clone(&wheel).run(CancellationToken::new()));
        tokio::time::sleep(Duration::from_millis(1_020)).await;
        assert_eq!(wheel.now(), Tick(20));
        assert_eq!(wheel.now().after(Duration::from_millis(51)), Tick(23));
        turning.abort();
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 24);
    }
}
