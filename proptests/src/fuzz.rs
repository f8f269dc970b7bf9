//! The bodies of the fuzz targets: any bytes, read as what a test takes.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use sds_engine::{
    Anchor, Change, CheckedPatch, DecodeError, Patch, Replica, ReplicaId, TextUnit, Version,
};

use crate::simulation::{SimStory, run_story};
use crate::snapshot;
use crate::store_story::{StoreStep, StoreStory, USERS};
use crate::story::{PEERS, Step, Story};
use crate::view::{View, assert_matches_model};

/// More steps make a story slow without making it tell more.
const STEPS_MAX: usize = 64;

/// Panics unless the story that the bytes tell leaves all replicas as the model says.
pub fn convergence(data: &[u8]) {
    let Some((peers, watched, seed, steps)) = story(data) else { return };
    Story::watching(peers, watched).run(&steps).converge(seed);
}

/// The story that the bytes tell: how many replicas, which are watched, the seed of the last deliveries,
/// the steps.
#[must_use]
pub fn story(data: &[u8]) -> Option<(usize, u8, u64, Vec<Step>)> {
    let mut bytes = Unstructured::new(data);
    let peers = bytes.int_in_range(PEERS).ok()?;
    let watched = u8::arbitrary(&mut bytes).ok()?;
    let seed = u64::arbitrary(&mut bytes).ok()?;
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        steps.push(Step::arbitrary(&mut bytes).ok()?);
    }
    Some((peers, watched, seed, steps))
}

/// Panics unless the rules of a store hold after every step of the story that the bytes tell, and all
/// users end up with the same.
pub fn store(data: &[u8]) {
    let Some((users, seed, steps)) = store_story(data) else { return };
    StoreStory::new(users).run(&steps).converge(seed);
}

/// The story of users of a store that the bytes tell.
#[must_use]
pub fn store_story(data: &[u8]) -> Option<(usize, u64, Vec<StoreStep>)> {
    let mut bytes = Unstructured::new(data);
    let users = bytes.int_in_range(USERS).ok()?;
    let seed = u64::arbitrary(&mut bytes).ok()?;
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        steps.push(StoreStep::arbitrary(&mut bytes).ok()?);
    }
    Some((users, seed, steps))
}

/// Panics unless the story that the bytes tell comes to rest with nothing lost.
pub fn simulation(data: &[u8]) {
    let Some(story) = SimStory::of_bytes(data) else { return };
    let told = run_story(&story).map_err(|(_, failure)| failure);
    assert!(told.is_ok(), "{}", told.err().unwrap_or_default());
}

/// The model takes time that grows with the square of what it is given.
const MODEL_CHANGES_MAX: usize = 64;

/// Panics unless the bytes, with a checksum that fits, are refused or decoded and taken in. The first
/// byte says as what they are read.
pub fn decoding(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            let patch = with_checksum(bytes);
            take_in(&patch);
        }
        1 => {
            if let Ok(change) = decode_change(bytes) {
                assert_eq!(&**change.bytes(), bytes);
                take_in(&Patch::new(vec![change]).encode());
            }
        }
        2 => {
            if let Ok(version) = Version::decode(bytes) {
                assert!(bytes.is_empty() || version.encode() == bytes, "a version has one form");
            }
        }
        3 => {
            if let Some((len, parts)) = bytes.split_first_chunk() {
                let (state, log) = parts.split_at(parts.len().min(u16::from_le_bytes(*len).into()));
                load(&snapshot::assemble(state, log));
            }
        }
        _ => {
            if let Ok(anchor) = Anchor::decode(bytes) {
                assert_eq!(anchor.encode(), bytes, "an anchor has one form");
                let replica = Replica::new(ReplicaId::new(1).expect("not zero"));
                assert_eq!(replica.anchor_position(&anchor, TextUnit::Chars), None);
            }
        }
    }
}

/// The bytes with the checksum that makes a patch of them, if they are one otherwise.
#[must_use]
pub fn with_checksum(content: &[u8]) -> Vec<u8> {
    let checksum = blake3::hash(content);
    [content, &checksum.as_bytes()[..CHECKSUM_BYTES]].concat()
}

