//! What a replica makes of changes that come early, twice, or in two versions.

use sds_engine::limits::{
    BACKLOG_BYTES_MAX, BACKLOG_CHANGES_MAX, BACKLOG_OP_BYTES, CHANGE_BYTES_MAX,
};
use sds_engine::{
    Change, EntryId, Field, IdRange, IntegrateError, Life, Op, OpId, Patch, Replica, ReplicaId,
    Value, Version,
};
use sds_proptests::dice::Dice;
use sds_proptests::view::{View, assert_matches_model};

#[test]
fn early_changes_wait_for_what_they_build_on() {
    let changes = chain(1, 4);
    let mut phone = Replica::new(id(2));
    for (count, change) in changes.iter().enumerate().skip(1).rev() {
        let done = phone.integrate(Patch::new(vec![change.clone()])).unwrap();
        assert_eq!((done.applied, done.known, done.waiting), (0, 0, 4 - count));
        assert!(phone.version().is_empty() && phone.missing().contains(&op(1, count as u64 - 1)));
        assert_matches_model(&mut phone, &changes[count..]);
    }
    let done = phone.integrate(Patch::new(vec![changes[0].clone()])).unwrap();
    assert_eq!((done.applied, done.known, done.waiting), (4, 0, 0));
    assert_eq!(phone.missing(), []);
    assert_matches_model(&mut phone, &changes);
}

#[test]
fn a_change_waits_for_each_of_its_deps() {
    let (desk, cat) = (chain(1, 1), chain(3, 2));
    let both = Change::new(id(2), 0, vec![op(1, 0), op(3, 1)], &[set(1)]).unwrap();
    let mut dan = Replica::new(id(4));
    let mut got = Vec::new();
    for (change, applied) in [(&both, 0), (&cat[1], 0), (&desk[0], 1), (&cat[0], 3)] {
        got.push(change.clone());
        let done = dan.integrate(Patch::new(vec![change.clone()])).unwrap();
        assert_eq!(done.applied, applied);
        assert_matches_model(&mut dan, &got);
    }
}

#[test]
fn duplicates_change_nothing() {
    let changes = chain(1, 3);
    let mut phone = Replica::new(id(2));
    phone.integrate(Patch::new(changes[..2].to_vec())).unwrap();
    let digest = phone.digest();
    let done = phone.integrate(Patch::new([&changes[..2], &changes[..2]].concat())).unwrap();
    assert_eq!((done.applied, done.known, done.waiting), (0, 4, 0));
    assert_eq!(phone.digest(), digest);

    let early = Change::new(id(3), 1, vec![], &[set(9)]).unwrap();
    for known in [0, 1] {
        let done = phone.integrate(Patch::new(vec![early.clone()])).unwrap();
        assert_eq!((done.applied, done.known, done.waiting), (0, known, 1));
    }
    assert_eq!(phone.digest(), digest);
}

#[test]
fn a_second_version_of_a_change_is_refused_with_all_that_came_with_it() {
    let changes = chain(1, 4);
    let rival = |start, numbers: &[u64]| {
        let ops: Vec<Op> = numbers.iter().map(|number| set(*number)).collect();
        Change::new(id(1), start, vec![], &ops).unwrap()
    };
    // Known are 0 and 1 as integrated changes, 3 as one that waits.
    let rivals = [
        rival(0, &[77]),
        rival(1, &[77]),
        rival(0, &[0, 1]),
        rival(1, &[1, 2]),
        rival(3, &[77]),
        rival(2, &[2, 3]),
        rival(3, &[3, 4]),
        Change::new(id(1), 1, vec![op(9, 0)], &[set(1)]).unwrap(),
    ];
    for rival in rivals {
        let mut phone = Replica::new(id(2));
        let known = [&changes[..2], &changes[3..]].concat();
        phone.integrate(Patch::new(known.clone())).unwrap();
        let state = |phone: &mut Replica| {
            (phone.snapshot(), phone.digest(), View::of_replica(phone), phone.missing())
        };
        let before = state(&mut phone);
        for companions in [vec![], vec![changes[2].clone()], chain(5, 2)] {
            let patch = [&companions[..], std::slice::from_ref(&rival)].concat();
            let refused = phone.integrate(Patch::new(patch));
            assert!(matches!(refused, Err(IntegrateError::Forked { .. })), "{refused:?} {rival:?}");
            assert_eq!(state(&mut phone), before, "byte for byte as it was");
            assert_matches_model(&mut phone, &known);
        }
    }
}

#[test]
fn two_versions_of_a_change_in_one_patch_are_refused() {
    for start in [0, 1] {
        let rivals = [1, 2].map(|n| Change::new(id(1), start, vec![], &[set(n)]).unwrap());
        let mut phone = Replica::new(id(2));
        let refused = phone.integrate(Patch::new(rivals.to_vec()));
        assert!(matches!(refused, Err(IntegrateError::Forked { .. })), "{refused:?}");
        assert_matches_model(&mut phone, &[]);
    }
}

