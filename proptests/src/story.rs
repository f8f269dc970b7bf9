//! Stories of a few replicas: who edits what, what reaches whom, in which order and how often.
//!
//! A [`Step`] is a recipe of small numbers, so that any list of steps is a story. After each step
//! the replica that it touched must be what the model makes of the changes that it got, and what a
//! mirror shows that gets its deltas. Whoever is watched takes no short ways, so that not all are.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::prop_oneof;
use sds_engine::{Change, EditError, Patch, Replica, ReplicaId, Version};

use crate::adversarial::Forgery;
use crate::dice::Dice;
use crate::edit::Edit;
use crate::mirror::Mirror;
use crate::model::{History, Model};
use crate::typing::{Cursor, Typing};
use crate::view::{View, assert_matches_model};

/// The fewest and most replicas of a story.
pub const PEERS: std::ops::RangeInclusive<usize> = 2..=5;

/// Ids without any order between time, place in the cast and number.
const CAST: [u64; 5] = [0x7a11, u64::MAX, 1, 0x0123_4567_89ab_cdef, 0x7a10];
const FORGERS: [u64; 5] = [0xf001, 2, u64::MAX - 1, 0xf0f0_f0f0_f0f0_f0f0, 0x0fff_ffff];

/// Something that happens. `at`, `from` and `to` pick a replica.
#[derive(Clone, Debug, Arbitrary)]
#[expect(missing_docs, reason = "the variants say it")]
pub enum Step {
    /// A local edit, legal or not.
    Edit { at: u8, edit: Edit },
    /// Several edits as one change. A part of them may be a transaction of its own that fails.
    Transaction { at: u8, edits: Vec<Edit>, failing_part: Vec<Edit>, fails: bool },
    /// Keystrokes, each a change by itself.
    Type { at: u8, typing: Typing },
    /// A change that no honest author makes.
    Forge { at: u8, forgery: Forgery },
    /// Changes go from one replica to another.
    Send { from: u8, to: u8, delivery: Delivery },
    /// A replica is saved and loaded.
    Reload { at: u8 },
    /// A replica drops its history.
    Compact { at: u8 },
}

/// Which changes arrive, and how.
#[derive(Clone, Debug, Arbitrary)]
pub enum Delivery {
    /// What the other side lacks, as a patch.
    Missing,
    /// Everything, known or not.
    Everything,
    /// Any selection in any order, some twice.
    Some {
        /// Decides the selection and the order.
        seed: u64,
        /// In which packages.
        packages: Packages,
    },
    /// What one author made from some change on, as blocks.
    Stretch {
        /// Decides the author and the change.
        seed: u64,
    },
}

/// In which packages changes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Packages {
    /// Each change by itself.
    Apart,
    /// All in one patch.
    Together,
    /// All in one patch, in blocks.
    InBlocks,
}

impl Packages {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![Just(Self::Apart), Just(Self::Together), Just(Self::InBlocks)]
    }
}

impl Step {
    /// Steps of honest replicas.
    pub fn honest() -> impl Strategy<Value = Self> {
        let edits = |most| prop::collection::vec(Edit::any(), 0..most);
        let transaction = (any::<u8>(), edits(4), edits(2), prop::bool::weighted(0.3));
        prop_oneof![
            12 => (any::<u8>(), Edit::any()).prop_map(|(at, edit)| Self::Edit { at, edit }),
            2 => transaction.prop_map(|(at, edits, failing_part, fails)| {
                Self::Transaction { at, edits, failing_part, fails }
            }),
            4 => (any::<u8>(), Typing::any()).prop_map(|(at, typing)| Self::Type { at, typing }),
            6 => (any::<u8>(), any::<u8>(), Delivery::any())
                .prop_map(|(from, to, delivery)| Self::Send { from, to, delivery }),
            1 => any::<u8>().prop_map(|at| Self::Reload { at }),
            1 => any::<u8>().prop_map(|at| Self::Compact { at }),
        ]
    }

    /// Steps with forged changes among them.
    pub fn any() -> impl Strategy<Value = Self> {
        let forged = (any::<u8>(), Forgery::any());
        prop_oneof![
            2 => Self::honest(),
            1 => forged.prop_map(|(at, forgery)| Self::Forge { at, forgery }),
        ]
    }
}

