//! What a relay and its clients agree on while a store is open: newer tokens, messages to each other, and
//! when to come back.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod relay;
    pub(crate) mod watching;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sds_server::{Grant, Scope};
use sds_sync::limits::{SIGNAL_BYTES_MAX, SIGNALS_PER_SECOND};
use sds_sync::presence::PeerId;
use sds_sync::{
    ConnectOptions, ConnectionState, LocalStore, RefusalCode, Signal, SignalError, SyncEngine,
    Token, TokenSource,
};
use support::common::{PATIENCE, folder, grant, secret, sign};
use support::engines::{add_item, connect, engine, present, synced, writer};
use support::relay::relay;
use support::watching::{shows, until};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

fn token_of(subject: &str, scope: Scope, lifetime: Duration) -> Token {
    sign(&Grant { lifetime, ..grant("s", subject, scope) })
}

async fn is_refused(engine: &SyncEngine, expected: RefusalCode) {
    until(engine, |status| {
        matches!(status.connection, ConnectionState::Refused { code, .. } if code == expected)
    })
    .await;
}

async fn may_write(engine: &SyncEngine, expected: bool) {
    let expected = ConnectionState::Connected { writable: expected };
    until(engine, |status| status.connection == expected).await;
}

/// ACCEPTANCE 176, and what keeps it from happening.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_lets_a_session_go_on_and_without_it_ends() {
    let (home, dir, other) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine(dir.path()), engine(other.path()));
    let brief = Duration::from_secs(2);
    connect(&desk, relay.url(), token_of("desk", Scope::Write, brief));
    connect(&phone, relay.url(), token_of("phone", Scope::Write, brief));
    synced(&desk).await;
    synced(&phone).await;
    desk.refresh_token(writer("desk")).unwrap();
    is_refused(&phone, RefusalCode::Unauthorized).await;
    add_item(&desk, "after the first token's end");
    assert!(desk.status().connection == ConnectionState::Connected { writable: true });
    synced(&desk).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_may_allow_more_or_less_and_counts_at_once() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let desk = engine(dir.path());
    let hour = Duration::from_secs(3_600);
    connect(&desk, relay.url(), token_of("desk", Scope::Read, hour));
    may_write(&desk, false).await;
    let item = add_item(&desk, "kept until it may be sent");
    // What is kept apart has to go out as well.
    let large = vec![7_u8; 50_000];
    desk.edit(|store| store.write_value(item, large.as_slice())).unwrap().unwrap();
    desk.refresh_token(writer("desk")).unwrap();
    may_write(&desk, true).await;
    synced(&desk).await;
    assert_eq!(desk.status().blobs_to_send, 0);
    desk.refresh_token(token_of("desk", Scope::Read, hour)).unwrap();
    may_write(&desk, false).await;
    add_item(&desk, "kept again");
    desk.flush().await.unwrap();
    assert_eq!(desk.status().connection, ConnectionState::Connected { writable: false });
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_of_somebody_else_or_of_nobody_ends_the_session() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let desk = engine(dir.path());
    let past = token_of("desk", Scope::Write, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let rows = [(writer("phone"), RefusalCode::Forbidden), (past, RefusalCode::Unauthorized)];
    for (newer, expected) in rows {
        connect(&desk, relay.url(), writer("desk"));
        synced(&desk).await;
        desk.refresh_token(newer).unwrap();
        is_refused(&desk, expected).await;
    }
    assert!(desk.refresh_token(writer("desk")).is_err(), "nothing is connected any more");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_tokens_keeps_a_store_connected() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let desk = engine(dir.path());
    let brief = || token_of("desk", Scope::Write, Duration::from_secs(2));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = TokenSource::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Some(brief()) }
    });
    let expired = token_of("desk", Scope::Write, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    desk.connect(ConnectOptions::new(relay.url(), expired).with_tokens(source)).unwrap();
    synced(&desk).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        let connection = desk.status().connection;
        assert_eq!(connection, ConnectionState::Connected { writable: true });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked.load(Ordering::Relaxed) >= 3, "once refused, and then before each end");
    relay.stop().await;
}

