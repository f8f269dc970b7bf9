//! Replicas that have the same changes are the same, whatever came first, twice or out of a
//! snapshot; and what was taken back leaves nothing.

use proptest::prelude::{any, prop};
use sds_engine::{EditError, EntryId, Field, Patch, Replica, ReplicaId, Value, Version};
use sds_proptests::check::check;
use sds_proptests::edit::Edit;
use sds_proptests::story::{PEERS, Step, Story};
use sds_proptests::view::View;

#[test]
fn honest_replicas_end_up_the_same_in_whatever_order_changes_arrive() {
    let stories = (PEERS, any::<u8>(), prop::collection::vec(Step::honest(), 1..80), any::<u64>());
    check(250, &stories, |(peers, watched, steps, seed)| {
        Story::watching(peers, watched).run(&steps).converge(seed);
    });
}

#[test]
fn replicas_end_up_the_same_whatever_changes_are_forged() {
    let stories = (PEERS, any::<u8>(), prop::collection::vec(Step::any(), 1..80), any::<u64>());
    check(250, &stories, |(peers, watched, steps, seed)| {
        Story::watching(peers, watched).run(&steps).converge(seed);
    });
}

#[test]
fn a_failed_transaction_leaves_everything_as_it_was() {
    let edits = |most| prop::collection::vec(Edit::any(), 0..most);
    check(96, &(edits(20), edits(10), edits(5)), |(before, failed, after)| {
        let mut replica = edited(&before);
        let (digest, view, bytes) =
            (replica.digest(), View::of_replica(&replica), replica.export(&Version::new()));
        let result = replica.transact(|replica| {
            failed.iter().for_each(|edit| drop(edit.make(replica, true)));
            Err::<(), _>(EditError::OutOfIds)
        });
        assert_eq!(result, Err(EditError::OutOfIds));
        replica.assert_invariants();
        assert_eq!(replica.digest(), digest);
        assert_eq!(View::of_replica(&replica), view);
        assert_eq!(replica.export(&Version::new()), bytes);
        // What comes afterwards is the same as elsewhere, too.
        after.iter().for_each(|edit| drop(edit.make(&mut replica, true)));
        let mut other = Replica::new(id(2));
        other.integrate(exported(&replica)).unwrap();
        assert_eq!(other.digest(), replica.digest());
        assert_eq!(View::of_replica(&other), View::of_replica(&replica));
    });
}

#[test]
fn ids_of_a_failed_transaction_are_never_given_again() {
    let mut replica = Replica::new(id(1));
    let mut given = Vec::new();
    for round in 0..6 {
        let result = replica.transact(|replica| {
            given.push(replica.create_item(EntryId::ROOT, 0)?);
            let part: Result<(), EditError> = replica.transact(|replica| {
                given.push(replica.create_item(EntryId::ROOT, 0)?);
                Err(EditError::OutOfIds)
            });
            assert_eq!(part, Err(EditError::OutOfIds));
            given.push(replica.create_item(EntryId::ROOT, 0)?);
            if round % 3 == 2 { Ok(()) } else { Err(EditError::OutOfIds) }
        });
        assert_eq!(result.is_ok(), round % 3 == 2);
    }
    let count = given.len();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), count);
    let mut other = Replica::new(id(2));
    other.integrate(exported(&replica)).unwrap();
    assert_eq!(other.digest(), replica.digest());
}

#[test]
fn a_transaction_is_one_change_that_shows_as_a_whole() {
    let (mut desk, mut phone) = (Replica::new(id(1)), Replica::new(id(2)));
    let made = desk.transact(|desk| {
        let item = desk.create_item(EntryId::ROOT, 0)?;
        desk.set(item, Field::Label, Value::Text("draft".into()))?;
        desk.splice(item, Field::Label, 0..1, "D")?;
        Ok::<_, EditError>(item)
    });
    let item = made.unwrap();
    assert_eq!(exported(&desk).changes().count(), 1);
    phone.integrate(exported(&desk)).unwrap();
    assert_eq!(phone.value(item, &Field::Label), Value::Text("Draft".into()));
}

fn edited(edits: &[Edit]) -> Replica {
    let mut replica = Replica::new(id(1));
    edits.iter().for_each(|edit| drop(edit.make(&mut replica, true)));
    replica
}

fn exported(replica: &Replica) -> Patch {
    Patch::decode(&replica.export(&Version::new())).unwrap()
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}
