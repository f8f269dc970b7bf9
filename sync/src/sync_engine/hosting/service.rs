//! The loop that serves the store to one visitor on one stream.
//!
//! While changes of a visitor are on their way to the disk nothing further is read from it, so one that
//! sends faster than the disk writes waits in its own connection.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use sds_engine::{Change, ReplicaId, Version};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::SyncError;
use super::super::shared::Shared;
use super::inquiry::{Inquiry, Welcome, inquire};
use super::listener::Entered;
use super::{Visitor, stopped};
use crate::access::Access;
use crate::in_flight::InFlight;
use crate::intake::Taken;
use crate::limits::{CLOCK_INTERVAL, FRAME_BYTES_MAX, OPEN_SEATS_MAX, PROTOCOL_VERSION};
use crate::message::{ClientFrame, RefusalCode, RelayFrame, Token};
use crate::serving_session::{Refusal, ServingSession};
use crate::synced_store::LogPart;
use crate::transport::{FramePipe, FrameReceiver, FrameSender, Interest, Ready, StreamError};

const SHUTTING_DOWN: Refusal =
    Refusal::new(RefusalCode::ShuttingDown, "this side is about to stop; try again soon");
const SETTLED: Refusal =
    Refusal::new(RefusalCode::ShuttingDown, "some changes here have other ids now: open it anew");

/// What opens a store.
pub(super) struct Opening {
    pub(super) protocol: u16,
    pub(super) version: Bytes,
    pub(super) seats: Vec<u64>,
}

/// Who is served.
pub(super) struct Admitted {
    pub(super) visitor: Visitor,
    /// What a peer may do; a guest may do everything.
    pub(super) access: Option<Access>,
    /// A peer's entry among those who have the store open on its connection.
    pub(super) open: Option<Entered>,
}

/// A seat that a guest has, until this is dropped.
struct Lent {
    shared: Arc<Shared>,
    seat: ReplicaId,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.shared.take_seat_back(self.seat);
    }
}

/// Serves a visitor until either side ends it.
pub(super) async fn serve_store(
    shared: Arc<Shared>,
    admitted: Admitted,
    opening: Opening,
    (sender, mut receiver): (FrameSender, FrameReceiver),
    stop: watch::Receiver<bool>,
) {
    // Before anything is looked up, so that no commit is missed.
    let saved = shared.saved.subscribe();
    let settles = shared.writer.settles();
    let Opened { lent, inquiry, session } =
        match open(&shared, admitted.access.as_ref(), &opening).await {
            Ok(opened) => opened,
            Err(refusal) => return sender.refuse(refusal).await,
        };
    receiver.set_max(FRAME_BYTES_MAX);
    let pipe = FramePipe::new(sender, receiver);
    let (pending, is_behind) = (InFlight::default(), true);
    let inquiry = inquiry.map(|inquiry| Arc::new(Mutex::new(inquiry)));
    let mut service = Service {
        shared,
        session,
        pipe,
        lent,
        inquiry,
        saved,
        settles,
        is_behind,
        pending,
        admitted,
        stop,
    };
    service.tell_access();
    service.run().await;
}

/// A store that was opened for a visitor.
struct Opened {
    lent: Option<Lent>,
    inquiry: Option<Inquiry>,
    session: ServingSession<Version>,
}

async fn open(
    shared: &Arc<Shared>,
    access: Option<&Access>,
    opening: &Opening,
) -> Result<Opened, Refusal> {
    if opening.protocol > PROTOCOL_VERSION {
        return Err(Refusal::new(RefusalCode::TooNew, "the protocol is newer than this side"));
    }
    let malformed = |message| Refusal::new(RefusalCode::Malformed, message);
    if opening.seats.len() > OPEN_SEATS_MAX {
        return Err(malformed("too many seats"));
    }
    let mut had = Version::decode(&opening.version).map_err(|_| malformed("no valid version"))?;
    let failed = |_: SyncError| Refusal::STORAGE_FAILED;
    // Only a guest is as near as that: a peer gets the history, as from a relay.
    let mut snapshot = None;
    if access.is_none() && had.is_empty() && !shared.persisted().is_empty() {
        let made = shared.snapshot().await.map_err(failed)?;
        had = made.version.clone();
        snapshot = Some(made);
    }
    let writable = access.is_none_or(Access::may_write);
    let (mut lent, mut inquiry) = (None, None);
    let (version, seats) = match (access, opening.seats.first()) {
        // A guest asks for a seat, and who it is does not matter.
        (None, wish) => {
            let tip = match wish {
                Some(wish) => Some(shared.lend_seat(ReplicaId::new(*wish)).await.map_err(failed)?),
                None => None,
            };
            let seat = tip.as_ref().and_then(|tip| ReplicaId::new(tip.replica));
            lent = seat.map(|seat| Lent { shared: Arc::clone(shared), seat });
            let mut seats = blocking(shared, Shared::file_seats).await?;
            // On disk before the guest is told. The seat is taken back if this fails, or nobody waits
            // for it any more.
            shared.flush().await.map_err(failed)?;
            seats.extend(tip);
            (shared.persisted(), seats)
        }
        (Some(_), _) => {
            let (replicas, peers) = (opening.seats.clone(), had.clone());
            let compare = move |shared: &Shared| Welcome::new(shared, &replicas, peers, writable);
            let welcome = blocking(shared, compare).await?;
            // A seat that was taken just now is on disk before anything is made under it.
            if welcome.has_to_wait {
                shared.flush().await.map_err(failed)?;
            }
            inquiry = welcome.inquiry;
            (welcome.version, welcome.seats)
        }
    };
    let version = version.encode().into();
    let session = ServingSession::new(opening.protocol, version, Some(seats), writable, had);
    let session = match snapshot {
        Some(snapshot) => session.with_snapshot(snapshot.bytes, snapshot.version),
        None => session,
    };
    Ok(Opened { lent, inquiry, session })
}