#[test]
fn a_patch_may_come_in_any_order_however_long_it_is() {
    let mut changes = chain(1, 500);
    Dice::new(7).shuffle(&mut changes);
    let mut phone = Replica::new(id(2));
    let done = phone.integrate(Patch::new(changes.clone())).unwrap();
    assert_eq!((done.applied, done.waiting), (500, 0));
    assert_matches_model(&mut phone, &changes);
}

#[test]
fn one_change_more_than_may_wait_is_refused() {
    let early = chain(1, BACKLOG_CHANGES_MAX as u64 + 2).split_off(1);
    let (last, fitting) = early.split_last().unwrap();
    let mut phone = Replica::new(id(2));
    let done = phone.integrate(Patch::new(fitting.to_vec())).unwrap();
    assert_eq!(done.waiting, BACKLOG_CHANGES_MAX);
    let refused = phone.integrate(Patch::new(vec![last.clone()]));
    assert!(matches!(refused, Err(IntegrateError::BacklogFull { .. })), "{refused:?}");
    assert_eq!(phone.version(), &Version::new());
    let done = phone.integrate(Patch::new(chain(1, 1))).unwrap();
    assert_eq!((done.applied, done.waiting), (BACKLOG_CHANGES_MAX + 1, 0));
}

#[test]
fn what_makes_room_in_the_backlog_may_bring_what_would_not_fit_without() {
    let early = chain(1, BACKLOG_CHANGES_MAX as u64 + 2).split_off(1);
    let (last, fitting) = early.split_last().unwrap();
    let mut phone = Replica::new(id(2));
    assert_eq!(phone.integrate(Patch::new(fitting.to_vec())).unwrap().waiting, BACKLOG_CHANGES_MAX);
    let release = vec![last.clone(), chain(1, 1).remove(0)];
    let done = phone.integrate(Patch::new(release)).unwrap();
    assert_eq!((done.applied, done.waiting), (BACKLOG_CHANGES_MAX + 2, 0));
}

#[test]
fn one_byte_more_than_may_wait_is_refused() {
    let large = |author, bytes: usize| {
        let value = Value::Bytes(vec![0; bytes]);
        let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
        Change::new(id(author), 1, vec![], &[Op::Set { entry, life, field, value }]).unwrap()
    };
    let head = large(9, CHANGE_BYTES_MAX - 64).bytes().len() - (CHANGE_BYTES_MAX - 64);
    let quarter = BACKLOG_BYTES_MAX / 4;
    let mut phone = Replica::new(id(2));
    let fitting = (3..6).map(|author| large(author, quarter - head));
    assert_eq!(phone.integrate(Patch::new(fitting.collect())).unwrap().waiting, 3);
    let fills = large(7, quarter - head - 100);
    assert_eq!(phone.integrate(Patch::new(vec![fills])).unwrap().waiting, 4);
    let refused = phone.integrate(Patch::new(vec![large(8, 101)]));
    assert!(matches!(refused, Err(IntegrateError::BacklogFull { .. })), "{refused:?}");
    assert_eq!(phone.integrate(Patch::new(vec![large(8, 50)])).unwrap().waiting, 5);
}

#[test]
fn many_short_ops_that_wait_count_as_what_they_take() {
    let many = |author, ops: usize| {
        let op = Op::Revive { entry: EntryId::from_bytes([7; 16]), life: Life::FIRST };
        Change::new(id(author), 1, vec![], &vec![op; ops]).unwrap()
    };
    let half = BACKLOG_BYTES_MAX / BACKLOG_OP_BYTES / 2;
    assert!(many(3, half).bytes().len() < BACKLOG_BYTES_MAX / 8);
    let mut phone = Replica::new(id(2));
    let fitting = vec![many(3, half), many(4, half - 1), many(5, 1)];
    assert_eq!(phone.integrate(Patch::new(fitting)).unwrap().waiting, 3);
    let refused = phone.integrate(Patch::new(vec![many(6, 1)]));
    assert!(matches!(refused, Err(IntegrateError::BacklogFull { .. })), "{refused:?}");
}

#[test]
fn a_change_may_always_wait_alone_whatever_it_takes_in_memory() {
    let entry = (EntryId::from_bytes([7; 16]), Life::FIRST);
    let count = 1 + BACKLOG_BYTES_MAX / size_of_val(&entry);
    let purge = |start| Op::Purge { entries: vec![entry; if start == 0 { 1 } else { count }] };
    let change = |start| Change::new(id(3), start, vec![], &[purge(start)]).unwrap();
    let mut phone = Replica::new(id(2));
    assert_eq!(phone.integrate(Patch::new(vec![change(1)])).unwrap().waiting, 1);
    let refused = phone.integrate(Patch::new(chain(1, 2).split_off(1)));
    assert!(matches!(refused, Err(IntegrateError::BacklogFull { .. })), "{refused:?}");
    phone.assert_invariants();
    let done = phone.integrate(Patch::new(vec![change(0)])).unwrap();
    assert_eq!((done.applied, done.waiting), (2, 0));
}

