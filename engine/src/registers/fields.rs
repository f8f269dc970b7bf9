//! The registers of one entry, and the names of fields.
//!
//! Names are kept once for all entries, since the same few are in most of them. Registers are in no
//! order; whoever wants them in order sorts the few that there are.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::id::{Life, Stamp};
use crate::index::dense_index;
use crate::registers::packed::{HEAD_BYTES, Packed};
use crate::registers::{Register, RegisterView};
use crate::text::Text;
use crate::value::Field;

dense_index! {
    /// Which field, in this replica alone.
    FieldIx
}

/// Every field that anything was set in.
#[derive(Clone, Debug)]
pub(crate) struct FieldNames {
    names: Vec<Arc<Field>>,
    /// The index of each info field.
    index: HashMap<Field, FieldIx>,
}

impl FieldNames {
    const LABEL: FieldIx = FieldIx::new(0);
    const TYPE: FieldIx = FieldIx::new(1);
    pub(crate) const VALUE: FieldIx = FieldIx::new(2);

    pub(crate) fn new() -> Self {
        let names = [Field::Label, Field::Type, Field::Value].map(Arc::new).into();
        Self { names, index: HashMap::new() }
    }

    /// The index of a field, which may be named here for the first time.
    pub(crate) fn name(&mut self, field: &Field) -> FieldIx {
        if let Some(known) = self.find(field) {
            return known;
        }
        let ix = FieldIx::new(self.names.len());
        self.names.push(Arc::new(field.clone()));
        self.index.insert(field.clone(), ix);
        ix
    }

    /// The index of a field, if it has been named.
    pub(crate) fn find(&self, field: &Field) -> Option<FieldIx> {
        match field {
            Field::Label => Some(Self::LABEL),
            Field::Type => Some(Self::TYPE),
            Field::Value => Some(Self::VALUE),
            Field::Info(_) => self.index.get(field).copied(),
        }
    }

    pub(crate) fn field(&self, ix: FieldIx) -> &Field {
        &self.names[ix.at()]
    }

    /// The same, to keep.
    pub(super) fn shared(&self, ix: FieldIx) -> Arc<Field> {
        self.names[ix.at()].clone()
    }
}

/// So many registers are searched one by one.
const FEW: usize = if cfg!(any(test, feature = "small-nodes")) { 2 } else { 16 };

/// The registers of one entry. Most entries have a few small ones, which are packed.
#[derive(Clone, Debug)]
pub(super) enum Fields {
    Packed(Packed),
    /// Where one holds much, or a text that is being spliced; or where one is all there is, and so
    /// small that packing would save next to nothing.
    Loose(Box<Loose>),
}

#[derive(Clone, Debug)]
pub(super) enum Loose {
    One(Register),
    Few(Vec<Register>),
    Many(HashMap<FieldIx, Register>),
}

impl Default for Fields {
    fn default() -> Self {
        Self::Packed(Packed::default())
    }
}

