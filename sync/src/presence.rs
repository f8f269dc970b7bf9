//! Who else is here, under which name and colour, and where in the store: shown at once, and never
//! kept.
//!
//! - [`PresenceState`]: what somebody shows of themselves.
//! - [`PresenceSender`]: when to say it; [`PresenceTable`]: who is here, as far as one has heard.
//! - [`PresenceRoom`]: what the side that serves a store passes on to whom.
//!
//! All of it without socket or clock. A state travels as a datagram while it changes, since only the
//! newest counts, and once more on the stream when it has come to rest, so that nothing lost keeps
//! others from seeing it. Each has a clock that counts up, and older ones are passed over. Whoever is
//! not heard of for [`PRESENCE_TIMEOUT`](crate::limits::PRESENCE_TIMEOUT) is gone.

//!
//! ```
//! use sds_engine::ReplicaId;
//! use sds_store::{DataStore, EntryId, TextField};
//! use sds_sync::presence::{Cursor, Focus, FocusProperty, PresenceState};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut store = DataStore::new(ReplicaId::new(1).ok_or("zero")?);
//! let note = store.new_item_at(None, EntryId::ROOT, None)?;
//! store.write_value(note, "milk, bread")?;
//! let cursor = Cursor::of(&store, note, TextField::Value, 4..4)?;
//! let focus = Focus { entry: note, property: FocusProperty::Value, cursor: Some(cursor.clone()) };
//! let name = Some("Ann".to_owned());
//! // For `SyncEngine::set_presence_to`.
//! let state = PresenceState { name, focus: Some(focus), ..PresenceState::default() };
//!
//! // On every copy of the store the cursor stays behind the milk.
//! store.change_value(note, 0..0, "oat ")?;
//! assert_eq!(cursor.range(&store), Some(8..8));
//! # drop(state);
//! # Ok(())
//! # }
//! ```

mod room;
mod sender;
mod state;
mod table;

pub use room::{PresenceNews, PresenceRoom};
pub use sender::{PresenceMessage, PresenceSender};
pub use state::{Cursor, Focus, FocusProperty, PresenceState, PresenceTooLarge};
pub use table::{PeerPresence, PresenceEvent, PresenceTable};

/// Somebody who has a store open, as the serving side names them: one for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl PeerId {
    /// The id of this number; 0 is none.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// An id that nobody else has.
    #[must_use]
    pub fn random() -> Self {
        Self(crate::random::number().max(1))
    }
}

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
