//! What can be set about a store. Nothing of it is shared: each copy has its own.

use std::time::Duration;

use crate::limits::{LITERAL_SIZE_LIMIT, TRASH_CHECK_INTERVAL_MAX, TRASH_TTL};

/// Settings of one copy of a store. They bind local edits alone.
///
/// ```
/// use std::time::Duration;
/// use sds_store::{DataStore, ReplicaId, StoreOptions};
///
/// let week = Duration::from_hours(7 * 24);
/// let options = StoreOptions::default().with_trash_ttl(week);
/// let store = DataStore::new(ReplicaId::new(1).unwrap()).with_options(options);
/// assert_eq!(store.options().check_interval(), Some(Duration::from_hours(1)));
/// ```
///
/// A store that is kept on disk has the usual ones until it is given others, with
/// [`set_options`](crate::DataStore::set_options): they are a matter of the program, not of the file.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The longest text kept inline, in UTF-16 units; longer ones become blobs.
    pub literal_size_limit: usize,
    /// How long deleted entries wait in Trash before
    /// [`purge_expired_trash_entries`](crate::DataStore::purge_expired_trash_entries) purges them;
    /// for ever if zero.
    pub trash_ttl: Duration,
    /// How often whoever has a clock is to call that, as a sync engine does; a quarter of the time to
    /// wait, and an hour at most, if not given.
    pub trash_check_interval: Option<Duration>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            literal_size_limit: LITERAL_SIZE_LIMIT,
            trash_ttl: TRASH_TTL,
            trash_check_interval: None,
        }
    }
}

impl StoreOptions {
    /// Keeps texts up to `limit` UTF-16 units inline, and makes blobs of longer ones.
    #[must_use]
    pub const fn with_literal_size_limit(mut self, limit: usize) -> Self {
        self.literal_size_limit = limit;
        self
    }

    /// Lets deleted entries wait so long; zero is for ever.
    #[must_use]
    pub const fn with_trash_ttl(mut self, ttl: Duration) -> Self {
        self.trash_ttl = ttl;
        self
    }

    /// Lets expired entries be looked for so often.
    #[must_use]
    pub const fn with_trash_check_interval(mut self, interval: Duration) -> Self {
        self.trash_check_interval = Some(interval);
        self
    }

    /// How often expired entries are to be looked for; never if deleted ones wait for ever.
    #[must_use]
    pub fn check_interval(&self) -> Option<Duration> {
        if self.trash_ttl.is_zero() {
            return None;
        }
        let usual = || (self.trash_ttl / 4).min(TRASH_CHECK_INTERVAL_MAX);
        Some(self.trash_check_interval.unwrap_or_else(usual).max(Duration::from_millis(1)))
    }
}
