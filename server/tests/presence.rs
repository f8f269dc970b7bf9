//! Presence end to end: between engines over a real relay.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::EntryId;
use sds_sync::presence::{PeerPresence, PresenceEvent, PresenceState};
use sds_sync::{ConnectOptions, LocalStore, RelayUrl, StoreId, SyncEngine, Token};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn secret() -> Secret {
    Secret::new("a secret of more than thirty-two characters").unwrap()
}

fn token(subject: &str, scope: Scope) -> Token {
    let lifetime = Duration::from_secs(3_600);
    let (store, subject) = (StoreId::new("s").unwrap(), subject.to_owned());
    let grant = Grant { stores: store.into(), subject, scope, lifetime, issuer: None };
    mint(&secret(), &grant, SystemTime::now()).unwrap()
}

async fn engine(folder: &TempDir, url: RelayUrl, token: Token) -> SyncEngine {
    let id = StoreId::new("s").unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &id).unwrap());
    engine.connect(ConnectOptions::new(url, token)).unwrap();
    engine.wait_until_synced(PATIENCE).await.unwrap();
    engine
}

fn named(name: &str) -> PresenceState {
    PresenceState { name: Some(name.to_owned()), ..PresenceState::default() }
}

/// Waits until `engine` sees what the test expects.
async fn sees(engine: &SyncEngine, is_it: impl Fn(&[PeerPresence]) -> bool) -> Vec<PeerPresence> {
    let mut changed = engine.watch_presence();
    let waiting = async {
        loop {
            let peers = engine.presence();
            if is_it(&peers) {
                return peers;
            }
            changed.changed().await.unwrap();
        }
    };
    let seen = tokio::time::timeout(PATIENCE, waiting).await;
    seen.unwrap_or_else(|_| panic!("{:?}", engine.presence()))
}

fn has_name(name: &str) -> impl Fn(&[PeerPresence]) -> bool {
    move |peers| peers.iter().any(|peer| peer.state.name.as_deref() == Some(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_store_see_each_other_and_nobody_else_does() {
    let (home, folders) = (TempDir::new().unwrap(), [(); 3].map(|()| TempDir::new().unwrap()));
    let relay = Relay::start(RelayConfig::new(secret(), home.path())).await.unwrap();
    let ann = engine(&folders[0], relay.url(), token("ann@work", Scope::Write)).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let subscription = ann.on_presence_change(move |event| {
        heard.lock().unwrap().push(event.clone());
        assert!(!matches!(event, PresenceEvent::Own(None)), "a handler that fails");
    });
    ann.set_presence_to(Some(named("Ann"))).unwrap();
    // Whoever may only read is seen as well, and comes to see who was here before.
    let bob = engine(&folders[1], relay.url(), token("bob@home", Scope::Read)).await;
    let peers = sees(&bob, has_name("Ann")).await;
    assert_eq!((peers.len(), peers[0].subject.as_str()), (1, "ann@work"));
    assert!(ann.presence().is_empty(), "who shows nothing is not seen");
    // A state that is too large for a datagram comes as well.
    let custom = Some(json!({ "note": "x".repeat(3_500) }));
    bob.set_presence_to(Some(PresenceState { custom: custom.clone(), ..named("Bob") })).unwrap();
    let peers = sees(&ann, has_name("Bob")).await;
    assert_eq!((&peers[0].state.custom, peers[0].subject.as_str()), (&custom, "bob@home"));
    let too_large = PresenceState { custom: Some(json!("x".repeat(5_000))), ..named("B") };
    assert!(bob.set_presence_to(Some(too_large)).is_err());
    // Quick changes come to rest at the last one.
    for number in 0..200 {
        ann.set_presence_to(Some(named(&format!("Ann {number}")))).unwrap();
    }
    sees(&bob, has_name("Ann 199")).await;
    ann.set_presence_to(None).unwrap();
    sees(&bob, |peers| peers.is_empty()).await;
    ann.set_presence_to(Some(named("Ann again"))).unwrap();
    sees(&bob, has_name("Ann again")).await;
    // What is shown is never kept, and nobody stays who has left.
    bob.stop().await.unwrap();
    sees(&ann, |peers| peers.is_empty()).await;
    let late = engine(&folders[1], relay.url(), token("bob@home", Scope::Read)).await;
    sees(&late, has_name("Ann again")).await;
    assert!(ann.presence().is_empty());
    relay.stop().await;
    sees(&late, |peers| peers.is_empty()).await;
    drop(subscription);
    ann.set_presence_to(None).unwrap();
    let events = events.lock().unwrap();
    let own = events.iter().filter(|event| matches!(event, PresenceEvent::Own(_))).count();
    assert_eq!(own, 203);
    assert!(matches!(events.last(), Some(PresenceEvent::Left(_))));
}

/// Goal: a long upload makes nobody seem gone.
/// Method: Ann connects with much that the relay lacks, and shows what is too large for a datagram. Bob
/// sees her before even half of it has arrived.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_much_to_send_is_seen_meanwhile() {
    let (home, folders) = (TempDir::new().unwrap(), [(); 2].map(|()| TempDir::new().unwrap()));
    let relay = Relay::start(RelayConfig::new(secret(), home.path())).await.unwrap();
    let bob = engine(&folders[1], relay.url(), token("bob@home", Scope::Read)).await;
    let id = StoreId::new("s").unwrap();
    let ann = SyncEngine::start(LocalStore::open_or_create(folders[0].path(), &id).unwrap());
    for _ in 0..400 {
        ann.edit(|store| {
            let item = store.new_item_at(None, EntryId::ROOT, None).unwrap();
            store.write_value(item, "x".repeat(100_000).as_str()).unwrap();
        })
        .unwrap();
    }
    ann.flush().await.unwrap();
    let custom = Some(json!({ "note": "x".repeat(3_500) }));
    ann.set_presence_to(Some(PresenceState { custom, ..named("Ann") })).unwrap();
    ann.connect(ConnectOptions::new(relay.url(), token("ann@work", Scope::Write))).unwrap();
    sees(&bob, has_name("Ann")).await;
    let status = ann.status();
    let replica = ann.edit(|store| store.replica_id()).unwrap();
    let (stored, local) = (status.stored.next(replica), status.local.next(replica));
    assert!(stored < local / 2, "{stored} of {local}");
    ann.wait_until_synced(PATIENCE).await.unwrap();
}
