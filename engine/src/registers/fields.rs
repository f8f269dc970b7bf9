//! The registers of all entries.
//!
//! Most entries have a few small ones, which are packed into pages. Whatever is not in its page stands
//! apart, and its slot says where.
//!
//! Invariants, checked by `assert_invariants`:
//! - F1. Packed registers are in their page if they take up to [`SLOT_MAX`] bytes, else apart.
//! - F2. Each place apart belongs to one entry or is vacant.
//! - F3. Each entry that holds a reference to a blob is among `with_blobs`.

use std::ops::Range;

use super::loose::Loose;
use super::packed::{Frame, NOT_PACKED, Packed, Packer, Spot};
use super::pages::{PAGE, Page, SLOT_MAX, place};
use super::{FieldIx, Register, RegisterView};
use crate::bits::Bits;
use crate::entries::EntryIx;
use crate::id::{Life, OpId, Stamp};
use crate::index::{dense_index, push_tightly, trim};
use crate::short_op::Authors;
use crate::text::Text;

dense_index! {
    /// Which of the places apart from the pages.
    ApartIx
}

#[derive(Clone, Debug)]
pub(super) struct Fields {
    pages: Vec<Page>,
    apart: Vec<Apart>,
    vacant: Vec<ApartIx>,
    /// Entries that may hold a reference to a blob: few do, and somebody looks for them among all.
    with_blobs: Bits,
    authors: Authors,
    packer: Packer,
}

/// What became of a register that was to be set.
#[derive(Debug)]
pub(super) enum Setting {
    /// A greater one is there.
    Beaten,
    /// It is there now, in place of another maybe.
    Set(Option<Register>),
}

/// The registers of one entry that are not in its page.
#[derive(Clone, Debug)]
enum Apart {
    /// Nothing where the place is vacant.
    Packed(Box<[u8]>),
    Loose(Box<Loose>),
}

// There is one for each entry that holds more than a little.
const _: () = assert!(size_of::<Apart>() <= 16);

impl Apart {
    fn vacant() -> Self {
        Self::Packed(Box::default())
    }

    const fn is_loose(&self) -> bool {
        matches!(self, Self::Loose(_))
    }
}