#[test]
fn nothing_comes_in_while_a_transaction_is_open() {
    let mut phone = Replica::new(id(2));
    let refused = phone.transact(|phone| {
        assert!(phone.create_item(EntryId::ROOT, 0).is_ok());
        Ok::<_, sds_engine::EditError>(phone.integrate(Patch::new(chain(1, 1))))
    });
    assert_eq!(refused, Ok(Err(IntegrateError::TransactionOpen)));
    let own = Patch::decode(&phone.export(&Version::new())).unwrap().into_changes();
    assert_matches_model(&mut phone, &own);
}

/// Changes of one author, of one counter each, each setting the label of Root.
fn chain(author: u64, count: u64) -> Vec<Change> {
    (0..count).map(|at| Change::new(id(author), at, vec![], &[set(at)]).unwrap()).collect()
}

fn set(number: u64) -> Op {
    let value = Value::Int(number.cast_signed());
    Op::Set { entry: EntryId::ROOT, life: Life::FIRST, field: Field::Label, value }
}

fn op(replica: u64, counter: u64) -> OpId {
    OpId { replica: id(replica), counter }
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

#[test]
fn a_change_keeps_its_one_form_when_it_is_sent_on() {
    // What no honest author does: a character is deleted twice, so that runs could be cut two ways.
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
    let author = ReplicaId::new(7).unwrap();
    let op = |counter| OpId { replica: author, counter };
    let value = Value::Text("abcdef".into());
    let delete = |counter| Op::Delete {
        entry,
        life,
        field: field.clone(),
        set: op(0),
        range: IdRange { first: op(counter), len: 1 },
        backwards: false,
    };
    let set = Op::Set { entry, life, field: field.clone(), value };
    let first = Change::new(author, 0, vec![], &[set]).unwrap();
    let second = Change::new(author, 6, vec![], &[delete(4)]).unwrap();
    let third = Change::new(author, 7, vec![], &[delete(5), delete(4)]).unwrap();

    let mut desk = Replica::new(ReplicaId::new(1).unwrap());
    desk.integrate(Patch::new(vec![first, second])).unwrap();
    let before = desk.version().clone();
    desk.integrate(Patch::new(vec![third.clone()])).unwrap();
    let sent = Patch::decode(&desk.export(&before)).unwrap();
    assert_eq!(sent.into_changes(), [third]);
}

/// Goal: a log that is read in parts is the log, in an order in which each change can be integrated at once, and
/// no more of it than was asked for. Method: replicas that edit and exchange at random; what one of them lacks
/// of what another has, from a third that has more, in parts of random size.
#[test]
fn a_log_in_parts_is_the_log() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut replicas: Vec<Replica> = (1..=4).map(|it| Replica::new(id(it))).collect();
        let mut versions = vec![Version::new()];
        for _ in 0..150 {
            let (one, other) = (dice.roll(4), dice.roll(4));
            if dice.roll(3) == 0 {
                let patch = replicas[other].export(replicas[one].version());
                replicas[one].integrate(Patch::decode(&patch).unwrap()).unwrap();
            } else {
                replicas[one].create_item(EntryId::ROOT, 0).unwrap();
            }
            versions.push(replicas[one].version().clone());
        }
        let mut all = Replica::new(id(9));
        for replica in &replicas {
            all.integrate(Patch::decode(&replica.export(all.version())).unwrap()).unwrap();
        }
        for _ in 0..20 {
            let since = versions[dice.roll(versions.len())].clone();
            let upto = versions[dice.roll(versions.len())].clone();
            let mut wanted = all.decoded_changes_since(&since).unwrap();
            wanted.retain(|change| upto.has(change.header().last()));
            let (mut read, mut known) = (Vec::new(), since);
            loop {
                let count = 1 + dice.roll(7);
                let part = all.first_changes_since(&known, &upto, count).unwrap();
                assert!(part.len() <= count);
                for change in &part {
                    let header = change.header();
                    assert_eq!(known.next(header.replica), header.start);
                    assert!(
                        header.deps.iter().all(|dep| known.has(*dep)),
                        "before what it builds on"
                    );
                    known.advance(header.replica, header.end());
                }
                let is_last = part.len() < count;
                read.extend(part);
                if is_last {
                    break;
                }
            }
            assert_eq!(read, wanted);
        }
    }
}
