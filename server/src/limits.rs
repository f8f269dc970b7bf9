//! Every bound on what clients can make a relay hold or do. Those of the protocol are in
//! `sds_sync`.
//!
//! [`Limits`] is what an operator can set, [`Limit`] names what was reached. Who comes at too high
//! a rate on a connection is read more slowly, so that its own connection holds it up; whoever
//! wants more than there is room for is refused as busy, and what is too large as too large.
//! Strangers, who have shown no token yet, have tighter bounds of their own.

use std::time::Duration;

use sds_sync::limits::{
    APPEND_BYTES_GOAL, BLOB_BYTES_MAX, FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX,
    FRAME_OVERHEAD_BYTES_MAX, PATCH_BYTES_GOAL, PATCH_BYTES_MAX, PRESENCE_BYTES_MAX,
    PRESENCE_PER_SECOND_MAX, SIGNALS_PER_SECOND_MAX, STREAMS_MAX, TOKEN_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use crate::store_log::StoreQuota;

/// The most bytes of recent changes that a store's room keeps in memory; older ones are on disk.
pub const TAIL_BYTES_MAX: usize = 4 << 20;

/// The most recent changes that a store's room keeps in memory.
pub const TAIL_CHANGES_MAX: usize = 16_384;

/// The most changes that are looked at in one step for one client, and so in one page of a log.
pub const STEP_CHANGES_MAX: usize = 4_096;

/// The most bytes of changes that are looked at in one step for one client; a larger change comes alone.
pub const STEP_BYTES_MAX: usize = PATCH_BYTES_GOAL;

/// How much memory the changes of one commit take, in bytes.
pub const GROUP_BYTES_GOAL: usize = 32 << 20;

/// How much of that those may take that are not small, so that there is room for those that are.
pub const GROUP_LARGE_BYTES_GOAL: usize = GROUP_BYTES_GOAL / 2;

/// How much of it those of one subject may take; one append that is larger comes alone.
pub const GROUP_BYTES_PER_SUBJECT_GOAL: usize = APPEND_BYTES_GOAL;

/// The most memory that the changes of a small append take, in bytes. It goes into the next commit,
/// whatever of others waits.
pub const SMALL_APPEND_BYTES_MAX: usize = 64 << 10;

/// The most revocations in force.
pub const REVOCATIONS_MAX: usize = 65_536;

/// The most revocations in force of those who have rights to the same stores, unless these are all.
pub const REVOCATIONS_PER_MAKER_MAX: usize = 1_024;

/// The most connections of the admin listener at a time; more are closed.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How long the head of an admin request may take, or its connection be idle.
pub const ADMIN_HEAD_TIME: Duration = Duration::from_secs(5);

/// The most bytes of the head of an admin request: a token and what goes with it.
pub const ADMIN_HEAD_BYTES_MAX: usize = 32 << 10;

/// The most bytes of the body of an admin request.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;

/// How long an admin request may take once its head is there.
pub const ADMIN_REQUEST_TIME: Duration = Duration::from_secs(30);

/// How long a connection of the admin listener takes further requests.
pub const ADMIN_CONNECTION_TIME: Duration = Duration::from_secs(60);

/// How many rows a list has in one answer, unless the request says otherwise.
pub const ADMIN_PAGE: usize = 100;

/// The most rows that a list has in one answer.
pub const ADMIN_PAGE_MAX: usize = 1_000;

/// The most lines that wait to be written into the audit log.
pub const AUDIT_QUEUE_MAX: usize = 1_024;

/// How many refused admin requests the audit log tells of in a minute.
pub const AUDIT_FAILURES_PER_MINUTE_MAX: u32 = 30;

/// Of how many refused openings the log tells in a minute.
pub const REFUSED_OPENINGS_PER_MINUTE_MAX: u32 = 120;

/// Of how many openings the log tells in a minute.
pub const OPENINGS_PER_MINUTE_MAX: u32 = 300;

/// Of how many frames that are not well formed the log tells in a minute, and of how many refused
/// changes.
pub const REFUSED_FRAMES_PER_MINUTE_MAX: u32 = 120;

/// The most lines of the log that wait to be written; more are dropped.
pub const LOG_QUEUE_MAX: usize = 4_096;

/// How many bytes of changes go into one page of a store's log on disk; a larger one comes alone.
pub const PAGE_BYTES_GOAL: usize = 256 << 10;

/// How many pages of a store's log may be as they were appended before they are packed.
pub const LOOSE_PAGES_MAX: u64 = 256;

/// Of how many stores packing goes on after a start.
pub const PACK_RESUMED_MAX: usize = 4_096;

/// How long the writer waits after it could not remove what a deleted store has left behind.
pub const SWEEP_RETRY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 10_000 });

