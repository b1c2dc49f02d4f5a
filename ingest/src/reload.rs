//! New settings for a node that runs. Limits, trusted proxies and certificate are exchanged, sites follow the
//! directory; all else needs a restart.

use std::sync::Arc;

use footfall_schemas::directory::Directory;
use tokio::sync::watch;
use tracing::{error, info};

use crate::{config::Config, node::Node, tls::Certificate};

/// Where new settings come from. `None`: they stay as they are.
pub type Reload = Option<watch::Receiver<Config>>;

/// Until the node shuts down, or nobody can send settings any more.
pub(crate) async fn follow(
    node: Arc<Node>,
    certificate: Option<Arc<Certificate>>,
    settings: Reload,
    mut directory: watch::Receiver<Arc<Directory>>,
) {
    let shutdown = node.shutdown.clone();
    let watch = async {
        match &certificate {
            Some(certificate) => certificate.watch().await,
            None => std::future::pending().await,
        }
    };
    let follow = async {
        if let Some(mut settings) = settings {
            while settings.changed().await.is_ok() {
                let config = settings.borrow_and_update().clone();
                apply(&node, certificate.as_deref(), &config);
            }
        }
        std::future::pending::<()>().await;
    };
    let follow_sites = async {
        loop {
            let now = Arc::clone(&directory.borrow_and_update());
            if node.sites.update(&now) {
                // Their connections are told to stop.
                node.wheel.wake_all();
            }
            if directory.changed().await.is_err() {
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch => {}
        () = follow => {}
        () = follow_sites => {}
    }
}

fn apply(node: &Node, certificate: Option<&Certificate>, config: &Config) {
    if let Err(error) = config.check() {
        error!(%error, "the settings stay as they were");
        return;
    }
    node.limits.reload(config.limits.clone());
    node.trusted_proxies.store(Arc::new(config.trusted_proxies.clone()));
    if let Some(certificate) = certificate {
        certificate.reload(&config.tls);
    }
    info!("limits, trusted proxies and certificate are loaded anew");
}
