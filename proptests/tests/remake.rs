//! Changes made again under another id: what comes of them is what the model makes of them, and what
//! shows is what showed before, by the new names.

use proptest::prelude::{any, prop};
use sds_engine::{Change, EntryId, Field, Patch, Remake, Replica, ReplicaId, Version};
use sds_proptests::check::check;
use sds_proptests::edit::Edit;
use sds_proptests::pool;
use sds_proptests::story::{PEERS, Step, Story};
use sds_proptests::view::assert_matches_model;

const FRESH: u64 = 0x7a10_0000_0001;

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn replica_of(author: u64, changes: &[Change]) -> Replica {
    let mut replica = Replica::new(id(author));
    let patch = Patch::pack(changes.iter().map(|change| &**change.bytes()));
    replica.integrate(Patch::decode(&patch).unwrap()).unwrap();
    replica
}

/// The changes that `since` lacks, each after those it builds on.
fn changes(replica: &Replica, since: &Version) -> Vec<Change> {
    let changes = replica.changes_since(since).unwrap();
    changes.iter().map(|change| Change::decode(change).unwrap()).collect()
}

/// Goal: whatever changes are made again, of however many authors, the result is well formed and what
/// the model makes of it. Method: a story, cut at any place in its causal order.
#[test]
fn changes_that_were_made_again_match_the_model() {
    let stories = (PEERS, prop::collection::vec(Step::honest(), 1..60), any::<u16>());
    check(200, &stories, |(peers, steps, cut)| {
        let all = replica_of(FRESH - 1, &Story::new(peers).run(&steps).changes());
        let all = changes(&all, &Version::new());
        let (kept, former) = all.split_at(usize::from(cut) % (all.len() + 1));
        let mut remake = Remake::new(id(FRESH));
        let again = former.iter().map(|change| remake.change(change).unwrap());
        let now: Vec<Change> = kept.iter().cloned().chain(again).collect();
        let mut replica = replica_of(FRESH, &now);
        let made: u64 = former.iter().map(|change| change.header().span).sum();
        assert_eq!(replica.version().next(id(FRESH)), made, "nothing waits");
        assert_matches_model(&mut replica, &now);
        replica.assert_invariants();
    });
}

/// Goal: nobody sees more of it than other ids. Method: after a story one replica goes on alone, and
/// what it did is made again.
#[test]
fn what_one_replica_did_alone_shows_as_before_by_the_new_names() {
    let edits = prop::collection::vec(Edit::any(), 1..30);
    let stories = (PEERS, prop::collection::vec(Step::honest(), 0..30), edits);
    check(200, &stories, |(peers, steps, edits)| {
        let kept = Story::new(peers).run(&steps).changes();
        let mut before = replica_of(FRESH - 1, &kept);
        let base = before.version().clone();
        for edit in &edits {
            // Refused edits change nothing.
            let _made = edit.make(&mut before, true);
        }
        let mut remake = Remake::new(id(FRESH));
        let former = changes(&before, &base);
        let again = former.iter().map(|change| remake.change(change).unwrap());
        let now: Vec<Change> = changes(&before, &Version::new())
            .into_iter()
            .filter(|change| base.has(change.header().last()))
            .chain(again)
            .collect();
        let after = replica_of(FRESH, &now);
        let renamed: Vec<EntryId> = before.shown_entries().map(|it| remake.entry(it)).collect();
        let mut shown: Vec<EntryId> = after.shown_entries().collect();
        let mut expected = renamed.clone();
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected);
        for (entry, renamed) in before.shown_entries().zip(renamed) {
            let mut children: Vec<_> = before.children(entry).map(|it| remake.entry(it)).collect();
            let mut now: Vec<_> = after.children(renamed).collect();
            if entry == EntryId::LOST_AND_FOUND {
                // What was rescued stands there in the order of ids.
                children.sort();
                now.sort();
            }
            assert_eq!(now, children);
            for field in pool::fields().iter().chain([&Field::Type]) {
                assert_eq!(after.value(renamed, field), before.value(entry, field));
            }
        }
    });
}
