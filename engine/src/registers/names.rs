//! The names of fields: once for all entries, since the same few are in most of them.

use hashbrown::HashMap;

use crate::index::dense_index;
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
    pub(super) const LABEL: FieldIx = FieldIx::new(0);
    const TYPE: FieldIx = FieldIx::new(1);
    pub(crate) const VALUE: FieldIx = FieldIx::new(2);

    pub(crate) fn new() -> Self {
        Self { names: [Field::Label, Field::Type, Field::Value].into(), index: HashMap::new() }
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

/// The fields of a state by what it calls them, as they are called here.
#[derive(Debug, Default)]
pub(crate) struct FieldMap(Vec<FieldIx>);

impl FieldMap {
    /// Takes in the fields that are new among theirs.
    #[inline]
    pub(crate) fn learn(&mut self, theirs: &FieldNames, ours: &mut FieldNames) {
        for field in &theirs.names[self.0.len()..] {
            self.0.push(ours.name(field));
        }
    }

    pub(super) fn ours(&self, theirs: FieldIx) -> FieldIx {
        self.0[theirs.at()]
    }
}
