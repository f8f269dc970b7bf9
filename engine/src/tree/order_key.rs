//! Keys that put siblings in order and leave room between any two.
//!
//! A key made here is `gap ++ tag ++ number`: the shortest bytes that lie between the neighbours
//! (fractional indexing), six bytes unique to the author's run, and a 24-bit number that counts
//! along the run. Appending after one's own newest sibling only raises the number, and prepending
//! before it lowers it, so a run that one replica inserts forwards or backwards shares `gap ++ tag`
//! and no other replica's run can come between. Only a run that ends there goes on: where siblings that
//! went away left a hole in it, others would begin their runs among its free numbers, and so whoever
//! inserts there begins one too.
//! Plain fractional indexing gives two replicas the same midpoints and interleaves them.
//!
//! Keys compare as byte strings; equal keys tie by entry id.

use std::fmt;

use smallvec::SmallVec;

use crate::id::{EntryId, OpId};
use crate::limits::{ORDER_KEY_BYTES_GOAL, ORDER_KEY_BYTES_MAX};

/// Keys from here up are those of entries that show in Lost and Found without having been put there.
const RESCUED: u8 = 0xfe;
const TAG_BYTES: usize = 6;
const NUMBER_BYTES: usize = 3;
const NUMBER_MAX: u32 = 0x00ff_ffff;
/// Where a run begins: with room in both directions, and more forwards.
const NUMBER_FIRST: u32 = 0x0040_0001;
/// How far a run counts at a time: another run that begins between two of it has a shorter key.
const STEP: u32 = 16;

/// The longest gap prefix with which a key made by [`OrderKey::spread`] is not longer than the goal.
pub(crate) const SPREAD_HEAD_MAX: usize = ORDER_KEY_BYTES_GOAL - TAG_BYTES - 2 * NUMBER_BYTES;

/// Place of an entry among its siblings: 1 to 64 bytes that neither begin with `0xff` nor end with
/// zero, so that there is always room before and after.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(Bytes);

type Bytes = SmallVec<[u8; 16]>;

