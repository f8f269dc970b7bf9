//! Every bound on what a peer, a file or a caller can make this crate hold.

use std::time::Duration;

use sds_engine::limits::CHANGE_BYTES_MAX;

/// The protocol version that this program speaks; a greater one is refused.
pub const PROTOCOL_VERSION: u16 = 4;

/// Bytes of the length before each frame.
pub const FRAME_LENGTH_BYTES: usize = 4;

/// What the fields around the largest payload of a frame may take, in bytes.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = 64 << 10;

/// The greatest frame, in bytes: the greatest change, alone in its patch.
pub const FRAME_BYTES_MAX: usize = CHANGE_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX;

/// The greatest frame of a stream whose token was not checked yet, in bytes.
pub const FIRST_FRAME_BYTES_MAX: usize = 64 << 10;

/// The greatest frame of a stream that carries a blob, in bytes.
pub const BLOB_FRAME_BYTES_MAX: usize = BLOB_CHUNK_BYTES_MAX + 64;

/// Changes are sent in frames of about this size, in bytes; only a larger change makes a larger
/// one.
pub const PATCH_BYTES_GOAL: usize = 1 << 20;

/// The most changes in one frame.
pub const PATCH_CHANGES_MAX: usize = 4_096;

/// The greatest frame of several changes, in bytes: the goal, and what goes around each change.
pub const PATCH_BYTES_MAX: usize = PATCH_BYTES_GOAL + FRAME_OVERHEAD_BYTES_MAX;

/// The greatest encoded version that opens a session, in bytes. A greater one is cut: naming less
/// than one has costs duplicates, never data.
pub const OPEN_VERSION_BYTES_MAX: usize = 32 << 10;

/// The most seats of its file that a client asks about when it opens a store.
pub const OPEN_SEATS_MAX: usize = 64;

/// How often a file takes a new id at a relay's word between two edits of its own; an honest relay makes it
/// take one, or two. At the word of peers that only read it takes as many as long as it runs.
pub const RESEATS_MAX: u32 = 5;

/// The log of a store's file gives way to a snapshot when it has so many bytes, and as many as the
/// changes that are in the last snapshot: so writing snapshots costs no more than in proportion to the
/// changes, each of which is packed about twice.
pub const CHECKPOINT_BYTES_MIN: usize = 512 << 10;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// The most stores, or beginnings of their names, that a token may name.
pub const TOKEN_STORES_MAX: usize = 64;

/// The most secrets that tokens are checked with.
pub const KEYS_MAX: usize = 16;

/// The longest name of a secret, in bytes.
pub const KEY_ID_BYTES_MAX: usize = 64;

/// The longest subject of a token, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1_024;

/// The longest name of a token (`jti`), in bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 256;

/// The shortest secret that signs tokens, in characters.
pub const SECRET_CHARS_MIN: usize = 32;

/// The longest id of a store, in bytes. Every byte may take three in a file name.
pub const STORE_ID_BYTES_MAX: usize = 80;

/// The longest message that explains a refusal, in bytes.
pub const REFUSAL_MESSAGE_BYTES_MAX: usize = 1_024;

/// The greatest blob, in bytes.
pub const BLOB_BYTES_MAX: u64 = 1 << 30;

/// The most bytes of a blob in one frame.
pub const BLOB_CHUNK_BYTES_MAX: usize = 1 << 20;

/// The most blobs of a store of which parts are kept to go on with. The one begun first of those that
/// are not being written gives way.
pub const BLOB_PARTS_MAX: usize = 16;

/// The most bytes of a file that are kept in memory.
pub const FILE_CACHE_BYTES: usize = 32 << 20;

/// The most bytes of a log that are read from disk at a time; a larger change comes alone.
pub const LOG_PAGE_BYTES_MAX: usize = 4 << 20;

/// How much memory the changes may take that are taken from one client at a time, in bytes; a larger
/// change comes alone.
pub const APPEND_BYTES_GOAL: usize = 4 << 20;

/// The most changes that are taken from one client at a time.
pub const APPEND_CHANGES_MAX: usize = 2 * PATCH_CHANGES_MAX;

/// The most bytes of local changes that may wait for the disk before edits are refused.
pub const UNSAVED_BYTES_MAX: usize = 256 << 20;

/// The most bytes that are read from a stream at a time.
pub const READ_BYTES_MAX: usize = 256 << 10;

