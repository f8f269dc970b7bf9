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
                Self(std::num::NonZeroU32::MIN.saturating_add(at as u32))
            }

            /// Where the element is.
            pub(crate) const fn at(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

pub(crate) use dense_index;