/// The registers of one entry, however they are kept.
enum Kept<'a> {
    Packed(Packed<'a>),
    Loose(&'a Loose),
}

impl Fields {
    pub(super) fn new() -> Self {
        Self {
            pages: Vec::new(),
            apart: Vec::new(),
            vacant: Vec::new(),
            with_blobs: Bits::default(),
            authors: Authors::default(),
            packer: Packer::new(),
        }
    }

    /// Makes room for the registers of an entry, which comes next.
    pub(super) fn grow(&mut self, entry: EntryIx) {
        self.with_blobs.grow(entry.at() + 1);
        if place(entry).0 == self.pages.len() {
            // Entries mostly get what they hold when they come.
            if let Some(before) = self.pages.last_mut() {
                before.trim();
            }
            push_tightly(&mut self.pages, Page::default());
        }
    }

    /// Makes room for so many more entries at once.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.pages.reserve_exact(entries.div_ceil(PAGE));
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.pages);
        trim(&mut self.apart);
        self.pages.iter_mut().for_each(Page::trim);
    }

    /// Sets the registers of an entry that has none, each of another field, if all are there and can be
    /// packed. Whether they could.
    pub(super) fn fill<'a>(
        &mut self,
        entry: EntryIx,
        registers: impl Iterator<Item = Option<RegisterView<'a>>>,
    ) -> bool {
        let Self { pages, with_blobs, authors, packer, .. } = self;
        let page = &mut pages[place(entry).0];
        let mut is_first = true;
        for register in registers {
            let Some(register) = register else { return false };
            if register.is_blob() {
                with_blobs.replace(entry, true);
            }
            authors.number(register.stamp.replica);
            if std::mem::take(&mut is_first) {
                page.expect(register.stamp, authors);
                let expected = page.expected(authors);
                packer.begin(Frame { authors, expected }, 0);
            }
            if packer.push(&register, authors).is_none() {
                return false;
            }
        }
        if !is_first {
            // The others of a page are likely to hold about as much.
            if packer.bytes().len() <= SLOT_MAX {
                page.reserve(PAGE * packer.bytes().len());
            }
            self.keep_packed(entry, 0..0);
        }
        true
    }

    /// Sets a register, unless that of the field has a greater (life, stamp). Whether it was set, and the
    /// register before if that is wanted.
    pub(super) fn set(
        &mut self,
        entry: EntryIx,
        register: &RegisterView<'_>,
        is_known_wanted: bool,
    ) -> Setting {
        if register.is_blob() {
            self.with_blobs.replace(entry, true);
        }
        if let Some(known) = self.loose_mut(entry).and_then(|loose| loose.get_mut(register.field)) {
            if known.rank() > register.rank() {
                return Setting::Beaten;
            }
            return Setting::Set(Some(std::mem::replace(known, register.to_register())));
        }
        self.expect(entry, register.stamp);
        let (mut spot, mut before) = (None, None);
        if let Kept::Packed(packed) = self.kept(entry)
            && let Some(found) = packed.seek(register.field)
        {
            if found.rank() > Some(register.rank()) {
                return Setting::Beaten;
            }
            if is_known_wanted {
                before = packed.register(&found).map(RegisterView::to_register);
            }
            spot = Some(found);
        }
        if self.is_alone(entry, register) || !self.pack(entry, register, spot.as_ref()) {
            self.loosen(entry, register.to_register());
        }
        Setting::Set(before)
    }

    /// Sets a register, whatever is there.
    pub(super) fn insert(&mut self, entry: EntryIx, register: Register) {
        if register.view().is_blob() {
            self.with_blobs.replace(entry, true);
        }
        if let Some(known) = self.loose_mut(entry).and_then(|loose| loose.get_mut(register.field)) {
            *known = register;
            return;
        }
        self.expect(entry, register.stamp);
        let view = register.view();
        let spot = if let Kept::Packed(packed) = self.kept(entry) {
            packed.seek(view.field)
        } else {
            None
        };
        if self.is_alone(entry, &view) || !self.pack(entry, &view, spot.as_ref()) {
            self.loosen(entry, register);
        }
    }

    pub(super) fn remove(&mut self, entry: EntryIx, field: FieldIx) {
        self.retain(entry, |register| register.field != field);
    }

    /// Drops the registers of an entry that are not to be kept.
    pub(super) fn retain(&mut self, entry: EntryIx, keep: impl Fn(&RegisterView<'_>) -> bool) {
        if let Some(loose) = self.loose_mut(entry) {
            if !loose.retain(keep) {
                self.put_in_page(entry, &[]);
            }
            return;
        }
        let mut packer = std::mem::replace(&mut self.packer, Packer::new());
        let Kept::Packed(packed) = self.kept(entry) else { return };
        packer.begin(packed.frame, 0);
        let is_packed = packed
            .iter()
            .filter(&keep)
            .all(|register| packer.push(&register, &self.authors).is_some());
        let loose = if is_packed { None } else { Some(Box::new(Loose::of(packed))) };
        let all = 0..packed.bytes.len();
        self.packer = packer;
        if let Some(mut loose) = loose {
            loose.retain(keep);
            self.put_apart(entry, Apart::Loose(loose));
        } else {
            self.keep_packed(entry, all);
        }
    }

    /// Drops all registers of an entry.
    pub(super) fn clear(&mut self, entry: EntryIx) {
        self.put_in_page(entry, &[]);
    }

    /// The text in a field, to be spliced, if the life and stamp of its register are as asked, and the op
    /// that set it. Takes all registers of the entry out of the pack.
    #[inline]
    pub(super) fn text_mut(
        &mut self,
        entry: EntryIx,
        field: FieldIx,
        is_it: impl Fn((Life, Stamp)) -> bool,
    ) -> Option<(OpId, &mut Text)> {
        let known = self.apart_ix(entry).filter(|ix| self.apart[ix.at()].is_loose());
        let ix = if known.is_some() { known } else { self.unpack_text(entry, field, &is_it) };
        let Apart::Loose(loose) = &mut self.apart[ix?.at()] else { return None };
        let register = loose.get_mut(field).filter(|register| is_it(register.rank()))?;
        Some((register.stamp.op(), register.text_mut()?))
    }

    pub(super) fn is_empty(&self, entry: EntryIx) -> bool {
        let (page, slot) = place(entry);
        self.pages[page].slot(slot).is_empty()
    }

    pub(super) fn get(&self, entry: EntryIx, field: FieldIx) -> Option<RegisterView<'_>> {
        match self.kept(entry) {
            Kept::Packed(packed) => packed.register(&packed.seek(field)?),
            Kept::Loose(loose) => loose.get(field).map(Register::view),
        }
    }

    /// Whether an entry may hold a reference to a blob.
    pub(super) fn may_have_blob(&self, entry: EntryIx) -> bool {
        self.with_blobs.get(entry)
    }

    /// The life and stamp of a register.
    pub(super) fn rank(&self, entry: EntryIx, field: FieldIx) -> Option<(Life, Stamp)> {
        match self.kept(entry) {
            Kept::Packed(packed) => packed.seek(field)?.rank(),
            Kept::Loose(loose) => loose.get(field).map(Register::rank),
        }
    }

    /// All registers of an entry, in no particular order.
    pub(super) fn for_each<'a>(&'a self, entry: EntryIx, each: impl FnMut(RegisterView<'a>)) {
        match self.kept(entry) {
            Kept::Packed(packed) => packed.iter().for_each(each),
            Kept::Loose(loose) => loose.for_each(each),
        }
    }

    fn kept(&self, entry: EntryIx) -> Kept<'_> {
        let (page, slot) = place(entry);
        let page = &self.pages[page];
        let bytes = page.slot(slot);
        let bytes = match apart_of(bytes).map(|ix| &self.apart[ix.at()]) {
            None => bytes,
            Some(Apart::Packed(bytes)) => bytes,
            Some(Apart::Loose(loose)) => return Kept::Loose(loose),
        };
        let authors = &self.authors;
        Kept::Packed(Packed { bytes, frame: Frame { authors, expected: page.expected(authors) } })
    }

    #[inline]
    fn apart_ix(&self, entry: EntryIx) -> Option<ApartIx> {
        let (page, slot) = place(entry);
        apart_of(self.pages[page].slot(slot))
    }

    #[inline]
    fn loose_mut(&mut self, entry: EntryIx) -> Option<&mut Loose> {
        let ix = self.apart_ix(entry)?;
        match &mut self.apart[ix.at()] {
            Apart::Loose(loose) => Some(loose),
            Apart::Packed(_) => None,
        }
    }

    /// Whether a register would be all there is, and takes no memory of its own. Loose it takes some 75 bytes
    /// more, but a set only replaces it, and costs a quarter fewer instructions than one that packs.
    fn is_alone(&self, entry: EntryIx, register: &RegisterView<'_>) -> bool {
        register.is_scalar() && self.is_empty(entry)
    }

    /// Prepares the page of an entry for a register with this stamp, before its spot is looked for.
    fn expect(&mut self, entry: EntryIx, stamp: Stamp) {
        self.authors.number(stamp.replica);
        self.pages[place(entry).0].expect(stamp, &mut self.authors);
    }

    /// Sets a register if all can be packed then. Whether it was set.
    fn pack(&mut self, entry: EntryIx, register: &RegisterView<'_>, spot: Option<&Spot>) -> bool {
        let mut packer = std::mem::replace(&mut self.packer, Packer::new());
        let replaced = match self.kept(entry) {
            Kept::Packed(packed) => spot.and_then(|spot| packed.set(spot, register, &mut packer)),
            Kept::Loose(Loose::One(known)) => {
                let expected = self.pages[place(entry).0].expected(&self.authors);
                packer.begin(Frame { authors: &self.authors, expected }, 0);
                let known = packer.push(&known.view(), &self.authors);
                known.and_then(|()| packer.push(register, &self.authors)).map(|()| 0..0)
            }
            Kept::Loose(_) => None,
        };
        self.packer = packer;
        let is_packed = replaced.is_some();
        if let Some(replaced) = replaced {
            self.keep_packed(entry, replaced);
        }
        is_packed
    }

    /// Puts what was packed in place of some of the packed bytes of an entry, or of what it has loose.
    fn keep_packed(&mut self, entry: EntryIx, replaced: Range<usize>) {
        let (page, slot) = place(entry);
        let bytes = self.pages[page].slot(slot);
        let apart = apart_of(bytes);
        let before = match apart.map(|ix| &self.apart[ix.at()]) {
            None => bytes,
            Some(Apart::Packed(bytes)) => bytes,
            Some(Apart::Loose(_)) => &[],
        };
        let len = before.len() - replaced.len() + self.packer.bytes().len();
        if apart.is_none() && len <= SLOT_MAX {
            return self.pages[page].splice(slot, replaced, self.packer.bytes());
        }
        let (front, back) = (&before[..replaced.start], &before[replaced.end..]);
        let all = [front, self.packer.bytes(), back].concat();
        if len <= SLOT_MAX {
            self.put_in_page(entry, &all);
        } else {
            self.put_apart(entry, Apart::Packed(all.into()));
        }
    }

    /// Takes all registers of an entry out of the pack, if that of a field holds a text and is as asked.
    #[cold]
    fn unpack_text(
        &mut self,
        entry: EntryIx,
        field: FieldIx,
        is_it: &impl Fn((Life, Stamp)) -> bool,
    ) -> Option<ApartIx> {
        let Kept::Packed(packed) = self.kept(entry) else { return None };
        let spot = packed.seek(field).filter(|spot| spot.rank().is_some_and(is_it))?;
        packed.register(&spot)?.text()?;
        let loose = Box::new(Loose::of(packed));
        self.put_apart(entry, Apart::Loose(loose));
        self.apart_ix(entry)
    }

    /// Sets a register, and packs none.
    fn loosen(&mut self, entry: EntryIx, register: Register) {
        if let Some(loose) = self.loose_mut(entry) {
            return loose.insert(register);
        }
        let Kept::Packed(packed) = self.kept(entry) else { return };
        let loose = Box::new(Loose::with(packed, register));
        self.put_apart(entry, Apart::Loose(loose));
    }

    /// Puts these bytes into the slot of an entry, in place of all that it has.
    fn put_in_page(&mut self, entry: EntryIx, bytes: &[u8]) {
        if let Some(ix) = self.apart_ix(entry) {
            self.apart[ix.at()] = Apart::vacant();
            self.vacant.push(ix);
        }
        let (page, slot) = place(entry);
        let len = self.pages[page].slot(slot).len();
        self.pages[page].splice(slot, 0..len, bytes);
    }

    /// Puts something apart, in place of all that an entry has.
    fn put_apart(&mut self, entry: EntryIx, apart: Apart) {
        if let Some(ix) = self.apart_ix(entry) {
            self.apart[ix.at()] = apart;
            return;
        }
        let ix = if let Some(ix) = self.vacant.pop() {
            self.apart[ix.at()] = apart;
            ix
        } else {
            push_tightly(&mut self.apart, apart);
            ApartIx::new(self.apart.len() - 1)
        };
        let [a, b, c, d] = ix.raw().to_le_bytes();
        self.put_in_page(entry, &[NOT_PACKED, a, b, c, d]);
    }

    /// Panics if F1 to F3 do not hold, or an invariant of a page.
    pub(super) fn assert_invariants(&self, entries: impl Iterator<Item = EntryIx>) {
        self.authors.assert_invariants();
        self.pages.iter().for_each(Page::assert_invariants);
        let mut is_vacant = vec![true; self.apart.len()];
        for entry in entries {
            self.for_each(entry, |register| {
                assert!(!register.is_blob() || self.may_have_blob(entry), "F3: {entry:?}");
            });
            let Some(ix) = self.apart_ix(entry) else {
                let (page, slot) = place(entry);
                assert!(self.pages[page].slot(slot).len() <= SLOT_MAX, "F1: {entry:?}");
                continue;
            };
            assert!(std::mem::take(&mut is_vacant[ix.at()]), "F2: {entry:?}");
            match &self.apart[ix.at()] {
                Apart::Packed(bytes) => assert!(bytes.len() > SLOT_MAX, "F1: {entry:?}"),
                Apart::Loose(_) => {}
            }
        }
        assert_eq!(is_vacant.iter().filter(|is| **is).count(), self.vacant.len(), "F2");
        for ix in &self.vacant {
            assert!(is_vacant[ix.at()] && !self.apart[ix.at()].is_loose(), "F2: {ix:?}");
        }
    }
}

/// Where registers are of which these bytes are the slot, if they are not in it.
#[inline]
fn apart_of(slot: &[u8]) -> Option<ApartIx> {
    match slot {
        [NOT_PACKED, raw @ ..] => ApartIx::from_raw(u32::from_le_bytes(*raw.first_chunk()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
