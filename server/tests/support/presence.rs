//! What engines show of themselves and see of each other.

use sds_sync::SyncEngine;
use sds_sync::presence::{PeerPresence, PresenceState};
use tokio::time::timeout;

use super::common::PATIENCE;

pub(crate) fn named(name: &str) -> PresenceState {
    PresenceState { name: Some(name.to_owned()), ..PresenceState::default() }
}

pub(crate) fn has_name(name: &str) -> impl Fn(&[PeerPresence]) -> bool {
    move |peers| peers.iter().any(|peer| peer.state.name.as_deref() == Some(name))
}

/// Waits until `engine` sees what the test expects.
pub(crate) async fn sees(
    engine: &SyncEngine,
    is_it: impl Fn(&[PeerPresence]) -> bool,
) -> Vec<PeerPresence> {
    let mut changed = engine.watch_presence();
    let waiting = async {
        loop {
            let peers = engine.presence();
            if is_it(&peers) {
                return peers;
            }
            changed.changed().await.unwrap();
        }
    };
    let seen = timeout(PATIENCE, waiting).await;
    seen.unwrap_or_else(|_| panic!("{:?}", engine.presence()))
}
