//! Registers of a few entries, set and dropped at random, against a map.

use std::collections::BTreeMap;

use super::super::ContentView;
use super::*;
use crate::id::ReplicaId;
use crate::value::Value;

/// Numbers that look random, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }

    /// A register of a few fields, authors and lives, and of any size.
    fn register(&mut self) -> Register {
        let replica = ReplicaId::new(1 + self.below(6)).unwrap();
        let (lamport, counter) = (self.below(1 << 20), self.below(1 << 50));
        let value = match self.below(3) {
            0 => Value::Int(self.below(9).cast_signed()),
            1 => Value::Text("x".repeat(usize::try_from(self.below(30)).unwrap())),
            _ => Value::Bytes(vec![0; usize::try_from(self.below(80)).unwrap()]),
        };
        let content = ContentView::Value(value.view());
        let life = Life::new(u32::try_from(self.below(2)).unwrap()).unwrap();
        let field = FieldIx::new(usize::try_from(self.below(5)).unwrap());
        let stamp = Stamp { lamport, replica, counter };
        RegisterView { stamp, life, field, content }.to_register()
    }
}

#[test]
fn fields_hold_what_was_set_last_however_they_are_kept() {
    type Known = BTreeMap<(EntryIx, FieldIx), ((Life, Stamp), Value)>;
    let entries = || (0..7).map(EntryIx::new);
    let (mut fields, mut known, mut dice) = (Fields::new(), Known::new(), Dice(1));
    entries().for_each(|entry| fields.grow(entry));
    for _ in 0..5_000 {
        let entry = EntryIx::new(usize::try_from(dice.below(7)).unwrap());
        let register = dice.register();
        let (field, rank, value) = (register.field, register.rank(), register.view().value());
        match dice.below(8) {
            0 => {
                fields.remove(entry, field);
                known.remove(&(entry, field));
            }
            1 => {
                fields.clear(entry);
                known.retain(|(of, _), _| *of != entry);
            }
            2 => drop(fields.text_mut(entry, field, |_| true)),
            3 => fields.trim(),
            _ => {
                let before = known.get(&(entry, field)).cloned();
                let is_beaten = before.as_ref().is_some_and(|(before, _)| *before > rank);
                match fields.set(entry, &register.view(), true) {
                    Setting::Beaten => assert!(is_beaten),
                    Setting::Set(found) => {
                        let found = found.map(|one| (one.rank(), one.view().value()));
                        assert_eq!((found, false), (before, is_beaten));
                        known.insert((entry, field), (rank, value));
                    }
                }
            }
        }
        fields.assert_invariants(entries());
        let mut found = Known::new();
        for entry in entries() {
            fields.for_each(entry, |one| {
                let field = one.field;
                assert_eq!(fields.rank(entry, field), Some(one.rank()));
                assert_eq!(fields.get(entry, field).map(RegisterView::value), Some(one.value()));
                found.insert((entry, field), (one.rank(), one.value()));
            });
        }
        assert_eq!(found, known);
    }
}