/// At how many stores the writer looks for something to pack before it takes what has come
/// meanwhile.
pub const PACK_LOOKS_MAX: usize = 64;

/// How many bytes of pages may be unpacked in one commit to compare the changes of one subject with
/// those in the log, before others get their turn.
pub const EFFORT_BYTES_MAX: usize = 4 << 20;

/// As how many of those bytes it counts to look for one dep of a change: so few are looked for that
/// those of a commit take a few milliseconds.
pub const DEP_BYTES: usize = 1 << 10;

/// How many packed pages are kept in memory as they are unpacked.
pub const PAGE_CACHE_MAX: usize = 16;

/// How many bytes of large frames a connection may have begun at a time: an ordinary one on each
/// stream.
pub const BEGUN_BYTES_PER_CONNECTION_MAX: u32 = 80 << 20;

/// The same for all connections of a subject together.
pub const BEGUN_BYTES_PER_SUBJECT_MAX: u32 = 256 << 20;

/// How many bytes of frames that have come may wait for the disk, of one connection.
pub const ARRIVED_BYTES_PER_CONNECTION_MAX: u32 = 24 << 20;

/// The same for all connections of a subject together.
pub const ARRIVED_BYTES_PER_SUBJECT_MAX: u32 = 96 << 20;

/// How many bytes of changes may be on their way to a client on one stream, beside what is small: what
/// is read for it at a time, and as much again that is read meanwhile.
pub const LEAVING_BYTES_PER_STREAM_MAX: u32 = 2 << 20;

/// The same of changes and blobs on all streams of a connection: some streams that are not read do not keep
/// the others waiting.
pub const LEAVING_BYTES_PER_CONNECTION_MAX: u32 = 16 << 20;

/// The same for all connections of a subject together.
pub const LEAVING_BYTES_PER_SUBJECT_MAX: u32 = 128 << 20;

/// How many bytes it may take to know what the clients of a subject have, who are not at the end of a
/// log yet. Of whom there is no room for that, nothing is known: they are sent what they have, too.
pub const KNOWN_BYTES_PER_SUBJECT_MAX: usize = 16 << 20;

/// What needs no room of that, of each session.
pub const KNOWN_FREE_BYTES: usize = 1 << 10;

/// How many bytes of large versions are kept that somebody was told who opened a store.
pub const TOLD_VERSIONS_BYTES_MAX: usize = 16 << 20;

/// How many stores are opened at a time: each looks at all replicas of one.
pub const OPENINGS_MAX: usize = 4;

/// How many bytes of messages may be on their way to all sessions of a subject together.
pub const SIGNAL_BYTES_PER_SUBJECT_MAX: usize = 16 << 20;

/// Changes of no more than so many bytes are passed on without room for them.
pub const LEAVING_FREE_BYTES: usize = 64 << 10;

/// The greatest frame of a client without a token that needs no room of its connection's, in bytes.
pub const STRANGER_FREE_FRAME_BYTES: usize = 8 << 10;

/// How many bytes of greater ones it may have begun.
pub const STRANGER_BEGUN_BYTES_MAX: u32 = 128 << 10;

/// How many uploads gather pieces of themselves before they write them.
pub const BLOB_GATHERING_MAX: usize = 32;

/// How many of them those of one subject may be.
pub const BLOB_GATHERING_PER_SUBJECT_MAX: usize = 8;

/// The most bytes of recent changes that all rooms together keep in memory. Those that heard of
/// nothing for the longest time forget theirs first.
pub const TAILS_BYTES_MAX: usize = 256 << 20;

/// How many frames of more than [`FIRST_FRAME_BYTES_MAX`] are checked at a time, of all clients:
/// what is in one may take 200 MiB until it is found good.
pub const CHECKS_MAX: usize = 1;

/// How many uploads write at a time, how many look at what they have to go on with, and how many
/// whether there is room. The log waits for one commit of any of them.
pub const BLOB_WRITERS_MAX: usize = 1;

/// Of how many stores it is remembered how many blobs they have.
pub const BLOB_TOTALS_MAX: usize = 65_536;

