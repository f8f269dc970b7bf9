//! A patch: changes on their way from one replica to another, by themselves or in blocks.
#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use smallvec::SmallVec;

use super::block::{KnownPart, count_changes, decode_known, encode_block};
use super::{PatchState, Reader, Writer};
use crate::batch::{Batch, to_usize};
use crate::change::{Change, ChangeHeader, encode};
use crate::error::DecodeError;
use crate::id::OpId;
use crate::limits::CHANGE_BYTES_MAX;
use crate::op::OpList;
use crate::version::Version;

const MAGIC: u8 = 0xda;
const FORMAT: u8 = 1;
/// Set in the format's byte when the patch is a single change, whose length need not be told.
const IS_SINGLE: u8 = 0x80;
const CHECKSUM_BYTES: usize = 4;
/// Hardly any section has a longer head, nor has the patch.
const HEAD_BYTES: usize = 4;
/// The low bits of a section's head say what it is.
const KIND_BITS: u32 = 2;

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Change = 0,
    Block = 1,
    State = 2,
    /// Where the log is that belongs to a state; only in snapshots.
    Log = 3,
}

impl Kind {
    const fn of(head: u64) -> Self {
        match head & ((1 << KIND_BITS) - 1) {
            0 => Self::Change,
            1 => Self::Block,
            2 => Self::State,
            _ => Self::Log,
        }
    }
}

/// So many changes of so many ops are put together before they are taken in.
const FEW_CHANGES: usize = 16;
const FEW_OPS: usize = 64;

/// Room for a keystroke and more.
const LONE_BYTES: usize = 64;

/// All changes of a patch, with their bytes if they came as a block.
pub(crate) type LoneBatch = (Batch, Option<Arc<[u8]>>);

/// A part of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Change(Change),
    Block(Batch, Arc<[u8]>),
    /// A change or block with an op of a newer program, by the first op of the change that holds it.
    Newer {
        first: OpId,
        /// The changes of a block before that one.
        known: Option<Batch>,
        kind: Kind,
        bytes: Arc<[u8]>,
    },
    /// What stands for changes that are gone.
    State(PatchState),
}

/// Changes that were read and found well formed, and can be looked at before they are integrated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    sections: Vec<Section>,
}

/// What is in a patch, without the ops: for whoever passes changes on and does not take them in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedPatch {
    /// The header and the bytes of each change, in the order in which they were sent.
    pub changes: Vec<(ChangeHeader, Arc<[u8]>)>,
    /// Whether there are others with ops of a newer program: [`Patch::newer`].
    pub has_newer: bool,
    /// Whether there is a state: [`Patch::has_state`].
    pub has_state: bool,
}

impl Patch {
    /// Checks all that [`Patch::decode`] does, and keeps no ops: of a change that is not in a block no more
    /// are in memory at a time than a few thousand.
    ///
    /// # Errors
    /// As `decode`; if several things are wrong, it may name another one, also where one of them is that a
    /// change is of a newer program, which by itself is no error.
    pub fn check(bytes: &[u8]) -> Result<CheckedPatch, DecodeError> {
        let mut checked = CheckedPatch::default();
        for_each_section(bytes, |kind, section| {
            match kind {
                Kind::Change => match Change::check(section) {
                    Ok(header) => checked.changes.push((header, section.into())),
                    Err(DecodeError::OpTooNew { .. }) => {
                        ChangeHeader::decode(section)?;
                        checked.has_newer = true;
                    }
                    Err(error) => return Err(error),
                },
                Kind::Block => {
                    let KnownPart { batch, newer } = decode_known(section)?;
                    let changes = batch.iter().flat_map(Batch::changes);
                    checked
                        .changes
                        .extend(changes.map(|one| (one.header().clone(), Arc::clone(one.bytes()))));
                    checked.has_newer |= newer.is_some();
                }
                Kind::State => {
                    PatchState::decode(section)?;
                    checked.has_state = true;
                }
                Kind::Log => {
                    return Err(DecodeError::Malformed { at: 0, what: "a log that is not here" });
                }
            }
            Ok(())
        })?;
        Ok(checked)
    }