async fn heard(signals: &mut Receiver<Signal>) -> Signal {
    timeout(PATIENCE, signals.recv()).await.expect("a message in time").unwrap()
}

async fn peer_id(engine: &SyncEngine) -> PeerId {
    let wait = async {
        loop {
            if let Some(peer) = engine.peer_id() {
                return peer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the relay names everybody")
}

/// ACCEPTANCE 178.
#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_one_or_all_others_unchanged_whatever_the_scope() {
    let home = folder();
    let dirs = [folder(), folder(), folder()];
    let relay = relay(home.path()).await;
    let engines = [engine(dirs[0].path()), engine(dirs[1].path()), engine(dirs[2].path())];
    let [desk, phone, tablet] = &engines;
    let early = desk.signal(None, "nobody is there");
    assert_eq!(early, Err(SignalError::NotConnected));
    let mut inboxes = engines.each_ref().map(SyncEngine::signals);
    let scopes = [Scope::Read, Scope::Write, Scope::Read];
    for (number, (engine, scope)) in engines.iter().zip(scopes).enumerate() {
        let token = token_of(&format!("user {number}"), scope, PATIENCE);
        connect(engine, relay.url(), token);
        peer_id(engine).await;
    }
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(SIGNAL_BYTES_MAX).collect();
    desk.signal(None, bytes.clone()).unwrap();
    let desk_id = peer_id(desk).await;
    for inbox in &mut inboxes[1..] {
        let signal = heard(inbox).await;
        assert_eq!((signal.from, &*signal.subject), (desk_id, "user 0"));
        assert_eq!(signal.message, bytes);
    }
    phone.signal(Some(desk_id), "an answer").unwrap();
    assert_eq!(heard(&mut inboxes[0]).await.message, "an answer");
    tablet.signal(Some(PeerId(1)), "to nobody").unwrap();
    tablet.signal(None, "the last").unwrap();
    assert_eq!(heard(&mut inboxes[1]).await.message, "the last", "and nothing before it");
    assert_eq!(heard(&mut inboxes[0]).await.message, "the last");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_wait_their_turn_and_changes_go_on_beside_them() {
    let (home, dir, other) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine(dir.path()), engine(other.path()));
    connect(&desk, relay.url(), writer("desk"));
    connect(&phone, relay.url(), writer("phone"));
    peer_id(&desk).await;
    peer_id(&phone).await;
    let mut inbox = phone.signals();
    let total = SIGNALS_PER_SECOND + 10;
    for number in 0..total {
        desk.signal(None, number.to_le_bytes().to_vec()).unwrap();
    }
    add_item(&desk, "beside them");
    shows(&phone, &["beside them"]).await;
    for number in 0..total {
        assert_eq!(heard(&mut inbox).await.message, number.to_le_bytes().as_slice());
    }
    relay.stop().await;
}

/// ACCEPTANCE 182: whoever is connected is told, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_says_so_and_clients_come_back_to_the_next() {
    let (home, dir) = (folder(), folder());
    let first = relay(home.path()).await;
    let address = first.local_addr();
    let desk = present(dir.path(), first.url(), writer("desk")).await;
    first.stop().await;
    until(&desk, |status| status.last_error == Some("shutting-down")).await;
    add_item(&desk, "made while nobody was there");
    let again = sds_server::RelayConfig {
        listen: address,
        ..sds_server::RelayConfig::new(secret(), home.path())
    };
    let second = sds_server::Relay::start(again).await.unwrap();
    synced(&desk).await;
    second.stop().await;
}

/// DESIGN 5: nobody writes in another's name. A file whose ids belong to another subject goes on under
/// new ones, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_subject_goes_on_with_takes_new_ids() {
    let (home, dir, other) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let desk = engine(dir.path());
    connect(&desk, relay.url(), writer("ann"));
    add_item(&desk, "as ann");
    synced(&desk).await;
    let former = desk.read(sds_store::DataStore::replica_id).unwrap();
    desk.disconnect().await;
    add_item(&desk, "not yet sent");
    connect(&desk, relay.url(), writer("bob"));
    synced(&desk).await;
    add_item(&desk, "as bob");
    synced(&desk).await;
    assert_ne!(desk.read(sds_store::DataStore::replica_id).unwrap(), former);
    let phone = engine(other.path());
    connect(&phone, relay.url(), writer("carol"));
    shows(&phone, &["as ann", "as bob", "not yet sent"]).await;
    // And back again, with nothing to be made again.
    connect(&desk, relay.url(), writer("ann"));
    add_item(&desk, "as ann again");
    synced(&desk).await;
    shows(&phone, &["as ann", "as ann again", "as bob", "not yet sent"]).await;
    relay.stop().await;
}