impl OrderKey {
    /// The key with these bytes, or `None` if there would be no room beside it.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > ORDER_KEY_BYTES_MAX {
            return None;
        }
        Some(Self(Bytes::from_slice(bytes))).filter(Self::has_room)
    }

    /// The key that begins as this one does, with `shared` bytes, and goes on with `rest`.
    pub(crate) fn with_rest(&self, shared: usize, rest: &[u8]) -> Option<Self> {
        let shared = self.0.get(..shared)?;
        if shared.len() + rest.len() > ORDER_KEY_BYTES_MAX {
            return None;
        }
        let mut bytes = Bytes::from_slice(shared);
        bytes.extend_from_slice(rest);
        Some(Self(bytes)).filter(Self::has_room)
    }

    /// Whether there is room beside the key.
    fn has_room(&self) -> bool {
        self.0.first().is_some_and(|first| *first <= RESCUED)
            && self.0.last().is_some_and(|last| *last != 0)
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The keys that Trash and Lost and Found have in Root before anybody reorders them.
    pub(crate) fn well_known(entry: EntryId) -> Self {
        let [.., last] = *entry.as_bytes();
        Self(SmallVec::from_slice(&[0x40 + last]))
    }

    /// The next key of the run that `key` belongs to, if that has one and nothing of it, nor of a run
    /// inside of it, comes behind: `hi` is what does.
    ///
    /// Only for a key that the same replica made, with whichever function here.
    pub(crate) fn following(key: &[u8], hi: Option<&[u8]>) -> Option<Self> {
        let (head, number) = split(key)?;
        let next = Self::assemble(head, not_zero_at_its_end(number + STEP));
        let is_end = hi.is_none_or(|hi| next.as_bytes() < hi && !hi.starts_with(head));
        (number < NUMBER_MAX - STEP && is_end).then_some(next)
    }

    /// The key before `key` in its run, if nothing of that comes before: `lo` is what does. As for
    /// [`Self::following`].
    pub(crate) fn preceding(key: &[u8], lo: Option<&[u8]>) -> Option<Self> {
        let (head, number) = split(key)?;
        let before = Self::assemble(head, not_zero_at_its_end(number.checked_sub(STEP)?));
        let is_start = lo.is_none_or(|lo| lo < before.as_bytes() && !lo.starts_with(head));
        is_start.then_some(before)
    }

    /// The next key of the run that this key looks like being of.
    pub(crate) fn successor(&self) -> Option<Self> {
        Self::following(&self.0, None).filter(Self::has_room)
    }

    /// The key before it in that run.
    pub(crate) fn predecessor(&self) -> Option<Self> {
        Self::preceding(&self.0, None).filter(Self::has_room)
    }

    /// A key between two neighbours that begins a run of its own, or `None` where there is no room
    /// for one of at most [`ORDER_KEY_BYTES_GOAL`] bytes.
    pub(crate) fn between(lo: Option<&[u8]>, hi: Option<&[u8]>, run: OpId) -> Option<Self> {
        let mut head = gap(lo, hi)?;
        if head.len() + TAG_BYTES + NUMBER_BYTES > ORDER_KEY_BYTES_GOAL {
            return None;
        }
        head.extend_from_slice(&tag(run));
        Some(Self::assemble(&head, NUMBER_FIRST))
    }

    /// The first key of the run that begins at `run`, between neighbours that share `head`.
    pub(crate) fn first_of_run(head: &[u8], run: OpId) -> Option<Self> {
        if head.len() + TAG_BYTES + NUMBER_BYTES > ORDER_KEY_BYTES_MAX {
            return None;
        }
        let mut bytes = Bytes::from_slice(head);
        bytes.extend_from_slice(&tag(run));
        Some(Self::assemble(&bytes, NUMBER_FIRST)).filter(Self::has_room)
    }

    /// What stands before the tag, if this is the first key of the run that begins at `run`.
    pub(crate) fn head_of_run(&self, run: OpId) -> Option<&[u8]> {
        let (head, number) = self.0.split_last_chunk::<NUMBER_BYTES>()?;
        let (head, found) = head.split_last_chunk::<TAG_BYTES>()?;
        let [_, first @ ..] = NUMBER_FIRST.to_be_bytes();
        (*number == first && *found == tag(run)).then_some(head)
    }

    /// Keys for `count` siblings between two neighbours, far apart, so that more go between any two;
    /// or `None` where the gap begins only after `head_max` bytes.
    pub(crate) fn spread(
        (lo, hi): (Option<&[u8]>, Option<&[u8]>),
        count: usize,
        run: OpId,
        head_max: usize,
    ) -> Option<Vec<Self>> {
        let head = gap(lo, hi)?;
        let count = u32::try_from(count).ok().filter(|count| *count < NUMBER_MAX)?;
        if head.len() > head_max {
            return None;
        }
        let step = NUMBER_MAX / (count + 1);
        let tag = tag(run);
        let key = |nth: u32| {
            let [_, place @ ..] = (nth * step).to_be_bytes();
            Self::assemble(&[head.as_slice(), &place, &tag].concat(), NUMBER_FIRST)
        };
        Some((1..=count).map(key).collect())
    }

    fn assemble(head: &[u8], number: u32) -> Self {
        let [_, number @ ..] = number.to_be_bytes();
        let mut bytes = SmallVec::from_slice(head);
        bytes.extend_from_slice(&number);
        Self(bytes)
    }
}

impl fmt::Debug for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The number, or the next one if a key may not end with it.
const fn not_zero_at_its_end(number: u32) -> u32 {
    if number & 0xff == 0 { number + 1 } else { number }
}