impl Delivery {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            3 => Just(Self::Missing),
            1 => Just(Self::Everything),
            3 => (any::<u64>(), Packages::any())
                .prop_map(|(seed, packages)| Self::Some { seed, packages }),
            1 => any::<u64>().prop_map(|seed| Self::Stretch { seed }),
        ]
    }
}

/// A replica, and every change that it made or got since it was loaded.
#[derive(Debug)]
struct Peer {
    replica: Replica,
    changes: Vec<Change>,
    /// What it had when it dropped its history.
    cut: Version,
    forger: ReplicaId,
    /// Where its user types.
    cursor: Cursor,
    /// None while nobody watches the replica.
    mirror: Option<Mirror>,
    /// How many steps the mirror lags behind, and may.
    lag: usize,
    lag_max: usize,
}

/// A few replicas and what has become of them.
#[derive(Debug)]
pub struct Story {
    peers: Vec<Peer>,
}

impl Story {
    /// A story of `peers` replicas, which are still empty. Each is watched.
    #[must_use]
    pub fn new(peers: usize) -> Self {
        Self::watching(peers, u8::MAX)
    }

    /// The same; which replicas are watched, the bits of `watched` say.
    #[must_use]
    pub fn watching(peers: usize, watched: u8) -> Self {
        let id = |number| ReplicaId::new(number).expect("the cast has no zero");
        let cast = CAST.into_iter().zip(FORGERS).take(peers);
        let peers = cast.enumerate().map(|(nth, (own, forger))| {
            let mut peer = Peer::new(Replica::new(id(own)), id(forger), nth % 3);
            if watched >> nth & 1 == 1 {
                peer.mirror = Some(Mirror::of(&mut peer.replica));
            }
            peer
        });
        Self { peers: peers.collect() }
    }

    /// Lets the steps happen, and panics when a replica is not what it should be.
    #[must_use]
    pub fn run(mut self, steps: &[Step]) -> Self {
        for step in steps {
            self.step(step);
        }
        self
    }

    /// Every change that any replica has, each once, by author.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let everything: Vec<Change> =
            self.peers.iter().flat_map(|peer| peer.changes.iter().cloned()).collect();
        History::of(&everything).integrated().cloned().collect()
    }

    /// Gives every replica every change, in an order of its own and some twice, and panics unless
    /// all end up the same.
    pub fn converge(mut self, seed: u64) {
        let mut dice = Dice::new(seed);
        let everything: Vec<Change> =
            self.peers.iter().flat_map(|peer| peer.changes.iter().cloned()).collect();
        for peer in &mut self.peers {
            let mut changes = everything.clone();
            dice.shuffle(&mut changes);
            let packages = [Packages::Apart, Packages::Together, Packages::InBlocks];
            peer.receive(changes, packages[dice.roll(3)]);
            peer.reload();
        }
        let model = Model::of(&everything);
        model.assert_promises();
        let expected = (View::of_model(&model), model.digest());
        for peer in &mut self.peers {
            let digest = *peer.replica.digest().as_bytes();
            assert_eq!((View::of_replica(&peer.replica), digest), expected);
        }
    }

    fn step(&mut self, step: &Step) {
        let cast = self.peers.len();
        let place = |number: u8| usize::from(number) % cast;
        match step {
            Step::Edit { at, edit } => self.peers[place(*at)].edit(edit),
            Step::Transaction { at, edits, failing_part, fails } => {
                self.peers[place(*at)].transact(edits, failing_part, *fails);
            }
            Step::Type { at, typing } => self.peers[place(*at)].type_in(typing),
            Step::Forge { at, forgery } => self.peers[place(*at)].forge(forgery),
            Step::Send { from, to, delivery } => {
                let (from, to) = (place(*from), place(*to));
                self.send(from, to, delivery);
            }
            Step::Reload { at } => self.peers[place(*at)].reload(),
            Step::Compact { at } => self.peers[place(*at)].compact(),
        }
    }

    fn send(&mut self, from: usize, to: usize, delivery: &Delivery) {
        let sender = &self.peers[from];
        sender.assert_newest_can_be_sent_alone();
        let exported = |since: &Version| {
            let patch = Patch::decode(&sender.replica.export(since));
            patch.expect("an export is a patch")
        };
        match delivery {
            Delivery::Missing => {
                let patch = exported(self.peers[to].replica.version());
                let stands_for = sender.integrated();
                self.peers[to].take_in(patch, stands_for);
            }
            Delivery::Everything => {
                let patch = exported(&Version::new());
                let stands_for = sender.integrated();
                self.peers[to].take_in(patch, stands_for);
            }
            Delivery::Some { seed, packages } => {
                let changes = selection(&sender.changes, *seed);
                self.peers[to].receive(changes, *packages);
            }
            Delivery::Stretch { seed } => {
                let changes = stretch(&sender.changes, *seed);
                self.peers[to].receive(changes, Packages::InBlocks);
            }
        }
    }
}