/// The same of a guest, whose file another process owns. Only the owner could make changes again: what the
/// guest has made under an id that is another subject's waits for that one, and is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_another_subject_goes_on_with_takes_a_new_id_and_makes_nothing_twice() {
    let (home, dir, other) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let owner = engine(dir.path());
    let path = dir.path().to_owned();
    // It asks the owner, which needs this runtime.
    let local = tokio::task::spawn_blocking(move || {
        LocalStore::open_or_create(&path, &support::common::id("s")).unwrap()
    });
    let guest = SyncEngine::start(local.await.unwrap());
    connect(&guest, relay.url(), writer("ann"));
    add_item(&guest, "as ann");
    synced(&guest).await;
    let former = guest.read(sds_store::DataStore::replica_id).unwrap();
    guest.disconnect().await;
    add_item(&guest, "not yet sent");
    guest.flush().await.unwrap();
    connect(&guest, relay.url(), writer("bob"));
    until(&guest, |status| {
        let is_connected = matches!(status.connection, ConnectionState::Connected { .. });
        let is_new = guest.read(sds_store::DataStore::replica_id).unwrap() != former;
        is_connected && is_new && status.last_error == Some("not-yours")
    })
    .await;
    add_item(&guest, "as bob");
    guest.flush().await.unwrap();
    let phone = engine(other.path());
    connect(&phone, relay.url(), writer("carol"));
    shows(&phone, &["as ann"]).await;
    let all = ["as ann", "as bob", "not yet sent"];
    shows(&owner, &all).await;
    shows(&guest, &all).await;
    // Ann may send it, and what builds on it.
    connect(&guest, relay.url(), writer("ann"));
    shows(&phone, &all).await;
    synced(&guest).await;
    connect(&owner, relay.url(), writer("dora"));
    add_item(&owner, "by the owner");
    synced(&owner).await;
    guest.stop().await.unwrap();
    owner.stop().await.unwrap();
    let owner = engine(dir.path());
    let all = ["as ann", "as bob", "by the owner", "not yet sent"];
    shows(&owner, &all).await;
    shows(&phone, &all).await;
    relay.stop().await;
}

/// Goal: whoever carries the changes of somebody whom the relay knows waits for their author, says so,
/// and goes on by itself then.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_somebody_else_wait_for_their_author() {
    let (home, dir, other) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine(dir.path()), engine(other.path()));
    connect(&desk, relay.url(), writer("ann"));
    add_item(&desk, "known");
    synced(&desk).await;
    connect(&phone, relay.url(), writer("bob"));
    shows(&phone, &["known"]).await;
    synced(&phone).await;
    desk.disconnect().await;
    phone.disconnect().await;
    // Ann's edit reaches Bob on another way than the relay, and he builds on it.
    let version = phone.read(|store| store.version().clone()).unwrap();
    let item = add_item(&desk, "of ann");
    desk.flush().await.unwrap();
    let patch = desk.read(|store| store.export_patch(&version)).unwrap();
    phone.edit(|store| store.apply_remote_patch(&patch)).unwrap().unwrap();
    phone.edit(|store| store.set_label(item, "changed by bob")).unwrap().unwrap();
    connect(&phone, relay.url(), writer("bob"));
    until(&phone, |status| status.last_error == Some("not-yours")).await;
    let is_synced = phone.wait_until_synced(Duration::from_millis(300)).await;
    assert_eq!(is_synced.unwrap_err().code(), "sync-timed-out");
    connect(&desk, relay.url(), writer("ann"));
    synced(&desk).await;
    synced(&phone).await;
    shows(&desk, &["changed by bob", "known"]).await;
    relay.stop().await;
}
