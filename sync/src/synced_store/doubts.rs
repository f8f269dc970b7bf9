//! Seats of which somebody else has other changes, or may have, and how far those are the same as here.
//!
//! Of what the other side sends only a chain is kept: so it takes no more memory than what is here, however
//! much comes.

use sds_engine::{Change, ReplicaId};
use sds_store::DataStore;

use crate::seat::{Chain, Seats};

/// Seats that are in doubt, and what has come of them from the side that has to know.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Vec<Doubt>);

#[derive(Debug)]
struct Doubt {
    seat: ReplicaId,
    /// The counter after the last change that the other side has.
    until: u64,
    /// The chains after each of the changes made here, once something has come.
    own: Option<Vec<Chain>>,
    /// The chain over what has come.
    theirs: Chain,
    /// The last of the chains that both sides have.
    common: Chain,
}

impl Doubts {
    /// Doubts about these seats, of which the other side has the changes up to these counters.
    pub(super) fn new(seats: impl IntoIterator<Item = (ReplicaId, u64)>) -> Self {
        let (theirs, common) = (Chain::default(), Chain::default());
        let doubt = |(seat, until)| Doubt { seat, until, own: None, theirs, common };
        Self(seats.into_iter().map(doubt).collect())
    }

    /// The seats.
    pub(crate) fn seats(&self) -> impl Iterator<Item = ReplicaId> {
        self.0.iter().map(|doubt| doubt.seat)
    }

    pub(super) fn is_about(&self, replica: ReplicaId) -> bool {
        self.seats().any(|seat| seat == replica)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what the other side has of them, each change after its author's previous one, and passes
    /// over all others; nothing if own changes are gone.
    pub(super) fn take(
        &mut self,
        store: &DataStore,
        seats: &Seats,
        changes: impl IntoIterator<Item = Change>,
    ) -> Option<()> {
        for change in changes {
            let header = change.header();
            let doubt = self.0.iter_mut().find(|doubt| doubt.seat == header.replica);
            let Some(doubt) = doubt.filter(|it| it.theirs.counter == header.start) else {
                continue;
            };
            if doubt.own.is_none() {
                doubt.own = Some(seats.own_chains(store, doubt.seat)?);
            }
            doubt.theirs.extend(header.end(), change.bytes());
            let own = doubt.own.as_deref().unwrap_or_default();
            let at = own.binary_search_by_key(&doubt.theirs.counter, |chain| chain.counter);
            if at.is_ok_and(|at| own.get(at) == Some(&doubt.theirs)) {
                doubt.common = doubt.theirs;
            }
        }
        Some(())
    }

    /// Whether all that the other side has of the seats has come.
    pub(super) fn is_resolved(&self) -> bool {
        self.0.iter().all(|doubt| doubt.theirs.counter >= doubt.until)
    }

    /// Of each seat the chain over those first changes that both sides have.
    pub(super) fn common(&self) -> Vec<(ReplicaId, Chain)> {
        self.0.iter().map(|doubt| (doubt.seat, doubt.common)).collect()
    }
}
