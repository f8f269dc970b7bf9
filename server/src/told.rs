//! What the log tells of clients. Each can happen as often as a client likes, so each is told only
//! so often in a minute; what is told next says how often it was passed over.

use std::time::Instant;

use sds_sync::access::Access;
use sds_sync::{FrameError, RefusalCode, StoreId};

use crate::limits::{
    OPENINGS_PER_MINUTE_MAX, REFUSED_FRAMES_PER_MINUTE_MAX, REFUSED_OPENINGS_PER_MINUTE_MAX,
};
use crate::seldom::Seldom;

/// How often each was told.
#[derive(Debug)]
pub(crate) struct Told {
    opened: Seldom,
    not_opened: Seldom,
    malformed: Seldom,
    refused: Seldom,
}

impl Default for Told {
    fn default() -> Self {
        let often = |per_minute| Seldom::new(per_minute, Instant::now());
        Self {
            opened: often(OPENINGS_PER_MINUTE_MAX),
            not_opened: often(REFUSED_OPENINGS_PER_MINUTE_MAX),
            malformed: often(REFUSED_FRAMES_PER_MINUTE_MAX),
            refused: often(REFUSED_FRAMES_PER_MINUTE_MAX),
        }
    }
}

impl Told {
    /// Somebody has opened a store.
    pub(crate) fn opened(&self, store: &StoreId, access: &Access) {
        if let Some(passed_over) = self.opened.take(Instant::now()) {
            let Access { subject, scope, .. } = access;
            tracing::info!(%store, subject, ?scope, passed_over, "opened");
        }
    }

    /// Somebody who asked for a store was refused.
    pub(crate) fn not_opened(&self, code: RefusalCode) {
        if let Some(passed_over) = self.not_opened.take(Instant::now()) {
            tracing::info!(code = code.code(), passed_over, "not opened");
        }
    }

    /// A frame came from a member of `store` that is none.
    pub(crate) fn malformed(&self, store: &StoreId, error: &FrameError) {
        if let Some(passed_over) = self.malformed.take(Instant::now()) {
            tracing::info!(%store, %error, passed_over, "malformed frame");
        }
    }

    /// Changes of a member of `store` were refused.
    pub(crate) fn changes_refused(&self, store: &StoreId, code: RefusalCode) {
        if let Some(passed_over) = self.refused.take(Instant::now()) {
            tracing::warn!(%store, code = code.code(), passed_over, "changes refused");
        }
    }
}