/// A key of a run without its number, and the number.
fn split(key: &[u8]) -> Option<(&[u8], u32)> {
    let gap = key.len().checked_sub(NUMBER_BYTES).filter(|gap| *gap > TAG_BYTES)?;
    let (head, number) = key.split_at(gap);
    Some((head, number.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))))
}

/// The key under which `entry` shows in Lost and Found without having been put there.
pub(crate) fn rescued_key(entry: EntryId) -> [u8; 17] {
    let mut key = [RESCUED; 17];
    key[1..].copy_from_slice(entry.as_bytes());
    key
}

/// Six bytes that no other run has, but for one chance in 2^48 a pair.
///
/// Nobody gains by making two alike but the one who makes both, so that they need to be far apart
/// and no more.
fn tag(run: OpId) -> [u8; TAG_BYTES] {
    let [tag @ .., _, _] = mix(mix(run.replica.as_u64()) ^ run.counter).to_be_bytes();
    tag
}

/// Numbers that differ in any bit give numbers that look unrelated; different ones stay different
/// (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", the variant in use).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The shortest bytes of which every continuation lies strictly between `lo` and `hi`.
///
/// Without `lo` there is nothing below, without `hi` nothing above but the rescued.
fn gap(lo: Option<&[u8]>, hi: Option<&[u8]>) -> Option<Bytes> {
    let below_rescued = lo.is_none_or(|lo| lo.first().is_none_or(|first| *first < RESCUED));
    let end = [if below_rescued { RESCUED } else { u8::MAX }];
    let (low, high) = (lo.unwrap_or_default(), hi.unwrap_or(&end));

    let shared = (0..high.len()).find(|at| low.get(*at).copied().unwrap_or(0) != high[*at])?;
    let (a, b) = (low.get(shared).copied().unwrap_or(0), high[shared]);
    if a > b {
        return None;
    }
    let mut head = Bytes::from_slice(&high[..shared]);
    if b - a >= 2 {
        head.push(match (lo, hi) {
            (Some(_), None) => a + 1,
            (None, Some(_)) => b - 1,
            _ => a + (b - a) / 2,
        });
        return Some(head);
    }
    // Adjacent bytes: stay just above `lo`, where nothing bounds from above any more.
    head.push(a);
    let mut rest = low.get(shared + 1..).unwrap_or_default().iter();
    loop {
        match rest.next().copied().unwrap_or(0) {
            u8::MAX => head.push(u8::MAX),
            byte => {
                head.push(byte + 1 + (u8::MAX - byte - 1) / 2);
                return Some(head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplicaId;
    use proptest::prelude::*;

    fn run(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    fn bytes(key: Option<&OrderKey>) -> Option<&[u8]> {
        key.map(OrderKey::as_bytes)
    }

    fn following(key: &OrderKey) -> Option<OrderKey> {
        OrderKey::following(key.as_bytes(), None)
    }

    fn any_key() -> impl Strategy<Value = OrderKey> {
        prop::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(0xfd), Just(0xfe), Just(0xff), any::<u8>()],
            1..12,
        )
        .prop_filter_map("no room", |bytes| OrderKey::new(&bytes))
    }

    proptest! {
        #[test]
        fn a_new_key_lies_strictly_between(a in any_key(), b in any_key(), n in 0u64..9) {
            let (lo, hi) = if a < b { (a, b) } else { (b, a) };
            for (lo, hi) in [(None, Some(&hi)), (Some(&lo), None), (Some(&lo), Some(&hi)), (None, None)] {
                if lo.is_some() && lo == hi { continue; }
                if let Some(key) = OrderKey::between(bytes(lo), bytes(hi), run(1, n)) {
                    prop_assert!(lo.is_none_or(|lo| *lo < key), "{lo:?} {key:?}");
                    prop_assert!(hi.is_none_or(|hi| key < *hi), "{key:?} {hi:?}");
                    prop_assert_eq!(OrderKey::new(key.as_bytes()), Some(key.clone()));
                }
            }
        }

        #[test]
        fn spread_keys_are_in_order_between_their_neighbours(a in any_key(), b in any_key(), n in 1usize..70) {
            let (lo, hi) = if a < b { (a, b) } else { (b, a) };
            for ends in [(None, Some(&hi)), (Some(&lo), None), (Some(&lo), Some(&hi)), (None, None)] {
                if ends.0.is_some() && ends.0 == ends.1 { continue; }
                let gap = (bytes(ends.0), bytes(ends.1));
                let Some(keys) = OrderKey::spread(gap, n, run(1, 0), SPREAD_HEAD_MAX) else { continue };
                prop_assert_eq!(keys.len(), n);
                prop_assert!(keys.is_sorted_by(|a, b| a < b));
                prop_assert!(ends.0.is_none_or(|lo| *lo < keys[0]));
                prop_assert!(ends.1.is_none_or(|hi| keys[n - 1] < *hi));
                prop_assert!(keys.iter().all(|key| key.as_bytes().len() <= ORDER_KEY_BYTES_GOAL));
                prop_assert!(keys.iter().all(|key| OrderKey::new(key.as_bytes()).is_some()));
            }
        }

        #[test]
        fn runs_of_two_replicas_do_not_interleave(lo in any_key(), n in 2usize..300) {
            let keys = |replica| {
                let first = OrderKey::between(bytes(Some(&lo)), None, run(replica, 0));
                std::iter::successors(first, following).take(n).collect::<Vec<_>>()
            };
            let (a, b) = (keys(1), keys(2));
            prop_assert!(a.is_sorted() && b.is_sorted());
            let apart = |a: &[OrderKey], b: &[OrderKey]| a.last() < b.first();
            prop_assert!(apart(&a, &b) || apart(&b, &a));
        }

        #[test]
        fn runs_backwards_do_not_interleave_either(lo in any_key(), n in 2usize..300) {
            let keys = |replica| {
                let first = OrderKey::between(bytes(Some(&lo)), None, run(replica, 0));
                let before = |key: &OrderKey| OrderKey::preceding(key.as_bytes(), bytes(Some(&lo)));
                std::iter::successors(first, before).take(n).collect::<Vec<_>>()
            };
            let (a, b) = (keys(1), keys(2));
            prop_assert!([&a, &b].iter().all(|keys| keys.len() == n && keys.is_sorted_by(|x, y| x > y)));
            prop_assert!(a.iter().all(|key| OrderKey::new(key.as_bytes()).is_some()));
            let apart = |a: &[OrderKey], b: &[OrderKey]| a.first() < b.last();
            prop_assert!(apart(&a, &b) || apart(&b, &a));
        }
    }

    #[test]
    fn a_run_counts_on_past_keys_that_would_end_with_zero() {
        let mut key = OrderKey::between(None, None, run(1, 0)).unwrap();
        for _ in 0..70_000 {
            let next = following(&key).unwrap();
            assert!(key < next && OrderKey::new(next.as_bytes()).is_some());
            key = next;
        }
    }

    #[test]
    fn no_key_fits_between_equals_or_below_a_prefix_with_zero() {
        assert_eq!(OrderKey::between(Some(&[5]), Some(&[5]), run(1, 0)), None);
        assert_eq!(OrderKey::between(Some(&[5]), Some(&[5, 0]), run(1, 0)), None);
    }

    #[test]
    fn keys_without_room_beside_them_are_refused() {
        assert_eq!(OrderKey::new(&[]), None);
        assert_eq!(OrderKey::new(&[1, 0]), None);
        assert_eq!(OrderKey::new(&[0xff, 1]), None);
        assert!(OrderKey::new(&[1; ORDER_KEY_BYTES_MAX]).is_some());
        assert_eq!(OrderKey::new(&[1; ORDER_KEY_BYTES_MAX + 1]), None);
    }
}