/// The most replicas that a store can have: what it has of each is in the first frame of every
/// session.
pub const REPLICAS_PER_STORE_MAX: u64 = 900_000;

/// The most bytes that one replica takes in an encoded version: its id and a counter.
const REPLICA_BYTES_MAX: u64 = 18;

/// The most addresses and subjects of which a rate is remembered; beyond that, newcomers have only
/// the bounds that hold for all together.
pub const REMEMBERED_MAX: usize = 65_536;

const _: () = assert!(
    REPLICAS_PER_STORE_MAX * REPLICA_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX as u64
        <= FRAME_BYTES_MAX as u64
);
const _: () =
    assert!(STREAMS_MAX as usize * PATCH_BYTES_MAX <= BEGUN_BYTES_PER_CONNECTION_MAX as usize);
const _: () = assert!(FRAME_BYTES_MAX <= BEGUN_BYTES_PER_CONNECTION_MAX as usize);
const _: () = assert!(BEGUN_BYTES_PER_CONNECTION_MAX <= BEGUN_BYTES_PER_SUBJECT_MAX);
const _: () = assert!(ARRIVED_BYTES_PER_CONNECTION_MAX <= ARRIVED_BYTES_PER_SUBJECT_MAX);
const _: () = assert!(STEP_BYTES_MAX <= LEAVING_BYTES_PER_STREAM_MAX as usize);
const _: () = assert!(4 * LEAVING_BYTES_PER_STREAM_MAX <= LEAVING_BYTES_PER_CONNECTION_MAX);
const _: () = assert!(LEAVING_BYTES_PER_CONNECTION_MAX <= LEAVING_BYTES_PER_SUBJECT_MAX);
const _: () = assert!(LEAVING_FREE_BYTES < TOLD_VERSIONS_BYTES_MAX);
const _: () = assert!(FIRST_FRAME_BYTES_MAX <= STRANGER_BEGUN_BYTES_MAX as usize);
const _: () = assert!(TAIL_BYTES_MAX <= TAILS_BYTES_MAX);
const _: () = assert!(TOKEN_BYTES_MAX < ADMIN_HEAD_BYTES_MAX);
const _: () = assert!(ADMIN_PAGE <= ADMIN_PAGE_MAX);
const _: () = assert!(REVOCATIONS_PER_MAKER_MAX < REVOCATIONS_MAX);
const _: () = assert!(PATCH_BYTES_GOAL <= TAIL_BYTES_MAX);
const _: () = assert!(GROUP_BYTES_PER_SUBJECT_GOAL <= GROUP_LARGE_BYTES_GOAL);
const _: () = assert!(SMALL_APPEND_BYTES_MAX < GROUP_BYTES_PER_SUBJECT_GOAL);
const _: () = assert!(BLOB_GATHERING_PER_SUBJECT_MAX < BLOB_GATHERING_MAX);

