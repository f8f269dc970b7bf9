//! What a client has to show to open a store, and the session that begins then.

use std::sync::Arc;
use std::time::SystemTime;

use sds_engine::{ReplicaId, Version};
use sds_sync::access::{Access, AccessError, Scope};
use sds_sync::limits::{OPEN_SEATS_MAX, PROTOCOL_VERSION};
use sds_sync::{ClientFrame, Refusal, RefusalCode, ServingSession, StoreId, Token};

use crate::connection::Peer;
use crate::node::{DELETED, Node};
use crate::relay::Cursor;
use crate::rooms::Member;
use crate::sessions::REVOKED;
use crate::store_log::Author;

/// The first frame of a stream that opens a store.
pub(crate) struct OpenRequest {
    pub(crate) protocol: u16,
    pub(crate) store: String,
    pub(crate) token: Token,
    pub(crate) version: bytes::Bytes,
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

/// Checks the request; says what it opens, what it allows, and what the client has.
pub(super) fn admit(
    node: &Node,
    request: &OpenRequest,
) -> Result<(StoreId, Access, Version), Refusal> {
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
    let version = Version::decode(&request.version).map_err(|_| malformed("no valid version"))?;
    Ok((store, access, version))
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

/// What a client has, and wants to know.
pub(super) struct Asked {
    pub(super) protocol: u16,
    pub(super) had: Version,
    pub(super) seats: Option<Vec<u64>>,
}

/// The session that begins with what is here and what the client has.
pub(super) async fn open_session(
    peer: &Peer,
    store: &StoreId,
    access: &Access,
    Asked { protocol, had, seats }: Asked,
    author: &Arc<Author>,
    member: &Member,
) -> Result<ServingSession<Cursor>, Refusal> {
    let (id, known, author) = (store.clone(), had.clone(), Arc::clone(author));
    let read = peer.node.read(move |log| {
        if log.is_deleted(&id)? {
            return Ok(None);
        }
        let (position, end) = log.position_for(&id, &known)?;
        // What is said of the seats is never more than what is said to be here.
        let tips = seats.map(|seats| log.tips(&id, &seats)).transpose()?;
        let foreign = log.foreign(&id, &author)?;
        Ok(Some((log.version(&id)?, tips, foreign, position, end)))
    });
    let read = read.await.ok_or(Refusal::STORAGE_FAILED)?;
    let (version, tips, foreign, position, end) = read.ok_or(DELETED)?;
    member.note_end(end);
    let (writable, cursor) = (access.may_write(), Cursor::new(had, position, end));
    let mut session = ServingSession::new(protocol, &version, tips, writable, cursor);
    if writable {
        foreign.iter().for_each(|(replica, next)| session.handle_passed_over(*replica, *next));
    }
    Ok(session)
}
