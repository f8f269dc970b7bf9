//! How much of what others send may be in memory at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room that streams share: of a connection, of somebody.
#[derive(Debug)]
pub struct SharedRoom {
    /// For large frames that have begun.
    begun: Arc<Semaphore>,
    /// For frames that have come, until what they ask for is done.
    arrived: Arc<Semaphore>,
    arrived_max: u32,
}

impl SharedRoom {
    /// So many bytes for large frames that have begun, and for frames that have come.
    #[must_use]
    pub fn new(begun: u32, arrived: u32) -> Self {
        let semaphore = |bytes: u32| Arc::new(Semaphore::new(bytes as usize));
        Self { begun: semaphore(begun), arrived: semaphore(arrived), arrived_max: arrived }
    }
}

/// The room that a stream has for what comes on it.
///
/// A large frame that finds no room is refused at once: if it waited, what it has on its way could keep
/// those from coming whose end it waits for. A frame that has come waits, as what is before it needs
/// nothing further of the other side.
#[derive(Clone, Debug)]
pub struct InputRoom {
    free: usize,
    shared: Vec<Arc<SharedRoom>>,
}

impl InputRoom {
    /// Room for frames of at most `free` bytes, and for larger ones as far as all of `shared` have it.
    #[must_use]
    pub const fn new(free: usize, shared: Vec<Arc<SharedRoom>>) -> Self {
        Self { free, shared }
    }

    /// How many bytes a frame may have that needs no room, as long as it has not come.
    pub(super) const fn free(&self) -> usize {
        self.free
    }

    /// Takes room for a frame that has begun; none if there is none.
    pub(super) fn begin(&self, bytes: usize) -> Option<FrameRoom> {
        let bytes = u32::try_from(bytes).ok()?;
        let take =
            |shared: &Arc<SharedRoom>| Arc::clone(&shared.begun).try_acquire_many_owned(bytes).ok();
        self.shared.iter().map(take).collect::<Option<_>>().map(FrameRoom)
    }

    /// Waits for room for a frame that has come. The largest takes all there is.
    pub(super) async fn hold(&self, bytes: usize) -> FrameRoom {
        let mut room = FrameRoom::default();
        for shared in &self.shared {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(shared.arrived_max);
            // Nobody closes a semaphore, so nothing goes without room.
            room.0.extend(Arc::clone(&shared.arrived).acquire_many_owned(bytes).await.ok());
        }
        room
    }
}

/// Room that frames take, until it is dropped.
#[derive(Debug, Default)]
pub struct FrameRoom(Vec<OwnedSemaphorePermit>);

impl FrameRoom {
    /// Adds `other`, which has room of the same.
    pub(super) fn merge(&mut self, other: Self) {
        for permit in other.0 {
            let alike = |known: &&mut OwnedSemaphorePermit| {
                Arc::ptr_eq(known.semaphore(), permit.semaphore())
            };
            match self.0.iter_mut().find(alike) {
                Some(known) => known.merge(permit),
                None => self.0.push(permit),
            }
        }
    }
}

/// The bound for the frames of a stream, which can be changed while somebody else reads it.
#[derive(Clone, Debug)]
pub struct FrameBound(pub(super) Arc<std::sync::atomic::AtomicUsize>);

impl FrameBound {
    /// Changes the bound for the frames to come.
    pub fn set(&self, max: usize) {
        self.0.store(max, std::sync::atomic::Ordering::Relaxed);
    }
}
