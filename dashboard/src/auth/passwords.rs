//! Passwords are hashed off the runtime's threads, a few at once, so that a flood of logins takes neither the node's
//! cores nor its memory.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;

use crate::password::{self, InvalidPassword};

/// Logins that wait for their turn, and those at work. Beyond: [`Busy`].
const MAX_WAITING: usize = 64;

/// Too many are being hashed: try again in a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

#[derive(Debug)]
pub(crate) struct Passwords {
    at_once: Arc<Semaphore>,
    waiting: Semaphore,
}

/// Of a password that nobody has: what a name without a user is held against, so that it takes as long.
static NOBODYS: LazyLock<String> = LazyLock::new(|| {
    let random: [char; 16] = std::array::from_fn(|_| rand::random());
    password::hash(&String::from_iter(random)).expect("16 characters are a password")
});

impl Passwords {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once: Arc::new(Semaphore::new(at_once)), waiting: Semaphore::new(MAX_WAITING) }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<Result<String, InvalidPassword>, Busy> {
        self.run(move || password::hash(&password)).await
    }

    /// Whether `hash` is of this password; `None`: there is no such user, and it takes as long to say no.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        self.run(move || {
            let fits = password::verify(&password, hash.as_deref().unwrap_or(&NOBODYS));
            fits && hash.is_some()
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _place = self.waiting.try_acquire().map_err(|_| Busy)?;
        let turn = self.at_once.clone().acquire_owned().await.map_err(|_| Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            // Only now: whoever asked may have gone, the work goes on.
            drop(turn);
            done
        });
        work.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering::SeqCst},
            mpsc,
        },
        time::Duration,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_and_nobodys_fits_nothing() {
        let passwords = Passwords::new(2);
        let hash = passwords.hash("correct horse".into()).await.unwrap().unwrap();
        assert_eq!(passwords.verify("correct horse".into(), Some(hash.clone())).await, Ok(true));
        assert_eq!(passwords.verify("wrong horse".into(), Some(hash)).await, Ok(false));
        assert_eq!(passwords.verify("correct horse".into(), None).await, Ok(false));
    }

    #[tokio::test]
    async fn so_many_work_at_once() {
        let passwords = Passwords::new(2);
        let (working, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let runs = (0..20).map(|_| {
            let (working, most) = (working.clone(), most.clone());
            passwords.run(move || {
                most.fetch_max(working.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                working.fetch_sub(1, SeqCst);
            })
        });
        assert!(join_all(runs).await.iter().all(Result::is_ok));
        assert_eq!(most.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn beyond_a_queue_they_are_told_to_come_again() {
        let passwords = Arc::new(Passwords::new(1));
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let (passwords, gate) = (passwords.clone(), gate.clone());
                tokio::spawn(async move { passwords.run(move || gate.lock().unwrap().recv().unwrap()).await })
            })
            .collect();
        while passwords.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.verify("correct horse".into(), None).await, Err(Busy));
        for _ in &waiting {
            go.send(()).unwrap();
        }
        for ended in waiting {
            ended.await.unwrap().unwrap();
        }
        assert_eq!(passwords.verify("correct horse".into(), None).await, Ok(false));
    }
}
