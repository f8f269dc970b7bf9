//! Stores of one process that share a connection to a real relay.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod presence;
    pub(crate) mod watching;
}

use std::path::Path;

use sds_server::limits::Limits;
use sds_server::{Relay, RelayConfig, Scope};
use sds_sync::limits::STORES_PER_CONNECTION_MAX;
use sds_sync::{ConnectOptions, ConnectionPool, RelayUrl, SyncEngine};
use support::common::{folder, secret, token};
use support::engines::{add_item, connect, engine, engine_of, present, synced, writer};
use support::presence::{has_name, named, sees};
use support::watching::{shows, until};

/// One more than fit on a connection.
const STORES: usize = STORES_PER_CONNECTION_MAX + 1;

fn name(number: usize) -> String {
    format!("s{number}")
}

/// As many stores, at the relay through one pool.
fn stores(folder: &Path, subject: &str, url: &RelayUrl) -> Vec<SyncEngine> {
    let pool = ConnectionPool::new();
    let open = |number| {
        let engine = engine_of(folder, &name(number));
        let token = token(&name(number), subject, Scope::Write);
        engine.connect(ConnectOptions::new(url.clone(), token).with_pool(&pool)).unwrap();
        engine
    };
    (0..STORES).map(open).collect()
}

/// Goal: stores of one process share connections, and each has its own edits and presence over them, also after
/// the relay has gone and come back. Method: a relay that takes just as many connections as that needs, and to
/// one more, which has to wait until those are closed.
#[tokio::test(flavor = "multi_thread")]
async fn stores_of_one_process_share_connections() {
    let (home, desk_folder, phone_folder) = (folder(), folder(), folder());
    let limits = Limits { connections_per_address: 4, ..Limits::default() };
    let config = RelayConfig { limits, ..RelayConfig::new(secret(), home.path()) };
    let relay = Relay::start(config.clone()).await.unwrap();
    let url = relay.url();
    let desk = stores(desk_folder.path(), "desk", &url);
    let phone = stores(phone_folder.path(), "phone", &url);
    for (number, (desk, phone)) in desk.iter().zip(&phone).enumerate() {
        synced(desk).await;
        synced(phone).await;
        add_item(desk, &name(number));
        desk.set_presence_to(Some(named(&name(number)))).unwrap();
    }
    for (number, phone) in phone.iter().enumerate() {
        shows(phone, &[&name(number)]).await;
        assert_eq!(sees(phone, has_name(&name(number))).await.len(), 1);
    }
    let other = folder();
    let more = engine(other.path());
    connect(&more, url, writer("desk"));
    until(&more, |status| status.last_error.is_some()).await;
    more.stop().await.unwrap();

    let listen = relay.local_addr();
    relay.stop().await;
    let relay = Relay::start(RelayConfig { listen, ..config }).await.unwrap();
    for (desk, phone) in desk.iter().zip(&phone) {
        add_item(phone, "t");
        until(desk, |status| status.is_synced()).await;
    }
    for (number, desk) in desk.iter().enumerate() {
        shows(desk, &[&name(number), "t"]).await;
    }

    // The last that leaves a connection closes it.
    for engine in desk {
        engine.stop().await.unwrap();
    }
    let more = present(other.path(), relay.url(), writer("desk")).await;
    more.stop().await.unwrap();
    relay.stop().await;
}