/// An engine that serves others reads its log for each of them in parts of so many bytes, but for a change
/// that is larger, and of so many changes at most.
pub const LOG_PART_BYTES_GOAL: usize = PATCH_BYTES_GOAL;
/// The most changes in such a part.
pub const LOG_PART_CHANGES_MAX: usize = 2 * PATCH_CHANGES_MAX;

/// How often a peer may have the store of a listening engine open on one connection at a time: more than once
/// while a former session ends.
pub const PEER_SESSIONS_MAX: usize = 4;

/// So many stores of one process share a connection: each has a stream, and some more for blobs, of those that
/// a relay allows.
pub const STORES_PER_CONNECTION_MAX: usize = 12;

/// The most frames from datagrams that wait for the store that they are for; what comes faster is lost.
pub const DATAGRAMS_WAITING_MAX: usize = 256;

/// The most streams that one connection may have open: stores and blob transfers.
pub const STREAMS_MAX: u32 = 64;

/// The most bytes that one stream may have on its way before they are read.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The same for all streams of a connection together, and for what one side sends.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The same for all streams of a client that has opened no store yet.
pub const STRANGER_WINDOW_BYTES: u32 = 256 << 10;

/// How many bytes of packets the system is asked to keep for an endpoint that takes connections, each way.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// How many first packets of clients may wait to be looked at.
pub const INCOMING_MAX: usize = 4_096;

/// How many bytes of further packets may wait with each of them, and with all together.
pub const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
/// See [`INCOMING_BUFFER_BYTES`].
pub const INCOMING_BUFFERS_BYTES: u64 = 8 << 20;

/// How many frames that go out may wait between the loop of a connection and its stream.
pub const FRAME_QUEUE_MAX: usize = 4;

/// How many frames that have arrived may wait for the loop of a connection, and how many bytes they may
/// have; a larger one waits alone. Small ones may be many, so that one commit takes what came while the
/// one before was on its way to the disk.
pub const ARRIVED_FRAMES_MAX: usize = 1_024;
/// See [`ARRIVED_FRAMES_MAX`].
pub const ARRIVED_BYTES_MAX: u32 = 1 << 20;

/// How long after a failed write the first attempt comes that nobody asks for; each later one comes after twice
/// as long, up to [`WRITE_RETRY_MAX`].
pub const WRITE_RETRY_MIN: Duration = Duration::from_millis(500);

/// How long the disk is left alone at most while something waits for it.
pub const WRITE_RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a file that another process has open is waited for.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long a process waits for the file of a store that another one has, without a sign of it.
pub const OWNER_PATIENCE: Duration = Duration::from_secs(60);

/// The first and the last ceiling of the pause before it tries again.
pub const OWNER_RETRY_MIN: Duration = Duration::from_millis(4);
/// See [`OWNER_RETRY_MIN`].
pub const OWNER_RETRY_MAX: Duration = Duration::from_millis(128);

/// How long the owner of a file may be silent before a guest looks for another one.
pub const OWNER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a guest that comes back waits at the owner for the end of its former session, which may still be
/// writing: until then that has the seat.
pub const SEAT_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 2 });

const _: () = assert!(SEAT_PATIENCE.as_secs() < OWNER_TIMEOUT.as_secs());

/// How long whoever connects may take to shake hands, and a connection may be without an open store.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long streams and connections may take to end when who serves them stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many peers may be connected at a time to an engine that listens.
pub const PEERS_MAX: usize = 64;

/// The most handshakes at a time before peers have to prove first that their address is theirs.
pub const UNPROVED_PEERS_MAX: usize = 8;

/// How long a client may take for a piece of a blob, beyond the time that its bytes need.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(30);

/// The slowest line over which a blob is still taken, in bytes a second.
pub const BLOB_BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// How long a client may take for a piece of a blob with this many bytes.
#[must_use]
pub const fn chunk_timeout(bytes: u64) -> Duration {
    CHUNK_PATIENCE.saturating_add(Duration::from_secs(bytes / BLOB_BYTES_PER_SECOND_MIN))
}

/// How many local connections the owner of a file serves at a time.
pub const GUESTS_MAX: usize = 128;

/// How long a connection attempt may take, for each address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an address of a relay may take before the next one is tried beside it.
pub const CONNECT_LEAD: Duration = Duration::from_millis(250);

/// How long the other side may take to answer the first frame.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a quiet connection is proved alive.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// When a connection without any sign of life counts as lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long whoever waits for a token's end sleeps at most before looking at the clock again.
pub const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// The first pause before a blob that the relay lacks is asked for again; it doubles.
pub const BLOB_RETRY_MIN: Duration = Duration::from_millis(250);