    /// Reads what an export gave. Empty bytes are an empty patch.
    ///
    /// A change with an op that only a newer program knows does not spoil the others: see
    /// [`Patch::newer`]. Takes time and memory in proportion to the bytes.
    ///
    /// # Errors
    /// If the bytes are no patch, are damaged or of a newer format, or hold a change, a block or a
    /// state that is not well formed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut sections = Vec::new();
        for_each_section(bytes, |kind, section| {
            sections.push(match kind {
                Kind::Change => read_change(section)?,
                Kind::Block => read_block(section)?,
                Kind::State => Section::State(PatchState::decode(section)?),
                Kind::Log => {
                    return Err(DecodeError::Malformed { at: 0, what: "a log that is not here" });
                }
            });
            Ok(())
        })?;
        Ok(Self { sections })
    }

    /// How many changes a patch claims to hold, without looking at their ops: cheap enough to decide
    /// whether it is worth decoding. What is in a state is not counted.
    ///
    /// # Errors
    /// If the bytes are no patch, their checksum is wrong, or a block has no readable head.
    pub fn count(bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut count = 0_usize;
        for_each_section(bytes, |kind, section| {
            count = count.saturating_add(match kind {
                Kind::Change => 1,
                Kind::Block => to_usize(count_changes(section)?),
                Kind::State | Kind::Log => 0,
            });
            Ok(())
        })?;
        Ok(count)
    }

    /// Whether bytes claim to be a patch of a single change by itself, not in a block.
    #[must_use]
    pub const fn is_single(bytes: &[u8]) -> bool {
        matches!(bytes, [MAGIC, format, ..] if *format & IS_SINGLE != 0)
    }

    /// A patch of these changes.
    #[must_use]
    pub fn new(changes: Vec<Change>) -> Self {
        Self { sections: changes.into_iter().map(Section::Change).collect() }
    }

    /// The same with blocks of the changes of each author that follow each other without gaps, which
    /// take fewer bytes and less time when they are many.
    #[must_use]
    pub fn in_blocks(changes: Vec<Change>) -> Self {
        let mut batches: Vec<Batch> = Vec::new();
        for change in changes {
            let next = Batch::of_change(change);
            match batches.iter_mut().rev().find(|batch| batch.author == next.author) {
                Some(last) if last.can_take(&next) => last.take(next),
                _ => batches.push(next),
            }
        }
        let block = |batch: Batch| {
            let bytes = encode_block(&batch).into();
            Section::Block(batch, bytes)
        };
        Self { sections: batches.into_iter().map(block).collect() }
    }

    /// The changes, in the order in which they were sent. Those in a block are taken out of it;
    /// those of newer programs ([`Patch::newer`]) and those that a state stands for are not among
    /// them.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.sections.iter().flat_map(changes_of)
    }

    /// The changes by value.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        let mut changes = Vec::new();
        for section in self.sections {
            match section {
                Section::Change(change) => changes.push(change),
                Section::Block(batch, _) | Section::Newer { known: Some(batch), .. } => {
                    changes.extend(batch.changes());
                }
                Section::Newer { known: None, .. } | Section::State(..) => {}
            }
        }
        changes
    }

    /// Where authors' changes begin that hold ops of a newer program: they are passed over, and
    /// whatever builds on them waits until a program that knows them asks for them again.
    pub fn newer(&self) -> impl Iterator<Item = OpId> + '_ {
        self.sections.iter().filter_map(|section| match section {
            Section::Newer { first, .. } => Some(*first),
            _ => None,
        })
    }

    /// Whether the patch has a state in it, which stands for changes whose bytes are gone
    /// ([`Replica::compact`](crate::Replica::compact)): joining it may change anything.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.states().next().is_some()
    }

    /// The states in the patch, of which a sender puts one in at most: what each covers, and which entries
    /// it tells of.
    pub fn states(&self) -> impl Iterator<Item = &PatchState> {
        self.sections.iter().filter_map(|section| match section {
            Section::State(state) => Some(state),
            _ => None,
        })
    }

    /// The patch as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        pack_sections(self.sections.iter().map(|section| match section {
            Section::Change(change) => (Kind::Change, &**change.bytes()),
            Section::Block(_, bytes) => (Kind::Block, &**bytes),
            Section::Newer { kind, bytes, .. } => (*kind, &**bytes),
            Section::State(state) => (Kind::State, &**state.bytes()),
        }))
    }

    /// Packs changes that are encoded already, without looking inside.
    pub fn pack<'a>(changes: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        pack_sections(changes.into_iter().map(|change| (Kind::Change, change)))
    }

    /// Whether the changes are of one author, few or in one block, and can be made at once on top of a
    /// version.
    pub(crate) fn is_lone_and_next(&self, version: &Version) -> bool {
        match self.sections.as_slice() {
            [Section::Block(batch, _)] => batch.is_next(version),
            [] => false,
            sections if sections.len() > FEW_CHANGES => false,
            sections => {
                let mut reached = None;
                sections.iter().all(|section| {
                    let Section::Change(change) = section else { return false };
                    let header = change.header();
                    let (author, next) = *reached
                        .get_or_insert_with(|| (header.replica, version.next(header.replica)));
                    reached = Some((author, header.end()));
                    (author, next) == (header.replica, header.start)
                        && change.list().len() <= FEW_OPS
                        && header.deps.iter().all(|dep| version.has(*dep))
                })
            }
        }
    }

    /// The changes of a patch of which [`Patch::is_lone_and_next`] is true, with their bytes if they
    /// are a block; else the patch.
    pub(crate) fn into_lone_batch(self) -> Result<LoneBatch, Self> {
        let mut whole: Option<LoneBatch> = None;
        if !self.sections.iter().all(|one| matches!(one, Section::Change(_) | Section::Block(..))) {
            return Err(self);
        }
        for section in self.sections {
            let (next, bytes) = match section {
                Section::Block(batch, bytes) => (batch, Some(bytes)),
                Section::Change(change) => (Batch::of_change(change), None),
                Section::Newer { .. } | Section::State(..) => continue,
            };
            match &mut whole {
                Some((batch, _)) => batch.take(next),
                None => whole = Some((next, bytes)),
            }
        }
        whole.ok_or_else(Self::default)
    }

    /// A patch of a single change that is known to be well formed.
    pub(crate) fn pack_lone(header: &ChangeHeader, ops: &OpList) -> Vec<u8> {
        let mut writer = Writer::with_capacity(LONE_BYTES);
        writer.raw(&[MAGIC, FORMAT | IS_SINGLE]);
        finish(encode(header, ops, writer))
    }

    pub(crate) fn into_sections(self) -> Vec<Section> {
        self.sections
    }
}

