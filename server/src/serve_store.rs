//! The loop that serves one open store on one stream.
//!
//! While an append is on its way to the disk nothing further is read from the client, so a client
//! that sends faster than the disk writes waits in its own connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sds_sync::access::{Access, Scope};
use sds_sync::limits::{FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use sds_sync::transport::{
    FrameBound, FramePipe, FrameReceiver, FrameRoom, FrameSender, Interest, OutputRoom, Ready,
    StreamError,
};
use sds_sync::{
    CheckedChange, ClientFrame, FrameError, InFlight, LogPage, Refusal, RefusalCode, RelayFrame,
    ServingSession, StoreId, Token, check_patch,
};
use tokio::sync::watch;
use tokio::time::sleep;

mod known;
mod opening;

pub(crate) use opening::OpenRequest;

use crate::attendance::Attendance;
use crate::connection::{Granted, Peer};
use crate::limits::{LEAVING_FREE_BYTES, Limit, STEP_BYTES_MAX};
use crate::log_writer::{Append, Outcome, Reply};
use crate::node::{Node, stopped};
use crate::relay::{Cursor, Next};
use crate::rooms::Member;
use crate::store_log::Author;
use known::KnownRoom;
use opening::{Asked, admit, author_of, check_revocations, check_token, hold, look};

const SHUTTING_DOWN: Refusal =
    Refusal::new(RefusalCode::ShuttingDown, "the relay is about to stop; try again soon");
/// When clients are to come back after a stop; they spread themselves over twice as long.
const COME_BACK_AFTER: Duration = Duration::from_secs(2);

/// Opens the store that the first frame of a stream asks for, or tells the client why not.
pub(crate) async fn open_store(
    peer: &Arc<Peer>,
    request: OpenRequest,
    sender: FrameSender,
    mut receiver: FrameReceiver,
    mut stop: watch::Receiver<bool>,
) -> Option<Box<Service>> {
    let (store, access, granted) = match grant(peer, &request) {
        Ok(granted) => granted,
        Err(refusal) => {
            peer.refuse(sender, refusal).await;
            return None;
        }
    };
    receiver.set_max(frame_max(&access));
    receiver.set_room(granted.input_room());
    let (node, output, bound) = (Arc::clone(&peer.node), granted.output_room(), receiver.bound());
    let member = node.rooms.enter(&store);
    let author = Arc::new(author_of(&request, &access));
    let (version, seats) = (request.version, request.seats);
    let mut asked = Asked { store: store.clone(), author: Arc::clone(&author), version, seats };
    let mut found = match look(&node, &asked).await {
        Ok(found) => found,
        Err(refusal) => {
            peer.refuse(sender, refusal).await;
            return None;
        }
    };
    let (protocol, stream, mut cursor) = (request.protocol, sender.id(), found.take_cursor());
    // What the client has is known now, if there is room for it. Until then its frame took some.
    asked.version = Bytes::new();
    let mut known = KnownRoom::new(Arc::clone(granted.seat().known()));
    known.fit(&mut cursor);
    let pipe = FramePipe::timed(sender, receiver);
    let held = tokio::select! {
        held = hold(&node, &output, &asked, found) => held,
        () = stopped(&mut stop) => Err(SHUTTING_DOWN),
        why = granted.ended() => Err(why),
    };
    let (found, telling) = match held {
        Ok(held) => held,
        Err(refusal) => {
            node.metrics.refused(refusal.code);
            pipe.finish([refusal.frame()]).await;
            return None;
        }
    };
    member.note_end(found.opening.end);
    let attendance = Attendance::begin(peer, protocol, stream, &member, granted.seat());
    let session = found.session(protocol, access.may_write(), cursor);
    let mut service = Box::new(Service {
        node,
        store,
        author,
        passes_over: false,
        session,
        known,
        member,
        pipe,
        bound,
        output,
        telling,
        reading: InFlight::default(),
        passing: FrameRoom::default(),
        checking: InFlight::default(),
        pending: InFlight::default(),
        attendance,
        granted,
        access,
        stop,
    });
    service.granted.set_position(service.session.cursor_mut().position());
    service.tell_access();
    Some(service)
}

/// Lets the client have the store open that it asks for, if it may. Either is told in the log.
fn grant(peer: &Arc<Peer>, request: &OpenRequest) -> Result<(StoreId, Access, Granted), Refusal> {
    let granted = admit(&peer.node, request).and_then(|(store, access)| {
        let granted = peer.grant(&store, &access)?;
        // Whoever revoked it before the session was listed did not find it.
        check_revocations(&peer.node, &access, &store)?;
        Ok((store, access, granted))
    });
    match &granted {
        Ok((store, access, _)) => peer.node.told.opened(store, access),
        Err(refusal) => peer.node.told.not_opened(refusal.code),
    }
    granted
}

/// The greatest frame that somebody sends: large ones are changes.
fn frame_max(access: &Access) -> usize {
    if access.may_write() { FRAME_BYTES_MAX } else { FIRST_FRAME_BYTES_MAX }
}

fn bytes_of(changes: &[Arc<[u8]>]) -> usize {
    changes.iter().map(|change| change.len()).sum()
}

/// The loop's own.
pub(crate) struct Service {
    node: Arc<Node>,
    store: StoreId,
    author: Arc<Author>,
    /// Whether changes of the client were passed over, so that those behind them may lack
    /// something.
    passes_over: bool,
    session: ServingSession<Cursor>,
    /// What the cursor takes to know what the client has.
    known: KnownRoom,
    member: Member,
    pipe: FramePipe<RelayFrame, ClientFrame>,
    bound: FrameBound,
    /// The room for changes that go out, unless they are few.
    output: OutputRoom,
    /// What the first frame takes, until it is sent.
    telling: FrameRoom,
    /// What waits for such room, or is read from the disk.
    reading: InFlight<Reading>,
    /// What those changes take that the session has still to send.
    passing: FrameRoom,
    /// A large frame that waits for its turn to be checked, or is.
    checking: InFlight<Result<Vec<CheckedChange>, Refusal>>,
    /// An append that waits for its turn or is on its way to the disk. `None` if the relay stops.
    pending: InFlight<Option<Outcome>>,
    /// None for a client of a version without.
    attendance: Option<Attendance>,
    granted: Granted,
    access: Access,
    stop: watch::Receiver<bool>,
}

/// What comes of reading on in the log.
enum Reading {
    /// There is room for what is in memory.
    Room(FrameRoom),
    /// A part from the disk, from this position, and the room that it takes.
    Page(u64, Option<LogPage>, FrameRoom),
}

/// What the service has to attend to next.
enum Turn {
    Stop,
    Clock,
    Pipe(Ready<ClientFrame>),
    Read(Reading),
    Checked(Result<Vec<CheckedChange>, Refusal>),
    Appended(Option<Outcome>),
    More,
    Others,
    Ended(Refusal),
}

impl Service {
    /// Serves the store until either side ends it.
    pub(crate) async fn run(mut self: Box<Self>) {
        let mut has_access = true;
        while !self.session.is_over() {
            self.read_log();
            self.append_what_came();
            if let Some(attendance) = &mut self.attendance {
                attendance.tell();
            }
            match self.next_turn().await {
                Turn::Stop => self.session.refuse_until(SHUTTING_DOWN, COME_BACK_AFTER),
                Turn::Clock if self.access.is_expired(SystemTime::now()) => {
                    has_access = false;
                    self.session.refuse(Refusal::EXPIRED);
                }
                Turn::Ended(why) => {
                    has_access = false;
                    self.session.refuse(why);
                }
                Turn::Clock | Turn::More | Turn::Others => {}
                Turn::Pipe(Ready::Room) => self.send_next(),
                // Who has left, or is cut off, reads nothing further; what it sent before is still taken.
                Turn::Pipe(Ready::Gone(why)) => {
                    if matches!(why, StreamError::TooSlow) {
                        self.node.metrics.limit_hit(Limit::TakeTime);
                    }
                    self.session.forget_log();
                    (self.reading, self.passing) = (InFlight::default(), FrameRoom::default());
                    self.attendance = None;
                    self.granted.leave_log();
                }
                Turn::Pipe(Ready::Received(received)) => self.handle_received(received),
                Turn::Read(reading) => self.handle_read(reading),
                Turn::Checked(checked) => self.session.handle_checked(checked),
                Turn::Appended(outcome) => self.handle_outcome(outcome),
            }
        }
        // The others hear of it at once, whatever is still to be done here.
        self.attendance = None;
        // Nobody else waits for room or for a turn that nobody here is going to use.
        (self.reading, self.checking) = (InFlight::default(), InFlight::default());
        self.passing = FrameRoom::default();
        self.settle().await;
        let last: Vec<RelayFrame> = std::iter::from_fn(|| self.session.poll_transmit()).collect();
        if let Some(RelayFrame::Refused { code, .. }) = last.last() {
            self.node.metrics.refused(RefusalCode::from_number(*code));
        }
        if !has_access {
            // Its blobs are out of the client's reach before it has read why.
            drop(self.granted);
        }
        self.pipe.finish(last).await;
    }

    /// Sends a frame. By turns, so that neither many changes nor lively others hold the other up.
    fn send_next(&mut self) {
        let others = self.attendance.as_mut().and_then(Attendance::take_turn);
        if let Some((message, room)) = others {
            self.pipe.send_with(message, room);
        } else if let Some(frame) = self.session.poll_transmit() {
            let telling = std::mem::take(&mut self.telling);
            let room = if telling.is_empty() { self.take_passed() } else { telling };
            self.pipe.send_with(frame, room);
        } else if let Some((message, room)) =
            self.attendance.as_mut().and_then(Attendance::take_frame)
        {
            self.pipe.send_with(message, room);
        }
    }

    async fn next_turn(&mut self) -> Turn {
        let interest = Interest {
            in_room: self.session.has_transmit()
                || self.attendance.as_ref().is_some_and(Attendance::has_frame),
            in_frames: self.pending.is_idle()
                && self.checking.is_idle()
                && self.session.wants_frames(),
        };
        let next_look = self.access.next_look(SystemTime::now());
        let is_settled = self.pending.is_idle();
        let is_at_end = is_settled && self.reading.is_idle() && self.session.wants_log().is_some();
        let others = async {
            match &mut self.attendance {
                Some(attendance) => attendance.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped(&mut self.stop) => Turn::Stop,
            why = self.granted.ended() => Turn::Ended(why),
            () = others => Turn::Others,
            () = sleep(next_look) => Turn::Clock,
            ready = self.pipe.ready(interest) => Turn::Pipe(ready),
            checked = self.checking.outcome() => Turn::Checked(checked),
            outcome = self.pending.outcome() => Turn::Appended(outcome),
            reading = self.reading.outcome(), if is_settled => Turn::Read(reading),
            () = self.member.changed(), if is_at_end => Turn::More,
        }
    }

    /// Hands over what has come in; all that has arrived goes into one append.
    fn append_what_came(&mut self) {
        if !self.pending.is_idle() {
            return;
        }
        while self.checking.is_idle() && self.session.wants_frames() {
            let Some(received) = self.pipe.next_arrived() else { break };
            self.handle_received(received);
        }
        self.begin_append();
    }

    fn begin_append(&mut self) {
        if !self.checking.is_idle() {
            return;
        }
        let room = self.pipe.take_room();
        if let Some(changes) = self.session.poll_append() {
            let reply = self.append(changes, room);
            self.pending.begin(async { reply.await.ok() });
        }
    }

    fn handle_received(&mut self, received: Result<Option<ClientFrame>, StreamError>) {
        if let Err(error) = &received {
            self.node.note_failed(error);
        }
        match received {
            Ok(Some(ClientFrame::Refresh { token })) => self.refresh(&token),
            // It takes no part any more.
            Ok(Some(ClientFrame::Presence { .. } | ClientFrame::Signal { .. }))
                if self.session.is_deaf() => {}
            Ok(Some(frame)) => {
                let given_back = match &mut self.attendance {
                    Some(attendance) => attendance.handle_frame(frame),
                    None => Ok(Some(frame)),
                };
                match given_back {
                    Ok(Some(ClientFrame::Changes { patch }))
                        if self.access.may_write() && patch.len() > FIRST_FRAME_BYTES_MAX =>
                    {
                        self.begin_check(patch);
                    }
                    Ok(Some(frame)) => self.session.handle_frame(frame),
                    Ok(None) => {}
                    Err(refusal) => self.session.refuse(refusal),
                }
            }
            Ok(None) => self.session.handle_frame(ClientFrame::Bye),
            Err(StreamError::Frame(FrameError::TooLarge { .. })) if !self.access.may_write() => {
                self.session.refuse(Refusal::READ_ONLY);
            }
            Err(StreamError::NoRoom) => self.session.refuse(Refusal::NO_ROOM),
            Err(StreamError::TooSlow) => self.session.refuse(Refusal::TOO_SLOW),
            Err(StreamError::Frame(error)) => {
                self.node.told.malformed(&self.store, &error);
                self.session.refuse(Refusal::MALFORMED_FRAME);
            }
            // Nobody is there any more to be told.
            Err(_) => self.session.handle_frame(ClientFrame::Bye),
        }
    }

    /// Lets the changes of a large frame be checked when it is their turn, off the threads that
    /// must not wait.
    fn begin_check(&mut self, patch: Bytes) {
        let (node, author) = (Arc::clone(&self.node), Arc::clone(&self.author));
        self.checking.begin(async move {
            let turn = node.checks.take(&author.subject).await;
            let check = move || {
                let checked = check_patch(&patch);
                drop(turn);
                checked
            };
            node.chores.run(check).await.unwrap_or(Err(Refusal::STORAGE_FAILED))
        });
    }

    /// Goes on with a newer token of the same subject.
    fn refresh(&mut self, token: &Token) {
        match check_token(&self.node, token, self.store.as_str()) {
            Ok(newer) if newer.subject == self.access.subject => {
                // Before it is listed, and after: whoever revoked it in between did not find it.
                let checked = check_revocations(&self.node, &newer, &self.store).and_then(|()| {
                    self.granted.set_access(&newer);
                    check_revocations(&self.node, &newer, &self.store)
                });
                match checked {
                    Ok(()) => {
                        let speaks_for_all = newer.scope == Scope::Admin;
                        Arc::make_mut(&mut self.author).speaks_for_all = speaks_for_all;
                        self.bound.set(frame_max(&newer));
                        self.access = newer;
                        self.tell_access();
                    }
                    Err(refusal) => self.session.refuse(refusal),
                }
            }
            Ok(_) => self.session.refuse(Refusal::OTHER_SUBJECT),
            Err(refusal) => self.session.refuse(refusal),
        }
    }

    fn tell_access(&mut self) {
        let own = self.attendance.as_ref().map(Attendance::own);
        let left = self.access.left(SystemTime::now());
        self.session.set_access(own, self.access.may_write(), left);
    }

    /// Reads on in the log until the client has something to be sent, or has everything. What
    /// became of its own changes has to be known first: those that were passed over it may get from
    /// elsewhere.
    fn read_log(&mut self) {
        while self.pending.is_idle() && self.reading.is_idle() {
            let Some(cursor) = self.session.wants_log() else { return };
            match self.member.next_for(cursor) {
                Next::Nothing => {
                    self.passing = FrameRoom::default();
                    return;
                }
                Next::Changes { from, changes } => {
                    let bytes = bytes_of(&changes);
                    if bytes > LEAVING_FREE_BYTES && self.passing.is_empty() {
                        // There may be more by then.
                        let bytes = bytes.max(STEP_BYTES_MAX);
                        let output = self.output.clone();
                        let room = async move { Reading::Room(output.hold(bytes).await) };
                        self.reading.begin(room);
                    } else {
                        self.passing.shrink_to(bytes);
                        self.pass(from, changes);
                    }
                }
                Next::OnDisk(from) => self.begin_read(from),
            }
        }
    }

    /// Reads a part of the log from the disk when there is room for it.
    fn begin_read(&mut self, from: u64) {
        self.passing = FrameRoom::default();
        let (node, store, output) =
            (Arc::clone(&self.node), self.store.clone(), self.output.clone());
        self.reading.begin(async move {
            let mut expected = STEP_BYTES_MAX;
            loop {
                let mut room = output.hold(expected).await;
                let store = store.clone();
                let page = node.read(move |log| log.read(&store, from)).await;
                let bytes = page.as_ref().map_or(0, |page| bytes_of(&page.changes));
                if bytes <= expected {
                    room.shrink_to(bytes);
                    return Reading::Page(from, page, room);
                }
                // A change larger than any step, which is read once more when there is room for it.
                expected = bytes;
            }
        });
    }

    fn handle_read(&mut self, reading: Reading) {
        match reading {
            Reading::Room(room) => self.passing = room,
            Reading::Page(from, Some(page), room) if !page.changes.is_empty() => {
                self.passing = room;
                self.pass(from, page.changes);
            }
            Reading::Page(..) => self.session.refuse(Refusal::STORAGE_FAILED),
        }
    }

    /// What those changes took that were passed on, once the session has given out the last of
    /// them.
    fn take_passed(&mut self) -> FrameRoom {
        let has_more = self.session.wants_log().is_none();
        if has_more { FrameRoom::default() } else { std::mem::take(&mut self.passing) }
    }

    /// Moves the client on over the part of the log at position `from`.
    fn pass(&mut self, from: u64, changes: Vec<Arc<[u8]>>) {
        let lacking = self.session.cursor_mut().pass(from, changes);
        self.known.fit(self.session.cursor_mut());
        self.granted.set_position(self.session.cursor_mut().position());
        self.node.metrics.changes_delivered.inc_by(lacking.len() as u64);
        self.session.handle_log(lacking);
        // The client has all of them, or they are on their way now.
        drop(self.take_passed());
    }

    /// Appends the client's last changes, so that a goodbye right after them loses none.
    async fn settle(&mut self) {
        if let Some(outcome) = self.pending.settle().await {
            self.handle_outcome(outcome);
        }
        self.begin_append();
        if let Some(outcome) = self.pending.settle().await {
            self.handle_outcome(outcome);
        }
    }

    /// Hands changes to the writer, with the room that they take until they are written.
    fn append(&self, changes: Vec<CheckedChange>, room: FrameRoom) -> Reply {
        let (store, author) = (self.store.clone(), Arc::clone(&self.author));
        let skips_lacking = self.passes_over;
        self.node.writer.append(Append { store, author, changes, skips_lacking, _room: room })
    }

    fn handle_outcome(&mut self, outcome: Option<Outcome>) {
        match outcome {
            Some(Ok(appended)) => {
                if let Some(code) = appended.refused {
                    self.node.told.changes_refused(&self.store, code);
                }
                self.passes_over |= !appended.foreign.is_empty();
                for (replica, next) in appended.foreign {
                    self.session.handle_passed_over(replica, next);
                }
                self.session.handle_appended(&appended.stored, appended.refused);
                self.session.cursor_mut().note_end(appended.end);
                self.known.fit(self.session.cursor_mut());
            }
            Some(Err(_)) => self.session.refuse(Refusal::STORAGE_FAILED),
            None => self.session.refuse(SHUTTING_DOWN),
        }
    }
}