/// What an operator allows. Each value is at least 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Handshakes at a time; more are refused. Default 256.
    pub handshakes: u32,
    /// Handshakes at a time from which on newcomers have to prove first that their address is
    /// theirs (QUIC Retry). Default 64.
    pub unproved_handshakes: u32,
    /// Handshakes a second from one address; more are refused. All of an IPv6 /64 are one address,
    /// here and below. Default 200.
    pub handshakes_per_second_per_address: u32,
    /// Connections at a time; more are refused. Default 4,096.
    pub connections: u32,
    /// Connections at a time from one address; more are refused. Default 2,048.
    pub connections_per_address: u32,
    /// Connections at a time that have opened no store yet; more are refused. One address has at
    /// most a quarter of them. Default 2,048.
    pub strangers: u32,
    /// Connections at a time on which one subject has stores open; more are refused as busy.
    /// Default 256.
    pub connections_per_subject: u32,
    /// Seconds from the first packet to the end of the handshake, and from there to the first store
    /// that a token has opened; then the connection is closed. Default 10.
    pub authenticate_seconds: u32,
    /// Streams at a time of a connection that has opened no store yet; more wait. Default 8.
    pub stranger_streams: u32,
    /// Frames a second of such a connection; more wait. Default 64.
    pub stranger_frames_per_second: u32,
    /// Bytes a second of such a connection; more wait. Default 256 KiB.
    pub stranger_bytes_per_second: u32,
    /// Streams at a time of a connection: stores and blob transfers; more wait. Default 64.
    pub streams: u32,
    /// Stores that a connection has open at a time; more are refused as busy. Default 48.
    pub open_stores: u32,
    /// Frames a second of a connection; more wait. Default 20,000.
    pub frames_per_second: u32,
    /// Datagrams a second of a connection; more are dropped, and twice as many end it. Default
    /// 2,000, which is twice what a client sends that shows itself in all stores that it may have
    /// open.
    pub datagrams_per_second: u32,
    /// Bytes a second that are read of a connection; more wait. Default 256 MiB.
    pub bytes_per_second: u32,
    /// The same for all connections of a subject together. Default 512 MiB.
    pub bytes_per_second_per_subject: u32,
    /// Stores; changes for one more are refused as busy. Default 1,000,000.
    pub stores: u64,
    /// Stores that one subject has begun; changes for one more are refused as busy. Default 10,000.
    pub stores_per_subject: u64,
    /// Replicas that a store has changes of; those of one more are refused as too large. Default
    /// 100,000.
    pub replicas_per_store: u64,
    /// Deleted stores whose ids are kept as deleted; with more, only an admin of the relay deletes
    /// further ones. Default 1,000,000.
    pub tombstones: u64,
    /// The same among the stores of one admin, who deletes no further ones then. Default 10,000.
    pub tombstones_per_admin: u64,
    /// Bytes of a blob; a greater one is refused as too large. Default 1 GiB.
    pub blob_bytes: u64,
    /// Bytes of all blobs of a store, with those on their way; one more is refused as too large.
    /// Default 64 GiB.
    pub blob_bytes_per_store: u64,
    /// Blobs of a store, with those on their way; one more is refused as too large. Default
    /// 100,000.
    pub blobs_per_store: u64,
    /// Bytes of what somebody shows of themselves; more is passed over. Default 4 KiB.
    pub presence_bytes: u32,
    /// Presence messages a second of each open store; more are passed over. Default 200.
    pub presence_per_second: u32,
    /// Messages a second that a connection sends to others in all stores that it has open; more are
    /// passed over. Default 100.
    pub signals_per_second: u32,
    /// The same for all connections of a subject together. Default 1,000.
    pub signals_per_second_per_subject: u32,
}

/// What can be reached. The names are those of metrics and logs, and stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// [`Limits::handshakes`].
    Handshakes,
    /// [`Limits::unproved_handshakes`], or an address of which too many come that have not proved
    /// it: they are asked to.
    UnprovedHandshakes,
    /// [`Limits::handshakes_per_second_per_address`].
    HandshakeRate,
    /// [`Limits::connections`].
    Connections,
    /// [`Limits::connections_per_address`].
    ConnectionsPerAddress,
    /// [`Limits::strangers`].
    Strangers,
    /// [`Limits::connections_per_subject`].
    ConnectionsPerSubject,
    /// [`Limits::authenticate_seconds`].
    AuthenticateTime,
    /// [`Limits::streams`] and [`Limits::stranger_streams`].
    Streams,
    /// [`Limits::open_stores`].
    OpenStores,
    /// [`Limits::frames_per_second`] and [`Limits::stranger_frames_per_second`].
    FrameRate,
    /// [`Limits::datagrams_per_second`].
    DatagramRate,
    /// [`Limits::bytes_per_second`] and [`Limits::stranger_bytes_per_second`].
    ByteRate,
    /// [`Limits::bytes_per_second_per_subject`].
    SubjectByteRate,
    /// [`Limits::stores`].
    Stores,
    /// [`Limits::stores_per_subject`].
    StoresPerSubject,
    /// [`Limits::replicas_per_store`].
    ReplicasPerStore,
    /// [`Limits::tombstones`].
    Tombstones,
    /// [`Limits::tombstones_per_admin`].
    TombstonesPerAdmin,
    /// [`Limits::blob_bytes`].
    BlobBytes,
    /// [`Limits::blob_bytes_per_store`].
    BlobBytesPerStore,
    /// [`Limits::blobs_per_store`].
    BlobsPerStore,
    /// The most blobs of a store that may be on their way, which the protocol sets.
    BlobUploads,
    /// [`Limits::presence_bytes`].
    PresenceBytes,
    /// [`Limits::presence_per_second`].
    PresenceRate,
    /// The most that show themselves in a store, which the protocol sets.
    PresencePeers,
    /// [`Limits::signals_per_second`].
    SignalRate,
    /// [`Limits::signals_per_second_per_subject`].
    SubjectSignalRate,
    /// [`BEGUN_BYTES_PER_CONNECTION_MAX`] and what goes with it: large frames on their way.
    BegunBytes,
    /// The time that a slow line needs to take what it is sent, which the protocol sets.
    TakeTime,
    /// The greatest frame, which the protocol sets.
    FrameBytes,
    /// What the admin listener takes: connections, bytes, time.
    Admin,
}

