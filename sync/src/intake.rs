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
            // Another guest's seat, or one that was taken away.
            if seats.is_lent(header.replica) != (lease == Some(header.replica)) {
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
/// the file has a copy: the store goes on as `fresh`. Returns what the store has then, before handlers
/// answer, and whether changes were passed over that only a newer program understands.
///
/// # Errors
/// If the store refuses the patch.
pub(crate) fn apply(
    store: &mut DataStore,
    seats: &mut Seats,
    patch: &[u8],
    fresh: ReplicaId,
) -> Result<(Version, bool), StoreError> {
    let seat = seats.current().replica;
    let made = store.version().next(seat);
    let taken_in = store.hold_events(|store| {
        let integrated = store.apply_remote_patch(patch)?;
        if store.version().next(seat) > made {
            // Another copy of this file is at work.
            store.go_on_as(fresh)?;
        }
        Ok::<_, StoreError>((store.version().clone(), integrated.newer > 0))
    })?;
    // Once: later patches come with the same `fresh`.
    if store.replica_id() != seats.current().replica {
        seats.renew(store.replica_id());
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

#[cfg(test)]
mod tests {
    use sds_engine::{ChangeHeader, EntryId};

    use super::*;
    use crate::seat::Seat;

    fn id(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    /// What a copy of `of`, which goes on as `author`, makes: an item for each label.
    fn edits(of: &DataStore, author: &Seat, labels: &[&str]) -> Vec<Change> {
        let mut copy = DataStore::from_binary(author.replica, &of.as_binary()).unwrap();
        copy.resume_at(author.next);
        for label in labels {
            copy.transact(|store| {
                let item = store.new_item_at(None, EntryId::ROOT, None)?;
                store.set_label(item, label)
            })
            .unwrap();
        }
        let changes = copy.changes_since(of.version()).unwrap();
        changes.iter().map(|change| Change::decode(change).unwrap()).collect()
    }

    struct Home {
        store: DataStore,
        seats: Seats,
    }

    impl Home {
        fn new() -> Self {
            let seats = Seats::new(vec![Seat::new(id(1))]).unwrap();
            Self { store: DataStore::new(id(1)), seats }
        }

        fn lend(&mut self, wish: Option<u64>, fresh: u64) -> Seat {
            self.seats.lend(&self.store, wish.and_then(ReplicaId::new), id(fresh))
        }

        fn take_in(&mut self, lease: Option<&Seat>, changes: &[Change]) -> Option<RefusalCode> {
            let lease = lease.map(|seat| seat.replica);
            let taken = take_in(&mut self.store, &mut self.seats, lease, changes, id(99));
            for change in changes.iter().filter(|change| taken.version.has(change.header().last()))
            {
                assert!(self.store.version().has(change.header().last()));
            }
            taken.refused
        }

        fn labels(&self) -> Vec<String> {
            let entries = self.store.root_item();
            let own = entries.inner_entries().filter(|entry| !entry.id().is_well_known());
            own.map(|entry| entry.label().into_owned()).collect()
        }
    }

    #[test]
    fn changes_come_once_however_often_they_are_brought() {
        let mut home = Home::new();
        let seat = home.lend(None, 2);
        let changes = edits(&home.store, &seat, &["a", "b"]);
        assert_eq!(home.take_in(Some(&seat), &changes[..1]), None);
        for _ in 0..2 {
            assert_eq!(home.take_in(Some(&seat), &changes), None);
        }
        assert_eq!(home.labels(), ["a", "b"]);
        home.seats.take_back(seat.replica);
        let again = home.lend(None, 3);
        assert_eq!(again.replica, seat.replica, "the seat is used again");
        let next = edits(&home.store, &again, &["c"]);
        assert_eq!(home.take_in(Some(&again), &next), None);
        assert_eq!(home.labels(), ["a", "b", "c"]);
    }

    #[test]
    fn two_guests_that_had_one_seat_never_pass_for_one() {
        let mut home = Home::new();
        let first = home.lend(None, 2);
        let lost = edits(&home.store, &first, &["same"]);
        // The owner died before it took that in, and the next one lent the seat again.
        home.seats.take_back(first.replica);
        let second = home.lend(None, 3);
        assert_eq!(second.replica, first.replica);
        let made = edits(&home.store, &second, &["same"]);
        assert_ne!(lost[0].bytes(), made[0].bytes(), "the same edit under the same seat");
        assert_eq!(home.take_in(None, &lost), Some(RefusalCode::Forked), "it is lent");
        assert_eq!(home.take_in(Some(&second), &made), None);
        assert_eq!(home.take_in(None, &lost), Some(RefusalCode::Forked), "other bytes");
        assert_eq!(home.labels(), ["same"]);
    }

    #[test]
    fn a_gap_ends_what_is_taken_and_nothing_waits_in_the_store() {
        let mut home = Home::new();
        let seat = home.lend(None, 2);
        let changes = edits(&home.store, &seat, &["a", "b", "c"]);
        let gap = [changes[0].clone(), changes[2].clone()];
        assert_eq!(home.take_in(Some(&seat), &gap), Some(RefusalCode::MissingDependency));
        assert_eq!(home.labels(), ["a"]);
        assert_eq!(home.take_in(Some(&seat), &changes[1..2]), None);
        assert_eq!(home.labels(), ["a", "b"], "the last one was not kept for later");
    }

    #[test]
    fn a_change_that_contradicts_another_ends_what_is_taken() {
        let mut home = Home::new();
        let stranger = Seat::new(id(7));
        let (one, other) =
            (edits(&home.store, &stranger, &["one"]), edits(&home.store, &stranger, &["other"]));
        let peer = edits(&home.store, &Seat::new(id(8)), &["peer"]);
        assert_eq!(home.take_in(None, &one), None);
        let mixed = [peer[0].clone(), other[0].clone()];
        assert_eq!(home.take_in(None, &mixed), Some(RefusalCode::Forked));
        assert_eq!(home.labels().len(), 2, "{:?}", home.labels());
    }

    #[test]
    fn changes_of_a_copy_of_the_file_make_the_store_go_on_under_another_id() {
        let mut home = Home::new();
        let copied = edits(&home.store, &Seat::new(id(1)), &["made by a copy"]);
        assert_eq!(home.take_in(None, &copied), None);
        assert_eq!(home.store.replica_id(), id(99));
        assert_eq!(home.seats.current().replica, id(99));
    }

    #[test]
    fn a_copy_among_changes_taken_one_by_one_costs_the_seat_once() {
        let mut home = Home::new();
        let stranger = Seat::new(id(7));
        let (one, other) =
            (edits(&home.store, &stranger, &["one"]), edits(&home.store, &stranger, &["other"]));
        let copied = edits(&home.store, &Seat::new(id(1)), &["made by a copy"]);
        let peer = edits(&home.store, &Seat::new(id(8)), &["peer"]);
        assert_eq!(home.take_in(None, &one), None);
        let mixed = [copied[0].clone(), peer[0].clone(), other[0].clone()];
        assert_eq!(home.take_in(None, &mixed), Some(RefusalCode::Forked));
        assert_eq!(home.labels().len(), 3, "{:?}", home.labels());
        let current = home.seats.current();
        assert_eq!((current.replica, current.is_given_up), (id(99), false));
        let changed = home.seats.take_changed();
        let open: Vec<_> = changed.iter().filter(|seat| seat.is_for_sessions()).collect();
        assert_eq!(open.len(), 1, "T2");
        assert_eq!(changed.iter().filter(|seat| seat.replica == id(99)).count(), 1);
    }

    #[test]
    fn the_chain_of_a_seat_goes_on_with_each_guest() {
        let mut home = Home::new();
        let mut chain = crate::seat::Chain::default();
        for label in ["a", "b"] {
            let seat = home.lend(None, 2);
            assert_eq!(seat.own, chain, "what the guest is told");
            let changes = edits(&home.store, &seat, &[label]);
            let header = ChangeHeader::decode(changes[0].bytes()).unwrap();
            chain.extend(header.end(), changes[0].bytes());
            assert_eq!(home.take_in(Some(&seat), &changes), None);
            home.seats.take_back(seat.replica);
            assert_eq!(home.seats.tip(&home.store, id(2), header.end()), Some(chain));
        }
    }
}
