//! Whatever happens to a store, its change sets name exactly what reads differently, and a copy that
//! is told nothing but them follows.

use proptest::prelude::prop;
use sds_engine::{ChangeHeader, Replica};
use sds_proptests::check::check;
use sds_proptests::user::{Janitor, NOW, UserAct, UserTransaction, purge_here};
use sds_proptests::watcher::Watcher;
use sds_store::{DataStore, Fate, Origin, ReplicaId, UndoOptions};

struct User {
    store: DataStore,
    watcher: Watcher,
}

impl User {
    fn new(number: u64) -> Self {
        let mut store = DataStore::new(ReplicaId::new(number).unwrap());
        store.enable_undo(UndoOptions::default());
        Self { watcher: Watcher::of(&mut store), store }
    }

    fn receive(&mut self, patch: &[u8]) {
        self.act(Origin::External, false, |store| {
            store.apply_remote_patch(patch).unwrap();
        });
    }

    /// Does something, and checks what that tells.
    fn act(&mut self, origin: Origin, has_edited: bool, act: impl FnOnce(&mut DataStore)) {
        act(&mut self.store);
        self.watcher.follow_one(&self.store, origin, has_edited);
    }
}

/// What comes as a state, without the changes that led to it, is told like any patch.
#[test]
fn a_state_that_joins_is_told_exactly() {
    let transactions = || prop::collection::vec(UserTransaction::any(), 0..12);
    check(100, &(transactions(), transactions(), transactions()), |(before, here, there)| {
        let mut users = [1, 2].map(User::new);
        before.iter().for_each(|one| one.make(&mut users[0].store));
        let patch = users[0].store.export_patch(users[1].store.version());
        users[1].receive(&patch);
        here.iter().for_each(|one| one.make(&mut users[1].store));
        there.iter().for_each(|one| one.make(&mut users[0].store));
        users[1].watcher = Watcher::of(&mut users[1].store);
        let mut cut =
            Replica::from_snapshot(ReplicaId::new(3).unwrap(), &users[0].store.as_binary())
                .unwrap();
        cut.compact();
        let state = cut.export(users[1].store.version());
        users[1].receive(&state);
    });
}

/// What a store goes on from in the place of what it was is told like any patch: another copy of it, and its
/// own changes under other ids.
#[test]
fn what_takes_the_place_of_a_store_is_told_exactly() {
    let transactions = || prop::collection::vec(UserTransaction::any(), 0..12);
    let fates = [Fate::Stays, Fate::MadeAgain, Fate::LeftOut];
    let fates = prop::collection::vec(prop::sample::select(fates.to_vec()), 1..4);
    let histories = (transactions(), transactions(), transactions());
    check(200, &(histories, fates), |((before, here, there), fates)| {
        let mut users = [1, 2].map(User::new);
        before.iter().for_each(|one| one.make(&mut users[0].store));
        let patch = users[0].store.export_patch(users[1].store.version());
        users[1].receive(&patch);
        here.iter().for_each(|one| one.make(&mut users[0].store));
        there.iter().for_each(|one| one.make(&mut users[1].store));
        let [mut user, other] = users;
        user.watcher = Watcher::of(&mut user.store);
        let own = user.store.changes_since(other.store.version()).unwrap();
        let fate =
            |header: &ChangeHeader| fates[usize::try_from(header.start).unwrap() % fates.len()];
        let [fresh, fresher] = [3, 4].map(|number| ReplicaId::new(number).unwrap());
        user.act(Origin::External, false, |store| {
            store.rebase_as(fresh, &other.store, &own, fate).unwrap();
        });
        user.act(Origin::External, false, |store| {
            store.remake_as(fresher, |header| header.replica == fresh).unwrap();
        });
    });
}

#[test]
fn change_sets_name_exactly_what_reads_differently() {
    let acts = prop::collection::vec((0..3usize, UserAct::any()), 1..40);
    check(200, &acts, |acts| {
        let mut users = [1, 2, 3].map(User::new);
        let mut janitor = Janitor::new(ReplicaId::new(4).unwrap());
        for (at, act) in &acts {
            match act {
                UserAct::Edit(transaction) => {
                    users[*at].act(Origin::Internal, true, |store| transaction.make(store));
                }
                UserAct::Undo => users[*at].act(Origin::Internal, false, |store| {
                    store.undo(NOW).unwrap();
                }),
                UserAct::Redo => users[*at].act(Origin::Internal, false, |store| {
                    store.redo(NOW).unwrap();
                }),
                UserAct::Group(true) => users[*at].store.begin_undo_group(),
                UserAct::Group(false) => users[*at].store.end_undo_group(),
                UserAct::Purge(number) => {
                    let patch = janitor.purge(&users[*at].store, *number);
                    users[*at].receive(&patch);
                }
                UserAct::PurgeHere(number) => {
                    users[*at].act(Origin::Internal, true, |store| purge_here(store, *number));
                }
                UserAct::Merge(from) => {
                    let snapshot = users[usize::from(*from) % 3].store.as_binary();
                    users[*at].act(Origin::External, false, |store| {
                        store.merge_binary(&snapshot).unwrap();
                    });
                }
                UserAct::Receive(from) => {
                    let from = usize::from(*from) % 3;
                    let patch = users[from].store.export_patch(users[*at].store.version());
                    users[*at].receive(&patch);
                }
            }
        }
    });
}