/// The last pause before a blob that the relay lacks is asked for again.
pub const BLOB_RETRY_MAX: Duration = Duration::from_secs(10);

/// The most bytes of what somebody shows of themselves.
pub const PRESENCE_BYTES_MAX: usize = 4 << 10;

/// The most bytes of a token's subject that are shown with it; a longer one is cut.
pub const PRESENCE_SUBJECT_BYTES_MAX: usize = 256;

/// The most who can be seen in a store at a time; who comes later is not shown.
pub const PRESENCE_PEERS_MAX: usize = 256;

/// How many who have left are remembered, so that what of them was on its way does not bring them back.
pub const PRESENCE_DEPARTED_MAX: usize = 256;

/// How often somebody's state is sent and passed on at most; what comes between is replaced.
pub const PRESENCE_INTERVAL: Duration = Duration::from_millis(50);

/// When a state that was sent so that it may get lost is sent again so that it arrives.
pub const PRESENCE_SETTLE: Duration = Duration::from_millis(300);

/// When somebody who is not heard of is gone.
pub const PRESENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a state that stays is sent again.
pub const PRESENCE_REPEAT: Duration = Duration::from_secs(PRESENCE_TIMEOUT.as_secs() / 4);

/// The most presence messages of a client in a second; further ones are passed over.
pub const PRESENCE_PER_SECOND_MAX: u32 = 200;

/// The most bytes of a message between those who have a store open.
pub const SIGNAL_BYTES_MAX: usize = 16 << 10;

/// How many such messages a client sends in a second at most; further ones wait.
pub const SIGNALS_PER_SECOND: u32 = 50;

/// How many of a client are passed on in a second at most, wherever seconds begin; further ones are passed
/// over.
pub const SIGNALS_PER_SECOND_MAX: u32 = 2 * SIGNALS_PER_SECOND;

/// How many such messages wait for a client that does not read, or to be sent; further ones are passed
/// over, or refused.
pub const SIGNALS_WAITING_MAX: usize = 64;

/// How many bytes of datagrams may wait to be read, or to be sent; older ones give way.
pub const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;

/// How long a stream or connection may take to close in good order.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The first ceiling of the pause before a new connection attempt.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(250);

/// When a source of tokens that had none is asked again.
pub const TOKEN_RETRY: Duration = Duration::from_secs(5);

/// The longest pause that a relay may ask for before it is connected to again.
pub const COME_BACK_MAX: Duration = Duration::from_secs(300);

/// The last ceiling of the pause before a new connection attempt.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(CHANGE_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(PATCH_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(PATCH_CHANGES_MAX * size_of::<u64>() < FRAME_OVERHEAD_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= FRAME_BYTES_MAX);
const _: () = assert!(PATCH_CHANGES_MAX <= APPEND_CHANGES_MAX);
const _: () = assert!(BLOB_CHUNK_BYTES_MAX < BLOB_FRAME_BYTES_MAX);
const _: () = assert!(BLOB_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(
    OPEN_VERSION_BYTES_MAX + TOKEN_BYTES_MAX + STORE_ID_BYTES_MAX + 10 * OPEN_SEATS_MAX
        < FIRST_FRAME_BYTES_MAX
);
const _: () = assert!(FIRST_FRAME_BYTES_MAX <= STRANGER_WINDOW_BYTES as usize);
const _: () = assert!(STRANGER_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(3 * STORE_ID_BYTES_MAX + ".sds".len() <= 255);
const _: () = assert!(PRESENCE_BYTES_MAX + PRESENCE_SUBJECT_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(SIGNAL_BYTES_MAX + PRESENCE_SUBJECT_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(DATAGRAM_BUFFER_BYTES <= STRANGER_WINDOW_BYTES as usize);
const _: () = assert!(PRESENCE_INTERVAL.as_millis() < PRESENCE_SETTLE.as_millis());
const _: () = assert!(KEEP_ALIVE_INTERVAL.as_secs() < IDLE_TIMEOUT.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_chunk_may_come_over_a_slow_line() {
        let modem = Duration::from_secs(BLOB_CHUNK_BYTES_MAX as u64 / (5 << 10));
        assert!(chunk_timeout(BLOB_CHUNK_BYTES_MAX as u64) > modem);
        assert_eq!(chunk_timeout(1), CHUNK_PATIENCE, "one byte is no reason to wait for minutes");
    }
}
