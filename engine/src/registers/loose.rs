//! Registers that are not packed: where one holds much, or a text that is being spliced; or where one
//! is all there is and takes no memory of its own, which is set faster so.
//!
//! They are in no order; whoever wants them in order sorts the few that there are.

use hashbrown::HashMap;

use super::packed::Packed;
use super::{FieldIx, Register, RegisterView};

/// So many registers are searched one by one.
const FEW: usize = if cfg!(any(test, feature = "small-nodes")) { 2 } else { 16 };

/// The registers of one entry, at least one.
#[derive(Clone, Debug)]
pub(super) enum Loose {
    One(Register),
    Few(Vec<Register>),
    Many(HashMap<FieldIx, Register>),
}

impl Loose {
    /// A register, besides those that are packed.
    pub(super) fn with(packed: Packed<'_>, register: Register) -> Self {
        if packed.is_empty() {
            return Self::One(register);
        }
        let mut loose = Self::of(packed);
        loose.insert(register);
        loose
    }

    /// What was packed.
    pub(super) fn of(packed: Packed<'_>) -> Self {
        let mut loose = Self::Few(Vec::new());
        packed.iter().for_each(|register| loose.insert(register.to_register()));
        loose
    }

    pub(super) fn insert(&mut self, register: Register) {
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

    /// Drops the registers that are not to be kept. Whether any is left.
    pub(super) fn retain(&mut self, keep: impl Fn(&RegisterView<'_>) -> bool) -> bool {
        match self {
            Self::One(one) => keep(&one.view()),
            Self::Few(few) => {
                few.retain(|register| keep(&register.view()));
                !few.is_empty()
            }
            Self::Many(many) => {
                many.retain(|_, register| keep(&register.view()));
                !many.is_empty()
            }
        }
    }

    pub(super) fn get(&self, field: FieldIx) -> Option<&Register> {
        match self {
            Self::One(one) => Some(one).filter(|one| one.field == field),
            Self::Few(few) => few.iter().find(|register| register.field == field),
            Self::Many(many) => many.get(&field),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, field: FieldIx) -> Option<&mut Register> {
        match self {
            Self::One(one) => Some(one).filter(|one| one.field == field),
            Self::Few(few) => few.iter_mut().find(|register| register.field == field),
            Self::Many(many) => many.get_mut(&field),
        }
    }

    /// All registers, in no particular order.
    pub(super) fn for_each<'a>(&'a self, mut each: impl FnMut(RegisterView<'a>)) {
        match self {
            Self::One(one) => each(one.view()),
            Self::Few(few) => few.iter().map(Register::view).for_each(each),
            Self::Many(many) => many.values().for_each(|register| each(register.view())),
        }
    }
}
