//! What a client has to show to open a store, and the session that begins then.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use sds_engine::{ReplicaId, Version};
use sds_sync::access::{Access, AccessError, Scope};
use sds_sync::limits::{OPEN_SEATS_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{FrameRoom, OutputRoom};
use sds_sync::{ClientFrame, Refusal, RefusalCode, SeatTip, ServingSession, StoreId, Token};

use crate::limits::LEAVING_FREE_BYTES;
use crate::node::{DELETED, Node};
use crate::relay::Cursor;
use crate::sessions::REVOKED;
use crate::store_log::{Author, Opening};

/// The first frame of a stream that opens a store.
pub(crate) struct OpenRequest {
    pub(crate) protocol: u16,
    pub(crate) store: String,
    pub(crate) token: Token,
    pub(crate) version: Bytes,
    /// The seats that the client asks about; none if it speaks a version without.
    pub(crate) seats: Option<Vec<u64>>,
}

impl OpenRequest {
    /// What `frame` asks for.
    ///
    /// # Errors
    /// The frame, if it does not open a store.
    pub(crate) fn of(frame: ClientFrame) -> Result<Self, ClientFrame> {
        match frame {
            ClientFrame::Open { protocol, store, token, version } => {
                Ok(Self { protocol, store, token, version, seats: None })
            }
            ClientFrame::OpenSeated { protocol, store, token, version, seats } => {
                Ok(Self { protocol, store, token, version, seats: Some(seats) })
            }
            other => Err(other),
        }
    }
}

/// Checks the request; says what it opens, and what it allows.
pub(super) fn admit(node: &Node, request: &OpenRequest) -> Result<(StoreId, Access), Refusal> {
    if request.protocol > PROTOCOL_VERSION {
        return Err(Refusal::new(RefusalCode::TooNew, "the protocol is newer than this relay"));
    }
    let malformed = |message| Refusal::new(RefusalCode::Malformed, message);
    if request.protocol == 0 {
        return Err(malformed("there is no protocol version 0"));
    }
    if request.seats.as_ref().is_some_and(|seats| seats.len() > OPEN_SEATS_MAX) {
        return Err(malformed("too many seats"));
    }
    let access = check_token(node, &request.token, &request.store)?;
    let store = StoreId::new(&request.store).map_err(|_| malformed("no valid store id"))?;
    check_revocations(node, &access, &store)?;
    Ok((store, access))
}

/// What the token allows with the store.
pub(super) fn check_token(node: &Node, token: &Token, store: &str) -> Result<Access, Refusal> {
    node.gate.check(token, store, SystemTime::now()).map_err(|error| match error {
        AccessError::Forbidden => {
            Refusal::new(RefusalCode::Forbidden, "the token is for another store")
        }
        _ => Refusal::new(RefusalCode::Unauthorized, "the token is not accepted"),
    })
}

pub(super) fn check_revocations(
    node: &Node,
    access: &Access,
    store: &StoreId,
) -> Result<(), Refusal> {
    if node.revocations.is_revoked(access, store.as_str()) { Err(REVOKED) } else { Ok(()) }
}

/// Whose changes those are that come on the stream.
pub(super) fn author_of(request: &OpenRequest, access: &Access) -> Author {
    let seats = request.seats.iter().flatten().filter_map(|seat| ReplicaId::new(*seat));
    let speaks_for_all = access.scope == Scope::Admin;
    Author { subject: access.subject.clone(), seats: seats.collect(), speaks_for_all }
}

/// What is looked up for a client that opens a store.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) store: StoreId,
    pub(super) author: Arc<Author>,
    /// What the client has, encoded.
    pub(super) version: Bytes,
    /// The seats that it asks about.
    pub(super) seats: Option<Vec<u64>>,
}

/// What there is for it.
pub(super) struct Found {
    pub(super) opening: Opening,
    tips: Option<Vec<SeatTip>>,
    foreign: Vec<(ReplicaId, u64)>,
}

impl Found {
    /// Where the client stands.
    pub(super) fn take_cursor(&mut self) -> Cursor {
        let Opening { had, position, end, .. } = &mut self.opening;
        Cursor::new(std::mem::take(had), *position, *end)
    }

    /// The session that begins with it.
    pub(super) fn session(
        self,
        protocol: u16,
        writable: bool,
        cursor: Cursor,
    ) -> ServingSession<Cursor> {
        let version = self.opening.version;
        let mut session = ServingSession::new(protocol, version, self.tips, writable, cursor);
        if writable {
            self.foreign.iter().for_each(|(replica, next)| {
                session.handle_passed_over(*replica, *next);
            });
        }
        session
    }
}

/// Looks what there is, when it is the turn of the client's subject.
pub(super) async fn look(node: &Arc<Node>, asked: &Asked) -> Result<Found, Refusal> {
    let turn = node.openings.take(&asked.author.subject).await;
    let Asked { store, author, version, seats } = asked.clone();
    let read = node.read(move |log| {
        let _turn = turn;
        if log.is_deleted(&store)? {
            return Ok(Err(DELETED));
        }
        let Ok(had) = Version::decode(&version) else {
            return Ok(Err(Refusal::new(RefusalCode::Malformed, "no valid version")));
        };
        // What is said of the seats is never more than what is said to be here.
        let tips = seats.map(|seats| log.tips(&store, &seats)).transpose()?;
        let foreign = log.foreign(&store, &author)?;
        let opening = log.opening(&store, &had)?;
        Ok(Ok(Found { opening, tips, foreign }))
    });
    read.await.ok_or(Refusal::STORAGE_FAILED)?
}

/// Takes the room that the first frame needs until it has gone out. If that is large it is looked up
/// once more when there is room for it, and nothing of it is kept meanwhile.
pub(super) async fn hold(
    node: &Arc<Node>,
    output: &OutputRoom,
    asked: &Asked,
    mut found: Found,
) -> Result<(Found, FrameRoom), Refusal> {
    let (mut room, mut most) = (FrameRoom::default(), LEAVING_FREE_BYTES);
    while found.opening.version.len() > most {
        // There may be more by then.
        most = found.opening.version.len() / 8 * 9;
        drop((found, room));
        room = output.hold(most).await;
        found = look(node, asked).await?;
    }
    room.shrink_to(found.opening.version.len());
    Ok((found, room))
}
