//! The embedded broker alone in a process, for tests that kill it and for clients in other languages.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use footfall::embedded::broker::{self, BrokerConfig};

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Gets the address once the broker serves; removed at the end.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// How often retention and compaction run.
    #[arg(long, default_value_t = 10_000)]
    maintenance_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let config = BrokerConfig {
        data_dir: arguments.data_dir,
        listen: arguments.listen,
        maintenance_interval: Duration::from_millis(arguments.maintenance_ms),
        ..BrokerConfig::default()
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    broker::serve(config, arguments.ready_file.as_deref(), stopped).await?;
    Ok(())
}
