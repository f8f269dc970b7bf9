//! An entry's state as a record, and the join of a record into it.

use smallvec::SmallVec;

use super::{
    Content, ContentView, EntryState, FieldIx, FieldMap, FieldNames, Lives, Register, RegisterView,
    States, Touch,
};
use crate::delta::Watch;
use crate::entries::EntryIx;
use crate::id::{Life, Stamp};
use crate::state::{ContentRecord, EntryRecord, FieldRecord, LifeRecord, RunRecord, TextRecord};
use crate::text::{Fate, Piece, Sides, Text, pieces_of};
use crate::value::char_count;

impl<'a> EntryState<'a> {
    /// The lives that ops touched.
    pub(crate) fn life_records(self) -> SmallVec<[LifeRecord; 1]> {
        self.states.lives.records(self.entry)
    }

    /// What the fields hold.
    pub(crate) fn field_records(self, names: &FieldNames) -> SmallVec<[FieldRecord<'a>; 3]> {
        let mut records: SmallVec<[FieldRecord<'_>; 3]> = SmallVec::new();
        self.each_register(|register| {
            records.push(FieldRecord {
                field: register.field,
                life: register.life,
                set: register.stamp.op(),
                content: register.content.record(),
            });
        });
        records.sort_unstable_by_key(|one| names.field(one.field));
        records
    }
}

impl States {
    /// Takes in what another replica knows of an entry.
    pub(crate) fn join(
        &mut self,
        (entry, record): (EntryIx, &EntryRecord<'_>),
        map: &FieldMap,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) {
        if record.life > self.get(entry).life() || !self.get(entry).is_touched() {
            self.note_all(entry, watch);
        }
        self.begin_life(entry, record.life);
        self.lives.change(entry, |lives| {
            if !lives.is_known() {
                *lives = Lives::None(Life::FIRST);
            }
            for one in &record.lives {
                // Which op created an item decides nothing; of links the newest counts.
                let stamp = one.creation.op().map_or(Stamp::ZERO, sides.clock);
                let touch = Touch { life: one.life, creates: one.creation.kind(), stamp };
                if lives.is_changed_by(&touch) {
                    lives.touch(&touch);
                }
            }
        });
        let life = self.get(entry).life();
        let fields = record.fields.iter().filter(|one| one.life >= life);
        let is_fresh = self.fields.is_empty(entry) && fields.clone().nth(1).is_some();
        if is_fresh && self.fill((entry, fields.clone()), map, sides, watch) {
            return;
        }
        fields.for_each(|one| self.join_field((entry, one), map, sides, watch));
    }

    /// Sets a few fields at once, where none is set and no text was spliced. Whether it could be done.
    fn fill<'a>(
        &mut self,
        (entry, fields): (EntryIx, impl Iterator<Item = &'a FieldRecord<'a>> + Clone),
        map: &FieldMap,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) -> bool {
        if watch.notes_fields() {
            for one in fields.clone() {
                let field = map.ours(one.field);
                watch.note_field(entry, field, || self.get(entry).shown_value(field));
            }
        }
        let registers = fields.map(|one| {
            let ContentRecord::Value(value) = one.content else { return None };
            let (stamp, field) = ((sides.clock)(one.set), map.ours(one.field));
            let content = ContentView::Value(value);
            Some(RegisterView { stamp, life: one.life, field, content })
        });
        self.fields.fill(entry, registers)
    }

    fn join_field(
        &mut self,
        (entry, record): (EntryIx, &FieldRecord<'_>),
        map: &FieldMap,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) {
        let field = map.ours(record.field);
        let stamp = (sides.clock)(record.set);
        let known = self.fields.rank(entry, field);
        if known.is_some_and(|known| known >= (record.life, stamp)) {
            if known == Some((record.life, stamp))
                && let ContentRecord::Text(theirs) = &record.content
            {
                self.join_text((entry, field), theirs, sides, watch);
            }
            return;
        }
        watch.note_field(entry, field, || self.get(entry).shown_value(field));
        let life = record.life;
        match &record.content {
            ContentRecord::Value(value) => {
                let content = ContentView::Value(*value);
                let register = RegisterView { stamp, life, field, content };
                drop(self.fields.set(entry, &register, false));
            }
            ContentRecord::Text(text) => {
                let content = Content::Spliced(Box::new(Text::from_pieces(pieces_of(text))));
                self.fields.insert(entry, Register { stamp, content, life, field });
            }
        }
    }

    fn join_text(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        theirs: &TextRecord,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) {
        if self.is_watched(entry, field, watch) {
            watch.note_text(entry, field, || self.get(entry).shown_value(field));
        }
        if let Some((_, mine)) = self.fields.text_mut(entry, field, |_| true) {
            *mine = mine.join(theirs, sides);
        }
    }
}

impl<'a> ContentView<'a> {
    fn record(self) -> ContentRecord<'a> {
        match self {
            Self::Value(value) => ContentRecord::Value(value),
            Self::Spliced(text) => ContentRecord::Text(record_of(text)),
        }
    }
}

fn record_of(text: &Text) -> TextRecord {
    let mut record = TextRecord::default();
    for Piece { first, fate } in text.pieces() {
        let (len, is_deleted) = match fate {
            Fate::Visible(shown) => {
                record.text.push_str(shown);
                (char_count(shown), false)
            }
            Fate::Deleted(len) => (len, true),
        };
        match record.runs.last_mut() {
            Some(last) if last.first.plus(last.len) == first && last.is_deleted == is_deleted => {
                last.len += len;
            }
            _ => record.runs.push(RunRecord { first, len, is_deleted }),
        }
    }
    record
}