/// A limit that no relay can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.{key} is {found}, but has to be from {least} to {most}")]
pub struct InvalidLimit {
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub found: u64,
    /// The least value that works.
    pub least: u64,
    /// The greatest.
    pub most: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            unproved_handshakes: 64,
            handshakes_per_second_per_address: 200,
            connections: 4_096,
            connections_per_address: 2_048,
            strangers: 2_048,
            connections_per_subject: 256,
            authenticate_seconds: 10,
            stranger_streams: 8,
            stranger_frames_per_second: 64,
            stranger_bytes_per_second: 256 << 10,
            streams: STREAMS_MAX,
            open_stores: 48,
            frames_per_second: 20_000,
            datagrams_per_second: 2_000,
            bytes_per_second: 256 << 20,
            bytes_per_second_per_subject: 512 << 20,
            stores: 1_000_000,
            stores_per_subject: 10_000,
            replicas_per_store: 100_000,
            tombstones: 1_000_000,
            tombstones_per_admin: 10_000,
            blob_bytes: BLOB_BYTES_MAX,
            blob_bytes_per_store: 64 << 30,
            blobs_per_store: 100_000,
            presence_bytes: 4 << 10,
            presence_per_second: PRESENCE_PER_SECOND_MAX,
            signals_per_second: SIGNALS_PER_SECOND_MAX,
            signals_per_second_per_subject: 1_000,
        }
    }
}

impl Limits {
    /// Checks that a relay can work with each of them.
    ///
    /// # Errors
    /// The first that it cannot.
    pub fn check(&self) -> Result<(), InvalidLimit> {
        let any = u64::MAX;
        let rows: [(&'static str, u64, u64, u64); 29] = [
            ("handshakes", self.handshakes.into(), 1, any),
            ("unproved_handshakes", self.unproved_handshakes.into(), 1, self.handshakes.into()),
            (
                "handshakes_per_second_per_address",
                self.handshakes_per_second_per_address.into(),
                1,
                any,
            ),
            ("connections", self.connections.into(), 1, any),
            ("connections_per_address", self.connections_per_address.into(), 1, any),
            ("strangers", self.strangers.into(), 1, any),
            ("connections_per_subject", self.connections_per_subject.into(), 1, any),
            ("authenticate_seconds", self.authenticate_seconds.into(), 1, 3_600),
            ("streams", self.streams.into(), 1, 65_536),
            ("stranger_streams", self.stranger_streams.into(), 1, self.streams.into()),
            ("frames_per_second", self.frames_per_second.into(), 1, any),
            (
                "stranger_frames_per_second",
                self.stranger_frames_per_second.into(),
                1,
                self.frames_per_second.into(),
            ),
            ("datagrams_per_second", self.datagrams_per_second.into(), 1, any),
            ("bytes_per_second", self.bytes_per_second.into(), FIRST_FRAME_BYTES_MAX as u64, any),
            (
                "stranger_bytes_per_second",
                self.stranger_bytes_per_second.into(),
                1,
                self.bytes_per_second.into(),
            ),
            ("bytes_per_second_per_subject", self.bytes_per_second_per_subject.into(), 1, any),
            ("open_stores", self.open_stores.into(), 1, self.streams.into()),
            ("stores", self.stores, 1, any),
            ("stores_per_subject", self.stores_per_subject, 1, any),
            ("replicas_per_store", self.replicas_per_store, 1, REPLICAS_PER_STORE_MAX),
            ("tombstones", self.tombstones, 1, any),
            ("tombstones_per_admin", self.tombstones_per_admin, 1, self.tombstones),
            ("blob_bytes", self.blob_bytes, 1, BLOB_BYTES_MAX),
            ("blob_bytes_per_store", self.blob_bytes_per_store, 1, any),
            ("blobs_per_store", self.blobs_per_store, 1, any),
            ("presence_bytes", self.presence_bytes.into(), 1, PRESENCE_BYTES_MAX as u64),
            ("presence_per_second", self.presence_per_second.into(), 1, any),
            ("signals_per_second", self.signals_per_second.into(), 1, any),
            ("signals_per_second_per_subject", self.signals_per_second_per_subject.into(), 1, any),
        ];
        let bad = rows.into_iter().find(|(_, found, least, most)| found < least || found > most);
        bad.map_or(Ok(()), |(key, found, least, most)| {
            Err(InvalidLimit { key, found, least, most })
        })
    }

    /// How many stores there may be, and replicas in each.
    #[must_use]
    pub const fn store_quota(&self) -> StoreQuota {
        let replicas = self.replicas_per_store;
        StoreQuota { stores: self.stores, per_subject: self.stores_per_subject, replicas }
    }

    /// How long a handshake may take, and a connection be without ever having opened a store.
    #[must_use]
    pub fn authenticate_time(&self) -> Duration {
        Duration::from_secs(self.authenticate_seconds.into())
    }
}

impl Limit {
    /// All of them, in order.
    pub const ALL: [Self; 32] = [
        Self::Handshakes,
        Self::UnprovedHandshakes,
        Self::HandshakeRate,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Strangers,
        Self::ConnectionsPerSubject,
        Self::AuthenticateTime,
        Self::Streams,
        Self::OpenStores,
        Self::FrameRate,
        Self::DatagramRate,
        Self::ByteRate,
        Self::SubjectByteRate,
        Self::Stores,
        Self::StoresPerSubject,
        Self::ReplicasPerStore,
        Self::Tombstones,
        Self::TombstonesPerAdmin,
        Self::BlobBytes,
        Self::BlobBytesPerStore,
        Self::BlobsPerStore,
        Self::BlobUploads,
        Self::PresenceBytes,
        Self::PresenceRate,
        Self::PresencePeers,
        Self::SignalRate,
        Self::SubjectSignalRate,
        Self::BegunBytes,
        Self::TakeTime,
        Self::FrameBytes,
        Self::Admin,
    ];