/// Packs changes of one author, of which there are two at least.
pub(crate) fn pack_changes(batch: &Batch) -> Vec<u8> {
    let mut writer = Writer::with_capacity(LONE_BYTES * 4);
    writer.raw(&[MAGIC, FORMAT]);
    let mut change = Writer::with_capacity(LONE_BYTES);
    for (header, ops) in batch.parts() {
        change = encode(&header, &ops, change);
        writer.varint((change.as_slice().len() as u64) << KIND_BITS | Kind::Change as u64);
        writer.raw(change.as_slice());
        change.clear();
    }
    finish(writer)
}

/// Packs sections that are encoded already.
pub(crate) fn pack_sections<'a>(sections: impl IntoIterator<Item = (Kind, &'a [u8])>) -> Vec<u8> {
    pack_sections_apart(sections).0
}

/// The same; tells where each section ends.
pub(super) fn pack_sections_apart<'a>(
    sections: impl IntoIterator<Item = (Kind, &'a [u8])>,
) -> (Vec<u8>, Vec<usize>) {
    let sections: SmallVec<[(Kind, &[u8]); 4]> = sections.into_iter().collect();
    let bytes: usize = sections.iter().map(|(_, section)| section.len() + HEAD_BYTES).sum();
    let mut writer = Writer::with_capacity(HEAD_BYTES + bytes + CHECKSUM_BYTES);
    let mut ends = Vec::with_capacity(sections.len());
    writer.byte(MAGIC);
    if let [(Kind::Change, change)] = sections[..] {
        writer.byte(FORMAT | IS_SINGLE);
        writer.raw(change);
        ends.push(writer.as_slice().len());
    } else {
        writer.byte(FORMAT);
        for (kind, section) in sections {
            writer.varint((section.len() as u64) << KIND_BITS | kind as u64);
            writer.raw(section);
            ends.push(writer.as_slice().len());
        }
    }
    (finish(writer), ends)
}