/// Does what may take a while, off the threads that must not wait.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, SyncError> + Send + 'static,
) -> Result<T, Refusal> {
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    done.ok().and_then(Result::ok).ok_or(Refusal::STORAGE_FAILED)
}

/// Takes in what a visitor brings, durably; nothing if the disk does not take it, or if something was made
/// again after seats had been settled `settles` times.
async fn bring(
    shared: Arc<Shared>,
    lease: Option<ReplicaId>,
    settles: u64,
    changes: Vec<Change>,
) -> Option<Taken> {
    if shared.is_disk_behind() {
        shared.flush().await.ok()?;
    }
    let store = Arc::clone(&shared);
    let take = tokio::task::spawn_blocking(move || store.take_from(lease, &changes));
    let taken = take.await.ok()?.ok()?;
    shared.flush().await.ok()?;
    // What was made again meanwhile is on disk by other names, or was left out.
    (shared.writer.settles() == settles).then_some(taken)
}

struct Service {
    shared: Arc<Shared>,
    session: ServingSession<Version>,
    pipe: FramePipe<RelayFrame, ClientFrame>,
    lent: Option<Lent>,
    /// As long as it goes on nothing is taken in or passed on.
    inquiry: Option<Arc<Mutex<Inquiry>>>,
    saved: watch::Receiver<u64>,
    /// How often seats had been settled when the visitor was told what is here.
    settles: u64,
    /// Whether there may be changes that the visitor lacks.
    is_behind: bool,
    /// Changes on their way to the disk. `None` if it does not take them, or something was made again.
    pending: InFlight<Option<Taken>>,
    admitted: Admitted,
    stop: watch::Receiver<bool>,
}

/// What the service has to attend to next.
enum Turn {
    Stop,
    Clock,
    Pipe(Ready<ClientFrame>),
    Appended(Option<Taken>),
    Saved,
}

impl Service {
    async fn run(mut self) {
        while !self.session.is_over() {
            if self.is_settled_anew() {
                self.session.refuse(SETTLED);
                break;
            }
            self.read_log().await;
            self.append_what_came();
            match self.next_turn().await {
                Turn::Stop => self.session.refuse(SHUTTING_DOWN),
                Turn::Clock if self.is_expired() => self.session.refuse(Refusal::EXPIRED),
                Turn::Clock => {}
                Turn::Saved => self.is_behind = true,
                Turn::Pipe(Ready::Room) => {
                    if let Some(frame) = self.session.poll_transmit() {
                        self.pipe.send(frame);
                    }
                }
                // Who has left reads nothing further; what it sent before is still taken.
                Turn::Pipe(Ready::Gone(_)) => {}
                Turn::Pipe(Ready::Received(received)) => self.handle_received(received),
                Turn::Appended(taken) => self.handle_taken(taken),
            }
        }
        self.settle().await;
        // The visitor may be back, and want it, as soon as it hears of the end.
        self.lent = None;
        let last: Vec<RelayFrame> = std::iter::from_fn(|| self.session.poll_transmit()).collect();
        self.pipe.finish(last).await;
    }

    async fn next_turn(&mut self) -> Turn {
        let interest = Interest {
            in_room: self.session.has_transmit(),
            in_frames: self.pending.is_idle() && self.session.wants_frames(),
        };
        let access = self.admitted.access.as_ref();
        let next_look = access.map_or(CLOCK_INTERVAL, |access| access.next_look(SystemTime::now()));
        tokio::select! {
            () = stopped(&mut self.stop) => Turn::Stop,
            () = sleep(next_look) => Turn::Clock,
            ready = self.pipe.ready(interest) => Turn::Pipe(ready),
            taken = self.pending.outcome() => Turn::Appended(taken),
            Ok(()) = self.saved.changed() => Turn::Saved,
        }
    }

    fn is_expired(&self) -> bool {
        self.admitted.access.as_ref().is_some_and(|access| access.is_expired(SystemTime::now()))
    }

    /// Hands over what has come in; all that has arrived is one append.
    fn append_what_came(&mut self) {
        if !self.pending.is_idle() {
            return;
        }
        while self.session.wants_frames() {
            let Some(received) = self.pipe.next_arrived() else { break };
            self.handle_received(received);
        }
        self.begin_append();
    }

