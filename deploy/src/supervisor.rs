//! Owns the roles that run in this process: starts them, notices when one fails, stops them in order.

use std::{future::Future, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A role that runs.
#[derive(Debug)]
pub struct Role {
    name: &'static str,
    stop: CancellationToken,
    task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Role {
    /// `run` gets the token that asks it to stop.
    pub fn spawn<F, E>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error> + Send,
    {
        let stop = CancellationToken::new();
        let run = run(stop.clone());
        let task = Some(tokio::spawn(async move { run.await.map_err(Into::into) }));
        Self { name, stop, task }
    }

    /// Waits until the role ends by itself, which is a fault. Cancel safe; pending for ever once it has ended.
    pub async fn failed(&mut self) -> anyhow::Error {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let outcome = task.await;
        self.task = None;
        match outcome {
            Ok(Ok(())) => anyhow!("{} ended although nobody asked it to", self.name),
            Ok(Err(error)) => error.context(format!("{} failed", self.name)),
            Err(panic) => anyhow!("{} panicked: {panic}", self.name),
        }
    }

    /// Asks the role to drain and waits for it, at most `within`.
    pub async fn stop(mut self, within: Duration) -> anyhow::Result<()> {
        self.stop.cancel();
        let Some(mut task) = self.task.take() else { return Ok(()) };
        match timeout(within, &mut task).await {
            Ok(Ok(outcome)) => {
                info!(role = self.name, "stopped");
                outcome.with_context(|| format!("{} did not stop cleanly", self.name))
            }
            Ok(Err(panic)) => Err(anyhow!("{} panicked while it stopped: {panic}", self.name)),
            Err(_) => {
                warn!(role = self.name, ?within, "did not stop in time and is cut off");
                task.abort();
                Err(anyhow!("{} did not stop within {within:?}", self.name))
            }
        }
    }
}

/// A token that SIGINT or SIGTERM cancels. The second signal ends the process at once.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        };
        next().await;
        signalled.cancel();
        let code = next().await;
        eprintln!("footfall: second signal, stopping at once");
        std::process::exit(code);
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_that_ends_unasked_has_failed() {
        let mut role = Role::spawn("ingest", |_| async { Ok::<_, anyhow::Error>(()) });
        assert!(role.failed().await.to_string().contains("ingest"));
        assert!(role.stop(Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_does_not_drain_is_cut_off() {
        let role = Role::spawn("ingest", |_| std::future::pending::<anyhow::Result<()>>());
        assert!(role.stop(Duration::from_secs(1)).await.is_err());
    }

    #[tokio::test]
    async fn a_role_is_asked_to_stop_and_waited_for() {
        let role = Role::spawn("ingest", |stop| async move {
            stop.cancelled().await;
            Ok::<_, anyhow::Error>(())
        });
        assert!(role.stop(Duration::from_secs(60)).await.is_ok());
    }
}
