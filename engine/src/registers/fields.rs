//! The registers of one entry, and the names of fields.
//!
//! Names are kept once for all entries, since the same few are in most of them. Registers are in no
//! order; whoever wants them in order sorts the few that there are.

use hashbrown::HashMap;

use crate::index::dense_index;
use crate::registers::Register;
use crate::value::Field;

dense_index! {
    /// Which field, in this replica alone.
    FieldIx
}

/// Every field that anything was set in.
#[derive(Clone, Debug)]
pub(crate) struct FieldNames {
    names: Vec<Field>,
    /// The index of each info field.
    index: HashMap<Field, FieldIx>,
}

impl FieldNames {
    const LABEL: FieldIx = FieldIx::new(0);
    const TYPE: FieldIx = FieldIx::new(1);
    pub(crate) const VALUE: FieldIx = FieldIx::new(2);

    pub(crate) fn new() -> Self {
        let names = vec![Field::Label, Field::Type, Field::Value];
        Self { names, index: HashMap::new() }
    }

    /// The index of a field, which may be named here for the first time.
    pub(crate) fn name(&mut self, field: &Field) -> FieldIx {
        if let Some(known) = self.find(field) {
            return known;
        }
        let ix = FieldIx::new(self.names.len());
        self.names.push(field.clone());
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
}

/// So many registers are searched one by one.
const FEW: usize = if cfg!(any(test, feature = "small-nodes")) { 2 } else { 16 };

/// The registers of one entry. Most entries have one or two, and few ever get more: so these take
/// exactly their room.
#[derive(Clone, Debug)]
pub(crate) enum Fields {
    Few(Box<[Register]>),
    Many(Box<HashMap<FieldIx, Register>>),
}

impl Default for Fields {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Fields {
    /// Sets a register, and returns the one before.
    pub(crate) fn insert(&mut self, register: Register) -> Option<Register> {
        if let Some(known) = self.get_mut(register.field) {
            return Some(std::mem::replace(known, register));
        }
        match self {
            Self::Few(few) => {
                let mut all = std::mem::take(few).into_vec();
                if all.len() < FEW {
                    all.reserve_exact(1);
                    all.push(register);
                    *few = all.into_boxed_slice();
                } else {
                    let all = all.into_iter().chain([register]);
                    *self = Self::Many(Box::new(all.map(|one| (one.field, one)).collect()));
                }
            }
            Self::Many(many) => drop(many.insert(register.field, register)),
        }
        None
    }

    pub(crate) fn remove(&mut self, field: FieldIx) {
        self.retain(|register| register.field != field);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Register) -> bool) {
        match self {
            Self::Few(few) => {
                let mut all = std::mem::take(few).into_vec();
                all.retain(keep);
                *few = all.into_boxed_slice();
            }
            Self::Many(many) => many.retain(|_, register| keep(register)),
        }
    }

    pub(crate) fn get(&self, field: FieldIx) -> Option<&Register> {
        match self {
            Self::Few(few) => few.iter().find(|register| register.field == field),
            Self::Many(many) => many.get(&field),
        }
    }

    pub(crate) fn get_mut(&mut self, field: FieldIx) -> Option<&mut Register> {
        match self {
            Self::Few(few) => few.iter_mut().find(|register| register.field == field),
            Self::Many(many) => many.get_mut(&field),
        }
    }

    /// All registers, in no particular order.
    pub(crate) fn for_each<'a>(&'a self, mut each: impl FnMut(&'a Register)) {
        match self {
            Self::Few(few) => few.iter().for_each(each),
            Self::Many(many) => many.values().for_each(&mut each),
        }
    }
}