impl Peer {
    fn new(replica: Replica, forger: ReplicaId, lag_max: usize) -> Self {
        let (changes, cut, cursor) = (Vec::new(), Version::new(), Cursor::default());
        Self { replica, changes, cut, forger, cursor, mirror: None, lag: 0, lag_max }
    }

    /// Panics unless the replica is what the model makes of its changes, and what the mirror shows as
    /// soon as that follows.
    fn check(&mut self) {
        assert_matches_model(&mut self.replica, &self.changes);
        self.lag += 1;
        if self.lag > self.lag_max {
            follow(&mut self.mirror, &mut self.replica);
            self.lag = 0;
        }
    }

    /// Panics unless the newest change of each author, sent by itself, is what came.
    fn assert_newest_can_be_sent_alone(&self) {
        let newest: BTreeMap<ReplicaId, Change> =
            self.integrated().into_iter().map(|change| (change.header().replica, change)).collect();
        for (author, change) in newest {
            let mut since = Version::new();
            for (other, next) in self.replica.version().iter() {
                since.advance(other, if other == author { change.header().start } else { next });
            }
            let patch = Patch::decode(&self.replica.export(&since)).expect("an export is a patch");
            if !patch.has_state() {
                assert_eq!(patch.into_changes(), [change], "the newest change by itself");
            }
        }
    }

    fn edit(&mut self, edit: &Edit) {
        let keeps_promises = Model::of(&self.changes).is_free_of_lives_to_come();
        let before = self.replica.version().clone();
        let made = edit.make(&mut self.replica, keeps_promises);
        if made.is_err() {
            assert_eq!(*self.replica.version(), before, "a refused edit makes no change");
        }
        assert!(self.take_note(&before) <= 1, "an edit is one change");
    }

    fn type_in(&mut self, typing: &Typing) {
        let before = self.replica.version().clone();
        let made = self.cursor.type_in(&mut self.replica, typing);
        assert_eq!(self.take_note(&before), made, "a keystroke is a change");
    }

    fn transact(&mut self, edits: &[Edit], failing_part: &[Edit], fails: bool) {
        let keeps_promises = Model::of(&self.changes).is_free_of_lives_to_come();
        let before = self.replica.version().clone();
        let (mirror, looks) = (&mut self.mirror, edits.len().is_multiple_of(2));
        let result = self.replica.transact(|replica| {
            for edit in edits {
                // An edit that is refused takes nothing else back.
                drop(edit.make(replica, keeps_promises));
            }
            if looks {
                follow(mirror, replica);
            }
            let view = View::of_replica(replica);
            let failed = replica.transact(|replica| {
                for edit in failing_part {
                    drop(edit.make(replica, keeps_promises));
                }
                if looks {
                    follow(mirror, replica);
                }
                Err::<(), _>(EditError::OutOfIds)
            });
            assert_eq!(failed, Err(EditError::OutOfIds));
            assert_eq!(View::of_replica(replica), view, "a failed part leaves no trace");
            if fails { Err(EditError::OutOfIds) } else { Ok(()) }
        });
        assert_eq!(result.is_err(), fails);
        if fails {
            assert_eq!(*self.replica.version(), before, "a failed transaction makes no change");
        }
        assert!(self.take_note(&before) <= 1, "a transaction is one change");
    }