    fn begin_append(&mut self) {
        let Some(changes) = self.session.poll_append() else { return };
        match &self.inquiry {
            Some(inquiry) => {
                let inquiry = Arc::clone(inquiry);
                self.pending.begin(inquire(
                    Arc::clone(&self.shared),
                    inquiry,
                    self.settles,
                    changes,
                ));
            }
            None => self.pending.begin(self.append(changes)),
        }
    }

    fn handle_received(&mut self, received: Result<Option<ClientFrame>, StreamError>) {
        match received {
            // Who is here is told by relays alone.
            Ok(Some(ClientFrame::Presence { .. } | ClientFrame::Signal { .. })) => {}
            Ok(Some(ClientFrame::Refresh { token })) => self.refresh(&token),
            Ok(frame) => self.session.handle_frame(frame.unwrap_or(ClientFrame::Bye)),
            Err(StreamError::Frame(_)) => {
                self.session.refuse(Refusal::MALFORMED_FRAME);
            }
            // Nobody is there any more to be told.
            Err(_) => self.session.handle_frame(ClientFrame::Bye),
        }
    }

    /// Goes on with a newer token of the same peer.
    fn refresh(&mut self, token: &Token) {
        let Admitted { visitor, access, open } = &mut self.admitted;
        let Some(former) = access else { return };
        match visitor.admit(&self.shared, self.shared.id.as_str(), token) {
            Ok(Some(newer)) if newer.subject == former.subject => {
                if let Some(open) = open {
                    open.set_may_write(newer.may_write());
                }
                *former = newer;
                self.tell_access();
            }
            Ok(_) => self.session.refuse(Refusal::OTHER_SUBJECT),
            Err(refusal) => self.session.refuse(refusal),
        }
    }

    fn tell_access(&mut self) {
        if let Some(access) = &self.admitted.access {
            let left = access.left(SystemTime::now());
            self.session.set_access(None, access.may_write(), left);
        }
    }

    /// Gives the session a part of what the visitor lacks and is on disk, once it has passed on all before.
    async fn read_log(&mut self) {
        // What became of the visitor's own changes has to be known first: they need not come back to it.
        if !self.is_behind || self.inquiry.is_some() || !self.pending.is_idle() {
            return;
        }
        let Some(cursor) = self.session.wants_log().cloned() else { return };
        let read = move |shared: &Shared| shared.durable_part(&cursor);
        match blocking(&self.shared, read).await {
            Ok(LogPart { changes, is_last }) => {
                self.is_behind = !is_last;
                let cursor = self.session.cursor_mut();
                for (header, _) in &changes {
                    cursor.advance(header.replica, header.end());
                }
                self.session.handle_log(changes);
            }
            Err(refusal) => self.session.refuse(refusal),
        }
    }

    /// Takes in the visitor's last changes, so that a goodbye right after them loses none.
    async fn settle(&mut self) {
        if let Some(taken) = self.pending.settle().await {
            self.handle_taken(taken);
        }
        self.begin_append();
        if let Some(taken) = self.pending.settle().await {
            self.handle_taken(taken);
        }
    }

    fn append(&self, changes: Vec<Change>) -> impl Future<Output = Option<Taken>> + Send + use<> {
        let lease = self.lent.as_ref().map(|lent| lent.seat);
        bring(Arc::clone(&self.shared), lease, self.settles, changes)
    }

    fn handle_taken(&mut self, taken: Option<Taken>) {
        match taken {
            Some(taken) => {
                if let Some(code) = taken.refused {
                    tracing::warn!(store = %self.shared.id, code = code.code(), "changes refused");
                }
                self.session.handle_appended(&taken.version, taken.refused);
            }
            None if self.is_settled_anew() => self.session.refuse(SETTLED),
            None => self.session.refuse(Refusal::STORAGE_FAILED),
        }
    }

    /// Whether the visitor was told of changes that are called otherwise now.
    fn is_settled_anew(&self) -> bool {
        self.shared.writer.settles() != self.settles
    }
}

#[cfg(test)]
mod tests {
    use sds_engine::Op;

    use super::super::super::gated::Gated;
    use super::*;

    /// Goal: what a visitor brought is not acknowledged by its name when it went to the disk by another one, or
    /// not at all. Method: seats that are settled while the write goes on, and, to compare, ones that are not.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_made_again_on_its_way_to_the_disk_is_not_acknowledged() {
        for is_settled in [false, true] {
            let gated = Gated::new();
            let author = ReplicaId::new(7).unwrap();
            let change = Change::new(author, 0, vec![], &[Op::Skip { count: 1 }]).unwrap();
            let settles = gated.shared.writer.settles();
            let bringing = bring(Arc::clone(&gated.shared), None, settles, vec![change]);
            let bringing = tokio::spawn(bringing);
            gated.has_begun.recv().unwrap();
            if is_settled {
                gated.shared.writer.begin_settle();
            }
            gated.gate.send(()).unwrap();
            assert_eq!(bringing.await.unwrap().is_none(), is_settled);
        }
    }
}
