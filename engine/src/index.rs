//! Dense indexes of what is kept in an arena: four bytes, an `Option` of them too.
//!
//! They depend on the order of arrival, so they never decide a merge and never reach a byte or a
//! digest.

/// Declares an index of its own type, so that one arena's is not taken for another's.
macro_rules! dense_index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(std::num::NonZeroU32);

        impl $name {
            /// The index of the element at `at`.
            pub(crate) const fn new(at: usize) -> Self {
                assert!(at < u32::MAX as usize, "an arena of four thousand million elements");
                #[expect(clippy::cast_possible_truncation, reason = "checked above")]
                Self::from_raw(at as u32 + 1).expect("one more than something")
            }

            /// The index behind [`Self::raw`]; none for zero.
            pub(crate) const fn from_raw(raw: u32) -> Option<Self> {
                match std::num::NonZeroU32::new(raw) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The index as a number that is never zero.
            pub(crate) const fn raw(self) -> u32 {
                self.0.get()
            }

            /// Where the element is.
            pub(crate) const fn at(self) -> usize {
                self.raw() as usize - 1
            }
        }
    };
}

pub(crate) use dense_index;

/// Adds an element. An arena grows by a quarter rather than to twice its size: there is one for each
/// thing known of an entry, and together they are most of what a replica takes.
pub(crate) fn push_tightly<T>(arena: &mut Vec<T>, element: T) {
    grow_tightly(arena, 1);
    arena.push(element);
}

/// Adds default elements up to so many; see [`push_tightly`].
pub(crate) fn fill_tightly<T: Default>(arena: &mut Vec<T>, len: usize) {
    if let Some(more) = len.checked_sub(arena.len()) {
        grow_tightly(arena, more);
        arena.resize_with(len, T::default);
    }
}

/// Gives back what an arena has too much of, but for a little, so that the next few elements do not
/// have to move everything.
pub(crate) fn trim<T>(arena: &mut Vec<T>) {
    const SPARE: usize = 128;
    arena.shrink_to(arena.len() + arena.len() / SPARE);
}

fn grow_tightly<T>(arena: &mut Vec<T>, more: usize) {
    const SMALL: usize = 64;
    if arena.capacity() - arena.len() < more {
        arena.reserve_exact(more.max(arena.len() / 4).max(SMALL));
    }
}