/// Adds the checksum.
fn finish(mut writer: Writer) -> Vec<u8> {
    let checksum = checksum(writer.as_slice());
    writer.raw(&checksum);
    writer.into_bytes()
}

/// Hands over each section.
pub(crate) fn for_each_section<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(Kind, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let (is_single, body) = checked_body(bytes)?;
    if is_single {
        return each(Kind::Change, body);
    }
    let mut reader = Reader::new(body);
    let mut sections = 0;
    while !reader.is_empty() {
        let head = reader.varint()?;
        let len = reader.fits(head >> KIND_BITS, 1)?;
        sections += 1;
        let kind = Kind::of(head);
        let section = reader.bytes(len)?;
        if sections == 1 && reader.is_empty() && kind == Kind::Change {
            return Err(reader.malformed("a single change in the form of many"));
        }
        each(kind, section)?;
    }
    Ok(())
}

fn read_change(bytes: &[u8]) -> Result<Section, DecodeError> {
    if bytes.len() > CHANGE_BYTES_MAX {
        let max = CHANGE_BYTES_MAX as u64;
        return Err(DecodeError::TooLarge { what: "the change", max });
    }
    match Change::decode(bytes) {
        Ok(change) => Ok(Section::Change(change)),
        Err(DecodeError::OpTooNew { .. }) => {
            let header = ChangeHeader::decode(bytes)?;
            let first = OpId { replica: header.replica, counter: header.start };
            Ok(Section::Newer { first, known: None, kind: Kind::Change, bytes: bytes.into() })
        }
        Err(error) => Err(error),
    }
}

fn read_block(bytes: &[u8]) -> Result<Section, DecodeError> {
    Ok(match decode_known(bytes)? {
        KnownPart { batch: Some(batch), newer: None } => Section::Block(batch, bytes.into()),
        KnownPart { batch: known, newer: Some((first, _)) } => {
            Section::Newer { first, known, kind: Kind::Block, bytes: bytes.into() }
        }
        KnownPart { batch: None, newer: None } => {
            return Err(DecodeError::Malformed { at: 0, what: "a block of nothing" });
        }
    })
}

fn changes_of(section: &Section) -> impl Iterator<Item = Change> + '_ {
    let (change, batch) = match section {
        Section::Change(change) => (Some(change.clone()), None),
        Section::Block(batch, _) => (None, Some(batch)),
        Section::Newer { known, .. } => (None, known.as_ref()),
        Section::State(..) => (None, None),
    };
    change.into_iter().chain(batch.into_iter().flat_map(Batch::changes))
}

/// What stands between head and checksum, and whether it is a single change.
fn checked_body(bytes: &[u8]) -> Result<(bool, &[u8]), DecodeError> {
    let mut head = Reader::new(bytes);
    if head.byte()? != MAGIC {
        return Err(DecodeError::WrongMagic { expected: "a patch" });
    }
    let format = head.byte()?;
    let found = format & !IS_SINGLE;
    if found != FORMAT {
        return Err(if found > FORMAT {
            DecodeError::FormatTooNew { found, newest: FORMAT }
        } else {
            head.malformed("unknown format version")
        });
    }
    let (content, sum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .filter(|(content, _)| content.len() >= head.position())
        .ok_or_else(|| head.truncated())?;
    if checksum(content) != *sum {
        return Err(DecodeError::WrongChecksum);
    }
    let body = content.get(head.position()..).ok_or_else(|| head.truncated())?;
    Ok((format & IS_SINGLE != 0, body))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes).finalize_xof().fill(&mut sum);
    sum
}
