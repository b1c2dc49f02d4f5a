//! How many files this process may have open. Every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Besides connections: the log's clients, the store's, listeners, files, standard streams.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, which is what the administrator allows. Says so when `connections` do not fit.
pub fn raise_limit(connections: u32) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => info!(from = ?limit.current, to = ?limit.maximum, "raised the limit of open files"),
            Err(error) => warn!(%error, "cannot raise the limit of open files"),
        }
    }
    // Without a number there is no limit.
    let Some(files) = getrlimit(Resource::Nofile).current else { return };
    if !fits(connections, files) {
        warn!(
            connections,
            files,
            "[ingest] limits.connections: more than this process may have open; raise its limit (ulimit -Hn, LimitNOFILE), lower the setting, or use --workers"
        );
    }
}

fn fits(connections: u32, files: u64) -> bool {
    u64::from(connections) + OTHERS <= files
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(16_000, 20_000, true)]
    #[case(16_000, 16_256, true)]
    #[case(16_000, 16_255, false)]
    #[case(16_000, 1_024, false)]
    fn connections_need_descriptors_and_others_do_too(
        #[case] connections: u32,
        #[case] files: u64,
        #[case] expected: bool,
    ) {
        assert_eq!(fits(connections, files), expected);
    }
}
