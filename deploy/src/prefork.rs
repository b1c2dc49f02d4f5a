//! `--workers`: several processes on one address, for hosts that allow one process fewer files than the memory could
//! hold connections. The first process binds, starts the others and looks after them; it serves nothing itself.
//!
//! Each worker's standard input is a pipe from here: a byte tells it to read its settings again, its end to drain. So a
//! worker also drains when this process is killed.

use std::{
    os::fd::AsFd as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::reload::Trigger;

/// The byte that asks for a reload.
const RELOAD: u8 = b'r';

/// Pause before a worker that died is started again; doubled with each death in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that ran for so long has not died in a row.
const CALM: Duration = Duration::from_secs(60);

/// What the workers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// So many reloads were asked for.
    Serve {
        reloads: u32,
    },
    Drain,
}

/// Runs `count` workers until SIGTERM or SIGINT, then lets them drain for at most `drain_within`. A second signal kills
/// them. `command` makes the command line of a worker, which are counted from one.
pub async fn run(count: u16, command: impl Fn(u16) -> Command, drain_within: Duration) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let (orders, _) = watch::channel(Order::Serve { reloads: 0 });
    let mut workers = JoinSet::new();
    for number in 1..=count {
        workers.spawn(keep_running(number, command(number), orders.subscribe()));
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => orders.send_modify(|order| {
                if let Order::Serve { reloads } = order {
                    *reloads += 1;
                }
            }),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    info!("the workers drain");
    orders.send_replace(Order::Drain);
    let drained = async {
        let mut failed = 0;
        while let Some(ended) = workers.join_next().await {
            failed += u16::from(!matches!(ended, Ok(Ok(status)) if status.success()));
        }
        failed
    };
    let failed = tokio::select! {
        failed = timeout(drain_within, drained) => failed,
        code = async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        } => {
            eprintln!("footfall: second signal, stopping at once");
            // Kills them: each is killed with the task that waits for it.
            workers.shutdown().await;
            std::process::exit(code);
        }
    };
    match failed {
        Ok(0) => Ok(()),
        Ok(failed) => bail!("{failed} of {count} workers did not drain cleanly"),
        Err(_) => {
            workers.shutdown().await;
            bail!("workers did not drain within {drain_within:?} and are cut off")
        }
    }
}

/// Starts a worker, again and again, until it is to drain. The status of the last one.
async fn keep_running(
    number: u16,
    mut command: Command,
    mut orders: watch::Receiver<Order>,
) -> anyhow::Result<ExitStatus> {
    command.stdin(Stdio::piped()).kill_on_drop(true);
    let mut pause = None;
    loop {
        let started = Instant::now();
        let status = match command.spawn() {
            Ok(mut worker) => {
                info!(worker = number, process = worker.id(), "a worker starts");
                let status = attend(&mut worker, &mut orders).await?;
                if *orders.borrow() == Order::Drain {
                    return Ok(status);
                }
                Some(status)
            }
            Err(error) => {
                error!(worker = number, %error, "a worker cannot be started");
                None
            }
        };
        let again_in = pause_after(pause, started.elapsed());
        pause = Some(again_in);
        if let Some(status) = status {
            error!(worker = number, %status, ?again_in, "a worker died");
        }
        tokio::select! {
            () = sleep(again_in) => {}
            _ = orders.wait_for(|order| *order == Order::Drain) => bail!("worker {number} was not running"),
        }
    }
}

/// The pause after a worker that ran for so long, and the one before it.
fn pause_after(before: Option<Duration>, ran: Duration) -> Duration {
    match before {
        Some(before) if ran <= CALM => (before * 2).min(LONGEST_PAUSE),
        _ => FIRST_PAUSE,
    }
}

/// Passes orders on until the worker ends.
async fn attend(worker: &mut Child, orders: &mut watch::Receiver<Order>) -> anyhow::Result<ExitStatus> {
    let mut pipe: Option<ChildStdin> = worker.stdin.take();
    // It has just read its settings.
    if *orders.borrow_and_update() == Order::Drain {
        pipe = None;
    }
    loop {
        tokio::select! {
            status = worker.wait() => return status.context("cannot wait for a worker"),
            changed = orders.changed(), if pipe.is_some() => {
                let order = *orders.borrow_and_update();
                match (order, &mut pipe) {
                    (Order::Serve { .. }, Some(pipe)) if changed.is_ok() => {
                        if let Err(error) = pipe.write_all(&[RELOAD]).await {
                            warn!(%error, "a worker does not listen");
                        }
                    }
                    _ => pipe = None,
                }
            }
        }
    }
}

/// The other end: obeys the process that started this one.
pub fn obey(stop: CancellationToken, reload: Trigger) -> anyhow::Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("--worker: no standard input")?;
    let mut orders = pipe::Receiver::from_owned_fd(stdin)
        .context("--worker: is for the workers that --workers starts; standard input is no pipe")?;
    tokio::spawn(async move {
        while let Ok(order) = orders.read_u8().await {
            if order == RELOAD {
                reload.notify_one();
            }
        }
        stop.cancel();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn orders() -> (watch::Sender<Order>, watch::Receiver<Order>) {
        watch::channel(Order::Serve { reloads: 0 })
    }

    #[tokio::test]
    async fn a_worker_that_dies_is_started_again_until_it_is_to_drain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("starts");
        let (tell, listen) = orders();
        // Dies twice; the third one stays until its input ends.
        let script =
            format!("echo . >> {0}; [ $(wc -l < {0}) -ge 3 ] && cat && exit 7; exit 1", file.display());
        let worker = tokio::spawn(keep_running(1, shell(&script), listen));
        let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
        timeout(Duration::from_secs(10), async {
            while lines() < 3 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("started three times");
        tell.send_replace(Order::Drain);
        assert_eq!(worker.await.unwrap().unwrap().code(), Some(7));
        assert_eq!(lines(), 3);
    }

    #[tokio::test]
    async fn a_worker_that_starts_when_all_are_to_drain_drains() {
        let (_tell, listen) = watch::channel(Order::Drain);
        let worker = keep_running(1, shell("cat; exit 7"), listen);
        let status = timeout(Duration::from_secs(10), worker).await.expect("its input ends").unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[tokio::test]
    async fn a_worker_that_cannot_be_started_keeps_nobody_waiting() {
        let (tell, listen) = orders();
        let worker = tokio::spawn(keep_running(1, Command::new("/nowhere/footfall"), listen));
        tell.send_replace(Order::Drain);
        let ended = timeout(Duration::from_secs(10), worker).await.expect("ends").unwrap();
        assert!(ended.unwrap_err().to_string().contains("was not running"));
    }

    #[test]
    fn deaths_in_a_row_make_longer_pauses_up_to_a_bound() {
        let mut pause = None;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pause = Some(pause_after(pause, CALM));
            pauses.extend(pause.map(|pause| pause.as_millis()));
        }
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(pause_after(pause, CALM + Duration::from_secs(1)), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_worker_hears_each_reload() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("heard");
        let (tell, listen) = orders();
        let script = format!("touch {0}.up; cat > {0}", file.display());
        let worker = tokio::spawn(keep_running(1, shell(&script), listen));
        let up = dir.path().join("heard.up");
        timeout(Duration::from_secs(10), async {
            while !up.exists() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("starts");
        for reloads in 1..=2 {
            tell.send_replace(Order::Serve { reloads });
            timeout(Duration::from_secs(10), async {
                while std::fs::read(&file).unwrap_or_default().len() < reloads as usize {
                    sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("heard");
        }
        tell.send_replace(Order::Drain);
        assert!(worker.await.unwrap().unwrap().success());
    }
}
