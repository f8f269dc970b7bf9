//! Changes that somebody else brings to a store, one after the other: a guest or a peer. The rules are
//! those of a relay's log: up to the first change that cannot be taken.

use sds_engine::{Change, IntegrateError, Patch, ReplicaId, Version};
use sds_store::{DataStore, StoreError};

use crate::message::RefusalCode;
use crate::seat::Seats;

/// What became of changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What of them is in the store now: for each replica that some are of.
    pub(crate) version: Version,
    /// Why the rest was not taken, if something was wrong.
    pub(crate) refused: Option<RefusalCode>,
}

/// Takes changes in, up to the first one that cannot be taken. New ones under a seat that is lent are
/// taken from the guest alone that has it: `lease`. If somebody made changes under the id that is in
/// use here, the file has a copy: the store goes on as `fresh`, an id that nobody has drawn before.
///
/// Invariant: no change waits for others in the store.
pub(crate) fn take_in(
    store: &mut DataStore,
    seats: &mut Seats,
    lease: Option<ReplicaId>,
    changes: &[Change],
    fresh: ReplicaId,
) -> Taken {
    let (mut reached, mut count, mut refused) = (store.version().clone(), 0, None);
    for change in changes {
        let header = change.header();
        let next = reached.next(header.replica);
        if header.start >= next {
            let lacks = header.start > next || header.deps.iter().any(|dep| !reached.has(*dep));
            if lacks {
                refused = Some(RefusalCode::MissingDependency);
                break;
            }
            if seats.is_lent(header.replica) && lease != Some(header.replica) {
                refused = Some(RefusalCode::Forked);
                break;
            }
            reached.advance(header.replica, header.end());
        }
        count += 1;
    }
    let mut taken = Taken { refused, ..Taken::default() };
    let sound = changes.get(..count).unwrap_or_default();
    match apply_all(store, seats, sound, fresh) {
        Ok(()) => note(&mut taken, seats, lease, sound),
        // One of them contradicts what is here: those before it are taken all the same.
        Err(_) => {
            for change in sound.chunks(1) {
                if let Err(error) = apply_all(store, seats, change, fresh) {
                    taken.refused = Some(refusal(&error));
                    break;
                }
                note(&mut taken, seats, lease, change);
            }
        }
    }
    taken
}

/// Takes a patch in, or leaves the store untouched. If it has changes under the id that is in use here,
/// the file has a copy: the store goes on as `fresh`.
///
/// # Errors
/// If the store refuses the patch.
pub(crate) fn apply(
    store: &mut DataStore,
    seats: &mut Seats,
    patch: &[u8],
    fresh: ReplicaId,
) -> Result<Version, StoreError> {
    let seat = seats.current().replica;
    let made = store.version().next(seat);
    let taken_in = store.hold_events(|store| {
        store.apply_remote_patch(patch)?;
        if store.version().next(seat) > made {
            // Another copy of this file is at work.
            store.go_on_as(fresh)?;
        }
        Ok::<_, StoreError>(store.version().clone())
    })?;
    if store.replica_id() == fresh {
        seats.renew(fresh);
    }
    Ok(taken_in)
}

fn apply_all(
    store: &mut DataStore,
    seats: &mut Seats,
    changes: &[Change],
    fresh: ReplicaId,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let patch = Patch::pack(changes.iter().map(|change| &**change.bytes()));
    apply(store, seats, &patch, fresh).map(drop)
}

fn note(taken: &mut Taken, seats: &mut Seats, lease: Option<ReplicaId>, changes: &[Change]) {
    for change in changes {
        taken.version.advance(change.header().replica, change.header().end());
    }
    if let Some(lease) = lease {
        seats.note_guest(lease, changes);
    }
}

const fn refusal(error: &StoreError) -> RefusalCode {
    match error {
        StoreError::NotIntegrated(IntegrateError::Forked { .. }) => RefusalCode::Forked,
        _ => RefusalCode::Malformed,
    }
}