    fn forge(&mut self, forgery: &Forgery) {
        let history = History::of(&self.changes);
        if let Some(change) = forgery.make(self.forger, &history) {
            self.receive(vec![change], Packages::Together);
        }
    }

    fn receive(&mut self, changes: Vec<Change>, packages: Packages) {
        let patches = match packages {
            Packages::Apart => changes.into_iter().map(|change| Patch::new(vec![change])).collect(),
            Packages::Together => vec![Patch::new(changes)],
            Packages::InBlocks => vec![Patch::in_blocks(changes)],
        };
        for patch in patches {
            let bytes = patch.encode();
            assert_eq!(Patch::decode(&bytes).as_ref(), Ok(&patch), "a patch can be read");
            self.changes.extend(patch.changes());
            self.replica.integrate(patch).expect("nobody forks and little waits");
        }
        self.check();
    }

    /// Takes a patch in. If it has a state, then that stands for these changes.
    fn take_in(&mut self, patch: Patch, stands_for: Vec<Change>) {
        self.changes.extend(patch.changes());
        if patch.has_state() {
            self.changes.extend(stands_for);
        }
        self.replica.integrate(patch).expect("nobody forks and nothing is missing");
        self.check();
    }

    /// What waits for others is not saved; whoever sent it will send it again.
    fn reload(&mut self) {
        let bytes = self.replica.snapshot();
        let history = self.replica.changes_since(&self.cut);
        let loaded = Replica::from_snapshot(self.replica.id(), &bytes);
        self.replica = loaded.expect("a snapshot can be loaded");
        assert_eq!(self.replica.changes_since(&self.cut), history, "a snapshot holds the history");
        self.mirror = self.mirror.is_some().then(|| Mirror::of(&mut self.replica));
        self.changes = self.integrated();
        if let Some(changes) = self.replica.changes_since(&Version::new()) {
            let mut exported: Vec<Change> =
                changes.iter().map(|bytes| Change::decode(bytes).expect("an export")).collect();
            exported.sort_by_key(|change| (change.header().replica, change.header().start));
            assert_eq!(exported, self.changes, "a snapshot holds the history");
        }
        self.check();
    }

    fn compact(&mut self) {
        self.replica.compact();
        self.cut = self.replica.version().clone();
        self.check();
    }

    /// The changes that have all that they build on, each once, by author.
    fn integrated(&self) -> Vec<Change> {
        History::of(&self.changes).integrated().cloned().collect()
    }

    /// Takes note of the changes that local edits have made since `before`. Returns how many.
    fn take_note(&mut self, before: &Version) -> usize {
        let made = Patch::decode(&self.replica.export(before)).expect("an export is a patch");
        let made = made.into_changes();
        let count = made.len();
        self.changes.extend(made);
        self.check();
        count
    }
}

/// Lets a mirror follow, if there is one.
fn follow(mirror: &mut Option<Mirror>, replica: &mut Replica) {
    if let Some(mirror) = mirror {
        mirror.follow(replica);
    }
}

/// Some of one author's changes, in order and without gaps.
fn stretch(changes: &[Change], seed: u64) -> Vec<Change> {
    let mut dice = Dice::new(seed);
    let history = History::of(changes);
    let all: Vec<&Change> = history.integrated().collect();
    let Some(first) = all.get(dice.roll(all.len().max(1))) else { return Vec::new() };
    let author = first.header().replica;
    let same = |change: &&&Change| {
        change.header().replica == author && change.header().start >= first.header().start
    };
    let len = 1 + dice.roll(all.len());
    all.iter().filter(same).take(len).map(|change| (*change).clone()).collect()
}

fn selection(changes: &[Change], seed: u64) -> Vec<Change> {
    let mut dice = Dice::new(seed);
    let mut selection = Vec::new();
    for change in changes {
        let times = [0, 1, 1, 2][dice.roll(4)];
        selection.extend(std::iter::repeat_n(change.clone(), times));
    }
    dice.shuffle(&mut selection);
    selection
}
