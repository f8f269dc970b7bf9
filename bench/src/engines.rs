//! The engines, each behind one small trait for every family of workloads.
//!
//! All of them are used as their documentation says is fastest for the workload at hand; what was
//! chosen, and why, stands in the head of each file.

pub(crate) mod automerge;
pub(crate) mod cola;
pub(crate) mod diamond;
pub(crate) mod jumprope;
pub(crate) mod loro;
pub(crate) mod sds;
pub(crate) mod yrs;

use std::hash::Hash;
use std::rc::Rc;

use anyhow::Result;
use clap::ValueEnum;

use crate::traces::Splice;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Engine {
    /// Ours.
    Sds,
    Loro,
    Yrs,
    Automerge,
    DiamondTypes,
    /// cola beside a rope that holds the characters.
    Cola,
    /// cola alone: it knows positions, and no text can be read.
    ColaPositions,
    /// A rope without any CRDT.
    Jumprope,
    /// The database that stores are in.
    Redb,
}

impl Engine {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sds => "sds",
            Self::Loro => "loro",
            Self::Yrs => "yrs",
            Self::Automerge => "automerge",
            Self::DiamondTypes => "diamond-types",
            Self::Cola => "cola",
            Self::ColaPositions => "cola-positions",
            Self::Jumprope => "jumprope",
            Self::Redb => "redb",
        }
    }

    /// Whether it counts as the best peer of a row when it is.
    pub(crate) const fn is_peer(self) -> bool {
        !matches!(self, Self::Sds | Self::Jumprope)
    }

    /// Ours and the peers asked for.
    pub(crate) fn chosen(peers: Option<&[Self]>) -> Vec<Self> {
        let takes_part = |engine: &Self| {
            *engine == Self::Sds || peers.is_none_or(|peers| peers.contains(engine))
        };
        Self::value_variants().iter().copied().filter(takes_part).collect()
    }
}

/// One replica of a text.
///
/// Edits are made with `edit`, each call a change of its own. What was edited here since the last
/// `message` or `receive` leaves with `message`.
pub(crate) trait Text: Sized {
    const ENGINE: Engine;

    /// What one replica hands to another.
    type Message;

    /// An empty text, whose author is number 1.
    fn new() -> Self;

    /// From now on `message` will be called. Engines that can only encode a change while it is made
    /// do so from here on.
    fn record(&mut self) {}

    /// Makes one change, of one or more splices.
    fn edit(&mut self, splices: &[Splice]) -> Result<()>;

    /// What was edited since the last message or reception.
    fn message(&mut self) -> Result<Self::Message>;

    /// Makes changes and puts them into one message.
    fn share<'a>(
        &mut self,
        mut changes: impl Iterator<Item = &'a [Splice]>,
    ) -> Result<Self::Message> {
        changes.try_for_each(|splices| self.edit(splices))?;
        self.message()
    }

    /// How many bytes a message takes on the wire.
    fn message_bytes(message: &Self::Message) -> usize;

    /// Takes in messages, in an order in which each builds only on those before.
    fn receive(&mut self, messages: &[&Self::Message]) -> Result<()>;

    /// Another replica of the same text, for author `number`.
    fn fork(&mut self, number: u64) -> Result<Self>;

    /// The text as it is now.
    fn text(&mut self) -> Result<String>;
}

/// A text engine that can be kept in a file.
pub(crate) trait Stored: Text {
    /// Whether the file has the whole history.
    const KEEPS_HISTORY: bool;

    /// The file.
    fn save(&mut self) -> Result<Vec<u8>>;

    /// Reads a file, for author `number` to go on.
    fn load(bytes: &[u8], number: u64) -> Result<Self>;

    /// The file with all history cut that the engine can cut; `None` if it cannot.
    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A text engine whose whole history can be one patch.
pub(crate) trait Logged: Stored {
    /// Everything that this replica has, as one patch.
    fn history(&mut self) -> Result<Self::Message>;

    /// A replica that has nothing yet, not even what `new` has.
    fn blank(number: u64) -> Result<Self>;
}

/// One replica of an ordered tree. Ops between two `commit`s are one change.
pub(crate) trait Tree: Sized {
    const ENGINE: Engine;

    /// Names a node.
    type Node: Copy + Eq + Hash;

    /// An empty tree of author `number`.
    fn new(number: u64) -> Self;

    fn begin(&mut self);

    fn commit(&mut self) -> Result<()>;

    /// Creates a node in `parent` (or at the top) at `index`, or last.
    fn create(&mut self, parent: Option<Self::Node>, index: Option<usize>) -> Result<Self::Node>;

    /// Moves a node, to stand at `index` afterwards.
    fn move_to(&mut self, node: Self::Node, parent: Self::Node, index: usize) -> Result<()>;

    /// What was edited since the last message or reception, committed.
    fn message(&mut self) -> Result<Vec<u8>>;

    fn receive(&mut self, message: &[u8]) -> Result<()>;

    fn save(&mut self) -> Result<Vec<u8>>;

    fn load(bytes: &[u8], number: u64) -> Result<Self>;

    /// The nodes at the top, in order.
    fn tops(&self) -> Vec<Self::Node>;

    /// The children of a node, in order.
    fn children(&self, node: Self::Node) -> Vec<Self::Node>;

    /// How many bytes the longest order key takes that any node was ever given.
    fn longest_order_key(&mut self) -> Result<usize>;
}

/// One replica of many registers that hold numbers. Sets between two `commit`s are one change.
pub(crate) trait Registers: Sized {
    const ENGINE: Engine;

    /// What the registers go by, made before any clock runs.
    type Keys: Clone;

    fn keys(registers: usize) -> Self::Keys;

    /// Registers that hold nothing, of author 1.
    fn new(keys: &Self::Keys) -> Result<Self>;

    /// Another replica of the same registers, which hold the same. Messages are about what comes after.
    fn fork(&mut self) -> Result<Self>;

    /// Sets registers, in one change.
    fn set(&mut self, sets: &[(usize, i64)]) -> Result<()>;

    /// Everything set since the fork or the last message, as one patch.
    fn message(&mut self) -> Result<Vec<u8>>;

    fn receive(&mut self, message: &[u8]) -> Result<()>;

    fn save(&mut self) -> Result<Vec<u8>>;

    fn load(bytes: &[u8], keys: &Self::Keys) -> Result<Self>;

    /// The file with all history cut that the engine can cut; `None` if it cannot.
    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn value(&self, register: usize) -> Option<i64>;
}

/// Names for registers where an engine wants names.
fn names<T: From<String>>(registers: usize) -> Rc<[T]> {
    (0..registers).map(|register| T::from(format!("key{register}"))).collect()
}

/// The id of an author where ids are 64 random bits: as long as a random one, in order of number,
/// so that all engines decide alike between concurrent edits.
const fn long_id(number: u64) -> u64 {
    (1 << 63) | (number << 40) | 0x79_b97f_4a7c
}