impl Fields {
    /// These registers, each of another field, if all are there and can be packed. Their values have so
    /// many bytes.
    pub(super) fn of<'a>(
        registers: impl Iterator<Item = Option<RegisterView<'a>>>,
        values_size: usize,
    ) -> Option<Self> {
        Packed::of(registers, HEAD_BYTES + values_size).map(Self::Packed)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Packed(packed) if packed.is_empty())
    }

    /// Sets a register.
    pub(crate) fn set(&mut self, register: &RegisterView<'_>) {
        if let Self::Loose(loose) = self
            && let Some(known) = loose.get_mut(register.field)
        {
            *known = register.to_register();
        } else if !self.pack(register) {
            self.loosen(register.to_register());
        }
    }

    /// The same; returns the register before.
    pub(crate) fn replace(&mut self, register: &RegisterView<'_>) -> Option<Register> {
        if let Self::Loose(loose) = self
            && let Some(known) = loose.get_mut(register.field)
        {
            return Some(std::mem::replace(known, register.to_register()));
        }
        let before = self.get(register.field).map(RegisterView::to_register);
        self.set(register);
        before
    }

    /// The same where the register is there already.
    pub(crate) fn insert(&mut self, register: Register) {
        if let Self::Loose(loose) = self
            && let Some(known) = loose.get_mut(register.field)
        {
            *known = register;
        } else if !self.pack(&register.view()) {
            self.loosen(register);
        }
    }

    /// Sets a register if all can be packed then, and are worth it. Whether it was set.
    fn pack(&mut self, register: &RegisterView<'_>) -> bool {
        match self {
            Self::Packed(packed) if packed.is_empty() && register.is_scalar() => false,
            Self::Packed(packed) => packed.set(register),
            Self::Loose(loose) => {
                let Loose::One(known) = &**loose else { return false };
                let size = 2 * HEAD_BYTES + register.size();
                let packed = Packed::of([Some(known.view()), Some(*register)].into_iter(), size);
                let is_packed = packed.is_some();
                if let Some(packed) = packed {
                    *self = Self::Packed(packed);
                }
                is_packed
            }
        }
    }

    /// Sets a register, and packs none.
    fn loosen(&mut self, register: Register) {
        match self {
            Self::Packed(packed) if packed.is_empty() => {
                *self = Self::Loose(Box::new(Loose::One(register)));
            }
            Self::Packed(packed) => {
                let mut loose = Loose::of(packed);
                loose.insert(register);
                *self = Self::Loose(Box::new(loose));
            }
            Self::Loose(loose) => loose.insert(register),
        }
    }

    pub(crate) fn remove(&mut self, field: FieldIx) {
        self.retain(|register| register.field != field);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&RegisterView<'_>) -> bool) {
        match self {
            Self::Packed(packed) => {
                if packed.iter().all(|register| keep(&register)) {
                    return;
                }
                if let Some(kept) = packed.filtered(&keep) {
                    *packed = kept;
                } else {
                    *self = Self::Loose(Box::new(Loose::of(packed)));
                    self.retain(keep);
                }
            }
            Self::Loose(loose) => match &mut **loose {
                Loose::One(one) if keep(&one.view()) => {}
                Loose::One(_) => *self = Self::default(),
                Loose::Few(few) => few.retain(|register| keep(&register.view())),
                Loose::Many(many) => many.retain(|_, register| keep(&register.view())),
            },
        }
    }

    pub(crate) fn get(&self, field: FieldIx) -> Option<RegisterView<'_>> {
        match self {
            Self::Packed(packed) => packed.get(field),
            Self::Loose(loose) => loose.get(field).map(Register::view),
        }
    }

    /// A register that may be missing if it holds a text, none of which is looked at.
    pub(super) fn get_other(&self, field: FieldIx) -> Option<RegisterView<'_>> {
        match self {
            Self::Packed(packed) => packed.get_other(field),
            Self::Loose(loose) => loose.get(field).map(Register::view),
        }
    }

    /// The life and stamp of a register.
    pub(super) fn rank(&self, field: FieldIx) -> Option<(Life, Stamp)> {
        match self {
            Self::Packed(packed) => packed.rank(field),
            Self::Loose(loose) => loose.get(field).map(|register| (register.life, register.stamp)),
        }
    }

    /// The text in a field, to be spliced, which takes all out of the pack.
    #[inline]
    pub(crate) fn text_mut(&mut self, field: FieldIx) -> Option<&mut Text> {
        if let Self::Packed(packed) = self {
            packed.get(field)?.text()?;
            *self = Self::Loose(Box::new(Loose::of(packed)));
        }
        match self {
            Self::Loose(loose) => loose.get_mut(field)?.text_mut(),
            Self::Packed(_) => None,
        }
    }

    /// All registers, in no particular order.
    pub(crate) fn for_each<'a>(&'a self, mut each: impl FnMut(RegisterView<'a>)) {
        match self {
            Self::Packed(packed) => packed.iter().for_each(each),
            Self::Loose(loose) => match &**loose {
                Loose::One(one) => each(one.view()),
                Loose::Few(few) => few.iter().map(Register::view).for_each(each),
                Loose::Many(many) => many.values().for_each(|register| each(register.view())),
            },
        }
    }
}

impl Loose {
    fn of(packed: &Packed) -> Self {
        let mut loose = Self::Few(Vec::new());
        packed.iter().for_each(|register| loose.insert(register.to_register()));
        loose
    }

    fn insert(&mut self, register: Register) {
        if let Some(known) = self.get_mut(register.field) {
            *known = register;
            return;
        }
        match self {
            Self::One(_) => {
                let Self::One(one) = std::mem::replace(self, Self::Few(Vec::new())) else { return };
                *self = Self::Few(vec![one, register]);
            }
            Self::Few(few) if few.len() < FEW => {
                few.reserve_exact(1);
                few.push(register);
            }
            Self::Few(few) => {
                let all = few.drain(..).chain([register]);
                *self = Self::Many(all.map(|one| (one.field, one)).collect());
            }
            Self::Many(many) => drop(many.insert(register.field, register)),
        }
    }

    fn get(&self, field: FieldIx) -> Option<&Register> {
        match self {
            Self::One(one) => Some(one).filter(|one| one.field == field),
            Self::Few(few) => few.iter().find(|register| register.field == field),
            Self::Many(many) => many.get(&field),
        }
    }

    fn get_mut(&mut self, field: FieldIx) -> Option<&mut Register> {
        match self {
            Self::One(one) => Some(one).filter(|one| one.field == field),
            Self::Few(few) => few.iter_mut().find(|register| register.field == field),
            Self::Many(many) => many.get_mut(&field),
        }
    }
}
