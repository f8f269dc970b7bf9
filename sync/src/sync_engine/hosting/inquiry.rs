//! Finding out what a peer has of the seats of this side's own file, if that may be something else than here:
//! then the file was restored or copied. What a client finds out about a relay (`reseat`), the other way round.

use std::sync::{Arc, Mutex, PoisonError};

use sds_engine::{Change, Version};

use super::super::SyncError;
use super::super::shared::Shared;
use crate::intake::Taken;
use crate::message::{RefusalCode, SeatTip};
use crate::synced_store::{Doubts, without};

/// What is being found out about own seats of which a peer has more.
pub(super) struct Inquiry {
    doubts: Doubts,
    /// What the peer has in all.
    peers: Version,
}

/// What to tell a peer that opens the store.
pub(super) struct Welcome {
    /// What is on disk here, without what is in doubt: so the peer sends that.
    pub(super) version: Version,
    /// How far the replicas are known that it asks about.
    pub(super) seats: Vec<SeatTip>,
    /// What is to be found out first.
    pub(super) inquiry: Option<Inquiry>,
    /// Whether something has to reach the disk before the peer is told.
    pub(super) has_to_wait: bool,
}

impl Welcome {
    /// For a peer that has `peers`, and may send changes or not.
    pub(super) fn new(
        shared: &Shared,
        replicas: &[u64],
        peers: Version,
        may_write: bool,
    ) -> Result<Self, SyncError> {
        let (doubts, has_to_wait) = shared.compare_with_peer(&peers, may_write)?;
        let known = shared.persisted();
        let seats = shared.core()?.tips(replicas, &known);
        if doubts.is_empty() {
            return Ok(Self { version: known, seats, inquiry: None, has_to_wait });
        }
        let version = without(&known, &doubts);
        Ok(Self { version, seats, inquiry: Some(Inquiry { doubts, peers }), has_to_wait })
    }
}

/// Takes in what a peer has of seats in doubt, unless seats were settled since the peer was told what is here,
/// which was when they had been so many times. Nothing of it is acknowledged; when the seats in doubt are
/// settled the session ends, as all do.
pub(super) async fn inquire(
    shared: Arc<Shared>,
    inquiry: Arc<Mutex<Inquiry>>,
    settles: u64,
    changes: Vec<Change>,
) -> Option<Taken> {
    let ask = move || {
        let mut inquiry = inquiry.lock().unwrap_or_else(PoisonError::into_inner);
        let Inquiry { doubts, peers } = &mut *inquiry;
        shared.inquire(settles, doubts, peers, changes)
    };
    match tokio::task::spawn_blocking(ask).await.ok()? {
        Ok(()) => Some(Taken::default()),
        Err(error) => {
            tracing::warn!(code = error.code(), %error, "a seat that is in doubt cannot be settled");
            let code = match error {
                // It may be settled by others at any time.
                SyncError::OwnerFirst => RefusalCode::StorageFailed,
                _ => RefusalCode::Forked,
            };
            Some(Taken { refused: Some(code), ..Taken::default() })
        }
    }
}
