//! How much of what others send, and of what they are sent, may be in memory at a time.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes at a time.
#[derive(Debug)]
pub(super) struct Pool {
    /// Made when somebody first takes some: most connections are quiet.
    free: OnceLock<Arc<Semaphore>>,
    max: u32,
}

impl Pool {
    pub(super) const fn new(max: u32) -> Self {
        Self { free: OnceLock::new(), max }
    }

    fn free(&self) -> Arc<Semaphore> {
        Arc::clone(self.free.get_or_init(|| Arc::new(Semaphore::new(self.max as usize))))
    }

    fn try_take(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        self.free().try_acquire_many_owned(bytes).ok()
    }

    /// Waits for room. The largest takes all there is.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.max);
        // Nobody closes a semaphore, so nothing goes without room.
        self.free().acquire_many_owned(bytes).await.ok()
    }
}

/// How many bytes streams may have in memory that share a room.
#[derive(Clone, Copy, Debug)]
pub struct RoomBytes {
    /// Of large frames that have begun.
    pub begun: u32,
    /// Of frames that have come, until what they ask for is done.
    pub arrived: u32,
    /// Of large frames that are to go out, until they have.
    pub leaving: u32,
}

/// Room that streams share: of a connection, of somebody.
#[derive(Debug)]
pub struct SharedRoom {
    begun: Pool,
    arrived: Pool,
    leaving: Pool,
}

impl SharedRoom {
    /// Room for so many bytes.
    #[must_use]
    pub const fn new(bytes: RoomBytes) -> Self {
        let RoomBytes { begun, arrived, leaving } = bytes;
        Self { begun: Pool::new(begun), arrived: Pool::new(arrived), leaving: Pool::new(leaving) }
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
        let taken = self.shared.iter().map(|shared| shared.begun.try_take(bytes));
        taken.collect::<Option<_>>().map(FrameRoom)
    }

    /// Waits for room for a frame that has come.
    pub(super) async fn hold(&self, bytes: usize) -> FrameRoom {
        let mut room = FrameRoom::default();
        for shared in &self.shared {
            room.0.extend(shared.arrived.take(bytes).await);
        }
        room
    }
}

/// The room that a stream has for what goes out on it.
///
/// Of what it shares it takes at most a part at a time, also for a frame that is larger: so one stream that is
/// not read keeps no others waiting.
#[derive(Clone, Debug)]
pub struct OutputRoom {
    own: Arc<Pool>,
    shared: Vec<Arc<SharedRoom>>,
}

/// Of shared room a stream takes at most one part in so many at a time.
const PARTS: usize = 4;

impl OutputRoom {
    /// Room for so many bytes on this stream, as far as all of `shared` have it.
    #[must_use]
    pub fn new(own: u32, shared: Vec<Arc<SharedRoom>>) -> Self {
        Self { own: Arc::new(Pool::new(own)), shared }
    }

    /// Waits for room for frames of so many bytes, in the order of asking. Whoever sends them with it gets it
    /// back in a bounded time, however slowly the other side reads.
    pub async fn hold(&self, bytes: usize) -> FrameRoom {
        let mut room = FrameRoom(self.own.take(bytes).await.into_iter().collect());
        for SharedRoom { leaving, .. } in self.shared.iter().map(|shared| &**shared) {
            room.0.extend(leaving.take(bytes.min(leaving.max as usize / PARTS)).await);
        }
        room
    }
}

/// Room that frames take, until it is dropped.
#[derive(Debug, Default)]
pub struct FrameRoom(Vec<OwnedSemaphorePermit>);

impl From<OwnedSemaphorePermit> for FrameRoom {
    /// Room that somebody else has counted.
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self(vec![permit])
    }
}

impl FrameRoom {
    /// Whether it is no room at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives back what is beyond so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        for permit in &mut self.0 {
            let spare = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(spare));
        }
    }

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_goes_out_waits_for_room_and_no_stream_takes_all_that_others_share() {
        let room = |leaving| Arc::new(SharedRoom::new(RoomBytes { begun: 0, arrived: 0, leaving }));
        let (connection, subject) = (room(40), room(60));
        let stream = |connection| OutputRoom::new(20, vec![connection, Arc::clone(&subject)]);
        let (one, other) = (stream(Arc::clone(&connection)), stream(Arc::clone(&connection)));
        let brief = Duration::from_millis(50);
        let largest = timeout(brief, one.hold(1_000)).await.unwrap();
        assert!(!largest.is_empty());
        assert!(timeout(brief, one.hold(1)).await.is_err(), "it has all of its stream's");
        let mut ten = timeout(brief, other.hold(10)).await.unwrap();
        let third = timeout(brief, other.hold(10)).await.unwrap();
        let fourth = timeout(brief, stream(Arc::clone(&connection)).hold(10)).await.unwrap();
        assert!(timeout(brief, stream(connection).hold(1)).await.is_err(), "all have it together");
        let elsewhere = stream(room(40));
        let fifth = timeout(brief, elsewhere.hold(20)).await.unwrap();
        drop((third, fourth));
        ten.shrink_to(4);
        ten.shrink_to(7);
        timeout(brief, other.hold(16)).await.unwrap();
        assert!(timeout(brief, other.hold(17)).await.is_err(), "four are taken still");
        drop((largest, fifth));
    }
}
