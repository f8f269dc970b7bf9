//! Presence end to end: between engines over a real relay.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod presence;
    pub(crate) mod relay;
}

use std::sync::{Arc, Mutex};

use sds_server::Scope;
use sds_sync::presence::{PresenceEvent, PresenceState};
use serde_json::json;
use support::common::{folder, token};
use support::engines::{add_item, connect, engine, present, synced, writer};
use support::presence::{has_name, named, sees};
use support::relay::relay;

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_store_see_each_other_and_nobody_else_does() {
    let (home, folders) = (folder(), [(); 3].map(|()| folder()));
    let relay = relay(home.path()).await;
    let ann = present(folders[0].path(), relay.url(), writer("ann@work")).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let subscription = ann.on_presence_change(move |event| {
        heard.lock().unwrap().push(event.clone());
        assert!(!matches!(event, PresenceEvent::Own(None)), "a handler that fails");
    });
    ann.set_presence_to(Some(named("Ann"))).unwrap();
    // Whoever may only read is seen as well, and comes to see who was here before.
    let bob = present(folders[1].path(), relay.url(), token("s", "bob@home", Scope::Read)).await;
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
    let late = present(folders[1].path(), relay.url(), token("s", "bob@home", Scope::Read)).await;
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
    let (home, folders) = (folder(), [(); 2].map(|()| folder()));
    let relay = relay(home.path()).await;
    let bob = present(folders[1].path(), relay.url(), token("s", "bob@home", Scope::Read)).await;
    let ann = engine(folders[0].path());
    for _ in 0..400 {
        let item = add_item(&ann, "");
        let text = "x".repeat(100_000);
        ann.edit(|store| store.write_value(item, text.as_str())).unwrap().unwrap();
    }
    ann.flush().await.unwrap();
    let custom = Some(json!({ "note": "x".repeat(3_500) }));
    ann.set_presence_to(Some(PresenceState { custom, ..named("Ann") })).unwrap();
    connect(&ann, relay.url(), writer("ann@work"));
    sees(&bob, has_name("Ann")).await;
    let status = ann.status();
    let replica = ann.edit(|store| store.replica_id()).unwrap();
    let (stored, local) = (status.stored.next(replica), status.local.next(replica));
    assert!(stored < local / 2, "{stored} of {local}");
    synced(&ann).await;
}