/// How many bytes of checksum end a patch.
pub const CHECKSUM_BYTES: usize = 4;

/// Reads a change; panics unless whoever only checks it comes to the same.
///
/// # Errors
/// As [`Change::decode`].
pub fn decode_change(bytes: &[u8]) -> Result<Change, DecodeError> {
    let (decoded, checked) = (Change::decode(bytes), Change::check(bytes));
    let header = decoded.as_ref().ok().map(Change::header);
    assert_eq!(header, checked.as_ref().ok(), "{decoded:?}, {checked:?}");
    decoded
}

/// The same for a patch. One that has a change of a newer program may be damaged where only the check looks.
///
/// # Errors
/// As [`Patch::decode`].
pub fn decode_patch(bytes: &[u8]) -> Result<Patch, DecodeError> {
    let (decoded, checked) = (Patch::decode(bytes), Patch::check(bytes));
    match (&decoded, checked) {
        (Ok(patch), Ok(checked)) => {
            let told = |change: Change| (change.header().clone(), Arc::clone(change.bytes()));
            let changes = patch.changes().map(told).collect();
            let (has_newer, has_state) = (patch.newer().next().is_some(), patch.has_state());
            assert_eq!(CheckedPatch { changes, has_newer, has_state }, checked);
        }
        (Ok(patch), Err(error)) => assert!(patch.newer().next().is_some(), "{error}"),
        (Err(error), checked) => assert!(checked.is_err(), "only read not: {error}"),
    }
    decoded
}

fn take_in(bytes: &[u8]) {
    let Ok(patch) = decode_patch(bytes) else { return };
    assert_eq!(patch.encode(), bytes, "a patch is written as it was read");
    let mut replica = Replica::new(ReplicaId::new(u64::MAX).expect("not zero"));
    if Patch::count(bytes).is_ok_and(|count| count > MODEL_CHANGES_MAX) {
        drop(replica.integrate(patch));
        replica.assert_invariants();
        return;
    }
    if patch.has_state() {
        return take_in_state(replica, patch);
    }
    let changes = patch.clone().into_changes();
    if replica.integrate(patch.clone()).is_ok() {
        assert_matches_model(&mut replica, &changes);
        let known = replica.integrate(patch).expect("what is known is no contradiction");
        assert_eq!(known.applied, 0, "what is known changes nothing");
        let mut other = Replica::new(ReplicaId::new(u64::MAX - 1).expect("not zero"));
        let copy = Patch::decode(&replica.export(&Version::new())).expect("an export is a patch");
        other.integrate(copy).expect("an export can be taken in");
        assert_eq!(other.digest(), replica.digest());
    } else {
        assert!(replica.version().is_empty(), "what is refused changes nothing");
    }
}

/// Whatever a snapshot says, it is refused, or a replica, which has history or has none.
pub fn load(snapshot: &[u8]) {
    let id = ReplicaId::new(u64::MAX).expect("not zero");
    let Ok(mut replica) = Replica::from_snapshot(id, snapshot) else { return };
    let history = replica.changes_since(&Version::new());
    if let Some(changes) = &history {
        for change in changes {
            drop(Change::decode(change));
        }
    }
    drop(Patch::decode(&replica.export(&Version::new())));
    let mut again = Replica::from_snapshot(id, &replica.snapshot()).expect("what was just saved");
    assert_eq!(again.digest(), replica.digest());
    assert_eq!(again.changes_since(&Version::new()), history);
}

/// Whatever a state says, it is taken in or refused as a whole, and given away again as it is.
fn take_in_state(mut replica: Replica, patch: Patch) {
    if replica.integrate(patch).is_err() {
        assert!(replica.version().is_empty(), "what is refused changes nothing");
        return;
    }
    replica.assert_invariants();
    let view = View::of_replica(&replica);
    let mut other = Replica::new(ReplicaId::new(u64::MAX - 1).expect("not zero"));
    let copy = Patch::decode(&replica.export(&Version::new())).expect("an export is a patch");
    other.integrate(copy).expect("an export can be taken in");
    other.assert_invariants();
    assert_eq!(View::of_replica(&other), view);
    assert_eq!(other.digest(), replica.digest());
}
