//! Keeps stores equal: on disk, and with a relay.
//!
//! - [`LocalStore`]: a store's file, loaded; for programs that edit, commit and end.
//! - [`SyncEngine`]: the same for programs that go on running, with a connection to a relay.
//! - [`SyncedStore`], [`Link`], [`Reconnect`], [`WriteQueue`]: what a sync engine does, without thread,
//!   socket or clock, for programs with a loop of their own.
//! - [`ClientSession`]: the client's side of the protocol, without socket, clock or store.
//! - [`ServingSession`]: the answering side's, likewise.
//! - [`ClientFrame`], [`RelayFrame`]: what travels; `docs/protocol.md` has their bytes.
//! - [`Persistence`]: where a store is kept; [`RedbPersistence`] is its file, and [`check_store`] looks
//!   whether it is sound.
//! - [`access`]: the tokens that open stores, at relays and at peers that listen.
//! - [`presence`]: who else is here, and where.
//! - [`transport`]: QUIC streams of frames, relay URLs, and whom to trust.
//! - [`BlobWriter`], [`BlobReader`]: large values in and out as streams.
//! - [`database`], [`log_value`], [`blob_rows`]: redb files, what is in their logs, and their large
//!   contents, as the relay has them too.
//! - [`limits`]: every bound.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

pub mod access;
mod backoff;
pub mod blob_rows;
mod blob_service;
mod blob_storage;
pub mod certificate;
mod checked;
pub mod database;
mod guest_session;
mod in_flight;
pub mod inspection;
mod intake;
#[cfg(test)]
#[path = "../tests/support/labelled.rs"]
mod labelled;
mod ledger;
pub mod limits;
mod link;
mod local_socket;
mod local_store;
pub mod log_value;
mod message;
pub mod new_file;
mod outbox;
mod persistence;
mod place;
pub mod presence;
pub mod process;
mod random;
pub mod rate;
mod read_only;
mod reconnect;
mod seat;
mod serving_session;
mod session;
mod store_id;
mod sync_engine;
mod synced_store;
pub mod transport;
mod write_queue;

pub use backoff::Backoff;
pub use blob_service::{BlobDoor, BlobPassed, BlobWork, Offer, serve_get, serve_put};
pub use blob_storage::{BlobError, BlobReader, BlobStorage, BlobWriter, Claims};
pub use certificate::{CertificateError, CertificateSource};
pub use checked::{Checked, CheckedChange, Contents};
pub use in_flight::InFlight;
pub use link::{Link, LinkError};
pub use local_store::LocalStore;
pub use message::{
    ClientFrame, Frame, FrameBuffer, FrameError, RefusalCode, RelayFrame, SeatTip, Token,
    decode_datagram, encode_datagram,
};
pub use outbox::Outbox;
pub use persistence::{
    Batch, CheckReport, Finding, LogPage, MemoryPersistence, Persistence, RedbPersistence,
    SharedFile, StorageError, check_store,
};
pub use reconnect::{NextAttempt, Reconnect};
pub use seat::{Chain, Seat};
pub use serving_session::{LogCursor, Refusal, ServingSession, check_patch};
pub use session::{ClientEvent, ClientSession, Hello, PeerMisbehaved};
pub use store_id::{InvalidStoreId, StoreId};
pub use sync_engine::{
    BlobFetch, ConnectOptions, ConnectionState, ListenError, ListenOptions, Listening,
    PresenceSubscription, Signal, SignalError, SyncEngine, SyncError, SyncStatus, TokenSource,
};
pub use synced_store::{Captured, Handover, Purpose, SyncedStore, TakeInError, TakenIn};
pub use transport::{CertificateHash, ConnectionPool, RelayUrl, TransportError, Trust, UrlError};
pub use write_queue::{Committed, WriteQueue};