    /// Its stable name, in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::UnprovedHandshakes => "unproved-handshakes",
            Self::HandshakeRate => "handshake-rate",
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections-per-address",
            Self::Strangers => "strangers",
            Self::ConnectionsPerSubject => "connections-per-subject",
            Self::AuthenticateTime => "authenticate-time",
            Self::Streams => "streams",
            Self::OpenStores => "open-stores",
            Self::FrameRate => "frame-rate",
            Self::DatagramRate => "datagram-rate",
            Self::ByteRate => "byte-rate",
            Self::SubjectByteRate => "subject-byte-rate",
            Self::Stores => "stores",
            Self::StoresPerSubject => "stores-per-subject",
            Self::ReplicasPerStore => "replicas-per-store",
            Self::Tombstones => "tombstones",
            Self::TombstonesPerAdmin => "tombstones-per-admin",
            Self::BlobBytes => "blob-bytes",
            Self::BlobBytesPerStore => "blob-bytes-per-store",
            Self::BlobsPerStore => "blobs-per-store",
            Self::BlobUploads => "blob-uploads",
            Self::PresenceBytes => "presence-bytes",
            Self::PresenceRate => "presence-rate",
            Self::PresencePeers => "presence-peers",
            Self::SignalRate => "signal-rate",
            Self::SubjectSignalRate => "subject-signal-rate",
            Self::BegunBytes => "begun-bytes",
            Self::TakeTime => "take-time",
            Self::FrameBytes => "frame-bytes",
            Self::Admin => "admin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_zero_never_does() {
        Limits::default().check().unwrap();
        let defaults = serde_json::to_value(Limits::default()).unwrap();
        for key in defaults.as_object().unwrap().keys() {
            let mut changed = defaults.clone();
            changed[key] = 0.into();
            let limits: Limits = serde_json::from_value(changed).unwrap();
            assert_eq!(limits.check().unwrap_err().key, key, "it is checked");
        }
    }

    #[test]
    fn strangers_never_have_more_than_members() {
        let of = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.check().map_err(|invalid| invalid.key)
        };
        assert_eq!(of(|limits| limits.streams = 7), Err("stranger_streams"));
        assert_eq!(of(|limits| limits.frames_per_second = 63), Err("stranger_frames_per_second"));
        assert_eq!(of(|limits| limits.open_stores = 65), Err("open_stores"));
        assert_eq!(of(|limits| limits.blob_bytes = BLOB_BYTES_MAX + 1), Err("blob_bytes"));
        assert_eq!(of(|limits| limits.handshakes = 63), Err("unproved_handshakes"));
    }
}
