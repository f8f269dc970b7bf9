//! Stores that are kept equal over a relay: real QUIC on loopback, real files.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod relay;
    pub(crate) mod watching;
}

use std::io::Read;
use std::time::{Duration, SystemTime};

use sds_engine::BlobHash;
use sds_server::{CertificateSource, Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::ItemValue;
use sds_sync::{
    BlobFetch, CertificateHash, ConnectOptions, ConnectionState, RefusalCode, RelayUrl, SyncEngine,
    SyncError, Token, Trust,
};
use support::common::{self, PATIENCE, folder, id, secret};
use support::engines::{add_item, connect, engine, engine_of, present, synced, writer};
use support::relay::relay;
use support::watching::{labels, shows, until};
use tempfile::TempDir;

fn grant(store: &str, scope: Scope) -> Grant {
    common::grant(store, "desk", scope)
}

fn token(store: &str, scope: Scope) -> Token {
    common::token(store, "desk", scope)
}

async fn reaches(engine: &SyncEngine, is_reached: impl Fn(&ConnectionState) -> bool) {
    until(engine, |status| is_reached(&status.connection)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_travel_to_the_others_and_survive_a_restart_of_everything() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let first = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    add_item(&desk, "made offline");
    connect(&desk, first.url(), writer("desk"));
    connect(&phone, first.url(), writer("desk"));
    synced(&desk).await;
    shows(&phone, &["made offline"]).await;
    add_item(&phone, "from phone");
    shows(&desk, &["from phone", "made offline"]).await;
    synced(&phone).await;
    let digest = |engine: &SyncEngine| engine.edit(|store| store.digest()).unwrap();
    assert_eq!(digest(&desk), digest(&phone));
    desk.stop().await.unwrap();
    phone.stop().await.unwrap();
    first.stop().await;

    // Nobody else is online, and the relay is a new one on the old folder.
    let second = relay(home.path()).await;
    let late_dir = folder();
    let late = present(late_dir.path(), second.url(), token("s", Scope::Read)).await;
    assert_eq!(labels(&late), ["from phone", "made offline"]);
    let desk = engine_of(ann_dir.path(), "s");
    assert_eq!(labels(&desk), ["from phone", "made offline"], "before any connection");
    late.stop().await.unwrap();
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_on_one_relay_are_apart() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "a/b"), engine_of(bob_dir.path(), "a_b"));
    connect(&desk, relay.url(), token("a/b", Scope::Write));
    connect(&phone, relay.url(), token("a_b", Scope::Write));
    add_item(&desk, "for a/b");
    synced(&desk).await;
    synced(&phone).await;
    assert_eq!(labels(&phone), [""; 0]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_for_good() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let engine = engine_of(dir.path(), "s");
    let other = Secret::new(&"x".repeat(32)).unwrap();
    let foreign = mint(&other, &grant("s", Scope::Write), SystemTime::now()).unwrap();
    let past = SystemTime::now() - Duration::from_secs(7_200);
    let expired = mint(&secret(), &grant("s", Scope::Write), past).unwrap();
    let rows = [
        (Token::from(String::new()), RefusalCode::Unauthorized),
        (Token::from("garbage".to_owned()), RefusalCode::Unauthorized),
        (foreign, RefusalCode::Unauthorized),
        (expired, RefusalCode::Unauthorized),
        (token("t", Scope::Admin), RefusalCode::Forbidden),
    ];
    for (token, expected) in rows {
        connect(&engine, relay.url(), token);
        let refused = engine.wait_until_synced(PATIENCE).await.unwrap_err();
        assert!(
            matches!(refused, SyncError::Refused { code, .. } if code == expected),
            "{refused}"
        );
        assert!(matches!(engine.status().connection, ConnectionState::Refused { .. }));
    }
    connect(&engine, relay.url(), token("s", Scope::Read));
    synced(&engine).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_receives_but_cannot_send() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    connect(&desk, relay.url(), writer("desk"));
    connect(&phone, relay.url(), token("s", Scope::Read));
    synced(&phone).await;
    add_item(&desk, "news");
    shows(&phone, &["news"]).await;
    add_item(&phone, "kept here");
    let refused = phone.wait_until_synced(PATIENCE).await.unwrap_err();
    assert_eq!(refused.code(), "read-only");
    // The change is not lost: with a better token it gets through.
    connect(&phone, relay.url(), writer("desk"));
    synced(&phone).await;
    shows(&desk, &["kept here", "news"]).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_the_session() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let engine = engine_of(dir.path(), "s");
    let short = Grant { lifetime: Duration::from_secs(2), ..grant("s", Scope::Write) };
    connect(&engine, relay.url(), mint(&secret(), &short, SystemTime::now()).unwrap());
    synced(&engine).await;
    let is_unauthorized = |state: &ConnectionState| {
        matches!(state, ConnectionState::Refused { code: RefusalCode::Unauthorized, .. })
    };
    reaches(&engine, is_unauthorized).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_back_after_the_relay_and_brings_what_was_edited_meanwhile() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let first = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    connect(&desk, first.url(), writer("desk"));
    synced(&desk).await;
    let listen = first.local_addr();
    first.stop().await;
    // The first pause may be over before anybody looks; why the connection ended stays longer.
    let mut status = desk.watch_status();
    let ended = status.wait_for(|status| status.last_error.is_some());
    let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().last_error;
    assert_eq!(ended, Some("shutting-down"));
    add_item(&desk, "meanwhile");
    let config = RelayConfig { listen, ..RelayConfig::new(secret(), home.path()) };
    let second = Relay::start(config).await.unwrap();
    synced(&desk).await;
    connect(&phone, second.url(), writer("desk"));
    shows(&phone, &["meanwhile"]).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_reach_those_who_lack_them_even_when_their_author_has_left() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    let content: Vec<u8> = (0..3_000_001_u32).map(|n| n.to_le_bytes()[1]).collect();
    let item = add_item(&desk, "large");
    desk.edit(|store| store.write_value(item, content.as_slice())).unwrap().unwrap();
    connect(&desk, relay.url(), writer("desk"));
    synced(&desk).await;
    desk.stop().await.unwrap();

    connect(&phone, relay.url(), token("s", Scope::Read));
    synced(&phone).await;
    phone.stop().await.unwrap();
    relay.stop().await;
    let phone = engine_of(bob_dir.path(), "s");
    let blob = phone.read(|store| {
        let item = store.entry_with_id(item).unwrap();
        assert!(!matches!(item.value(), ItemValue::None));
        store.blob(&item.blob_ref().unwrap().hash)
    });
    assert_eq!(blob.unwrap().as_deref(), Some(content.as_slice()), "kept on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_comes_from_a_stream_and_goes_into_one_when_it_is_asked_for() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    let content: Vec<u8> = (0..9_000_001_u32).map(|n| (n % 253) as u8).collect();
    let blob = desk.write_blob(content.as_slice(), false).unwrap();
    let item = add_item(&desk, "film");
    let small = add_item(&desk, "photo");
    desk.edit(|store| store.write_blob_value(item, blob)).unwrap().unwrap();
    desk.edit(|store| store.write_value(small, &content[..5_000])).unwrap().unwrap();
    connect(&desk, relay.url(), writer("desk"));
    synced(&desk).await;

    phone.set_blob_fetch(BlobFetch::UpTo(1_000_000)).unwrap();
    connect(&phone, relay.url(), token("s", Scope::Read));
    synced(&phone).await;
    let value = |engine: &SyncEngine, item| engine.read(|store| store.read_value(item)).unwrap();
    assert_eq!(value(&phone, small).unwrap().as_bytes(), Some(&content[..5_000]));
    assert_eq!(value(&phone, item).unwrap(), ItemValue::Pending(blob), "nobody asked for it");
    assert!(phone.open_blob(&blob.hash).unwrap().is_none());
    assert!(phone.fetch_blob(&blob.hash, PATIENCE).await.unwrap());
    let mut back = Vec::new();
    phone.open_blob(&blob.hash).unwrap().unwrap().read_to_end(&mut back).unwrap();
    assert!(back == content);
    assert!(!phone.fetch_blob(&BlobHash([9; 32]), PATIENCE).await.unwrap(), "nobody refers to it");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_leaves_the_file_with_its_last_reference_and_comes_back_with_the_next() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    let content = vec![7_u8; 60_000];
    let (one, two) = (add_item(&desk, "one"), add_item(&desk, "two"));
    for item in [one, two] {
        desk.edit(|store| store.write_value(item, content.as_slice())).unwrap().unwrap();
    }
    connect(&desk, relay.url(), writer("desk"));
    connect(&phone, relay.url(), writer("desk"));
    synced(&desk).await;
    synced(&phone).await;
    let blob = desk.read(|store| store.referenced_blobs()[0]).unwrap();
    let has = |engine: &SyncEngine| engine.open_blob(&blob.hash).unwrap().is_some();
    desk.edit(|store| store.write_value(one, "no more")).unwrap().unwrap();
    assert!(has(&desk), "the other one refers to it");
    desk.edit(|store| store.write_value(two, "no more")).unwrap().unwrap();
    assert!(!has(&desk));
    synced(&desk).await;
    let mut status = phone.watch_status();
    while has(&phone) {
        status.changed().await.unwrap();
    }
    phone.flush().await.unwrap();
    // The relay still has it, so whoever refers to it gets it again.
    phone.edit(|store| store.write_blob_value(one, blob)).unwrap().unwrap();
    assert!(phone.fetch_blob(&blob.hash, PATIENCE).await.unwrap());
    synced(&phone).await;
    let mut status = desk.watch_status();
    while !has(&desk) {
        status.changed().await.unwrap();
    }
    phone.stop().await.unwrap();
    let phone = engine_of(bob_dir.path(), "s");
    assert!(has(&phone), "what is referred to survives a restart");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_trusted_relay_is_talked_to() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let engine = engine_of(dir.path(), "s");
    let pin = CertificateHash::from_bytes([7; 32]);
    let url = RelayUrl::new("127.0.0.1", relay.local_addr().port(), Some(pin)).unwrap();
    engine.connect(ConnectOptions::new(url, writer("desk"))).unwrap();
    let refused = engine.wait_until_synced(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(refused.code(), "sync-timed-out");
    assert_eq!(engine.status().last_error, Some("untrusted-certificate"));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_a_certificate_from_an_authority_is_trusted_by_its_file() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    let (home, dir) = (folder(), folder());
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let path = |name: &str| home.path().join(name);
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("chain.pem"), leaf.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();

    let files = CertificateSource::Files { chain: path("chain.pem"), key: path("key.pem") };
    let config = RelayConfig { certificate: files, ..RelayConfig::new(secret(), home.path()) };
    let relay = Relay::start(config).await.unwrap();
    let engine = engine_of(dir.path(), "s");
    let url = RelayUrl::new("127.0.0.1", relay.local_addr().port(), None).unwrap();
    let options = ConnectOptions {
        trust: Trust::CaFile(path("ca.pem")),
        ..ConnectOptions::new(url, writer("desk"))
    };
    engine.connect(options).unwrap();
    synced(&engine).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_edits_of_many_replicas_become_equal_everywhere() {
    const REPLICAS: usize = 4;
    const EDITS: usize = 50;
    let home = folder();
    let relay = relay(home.path()).await;
    let folders: Vec<TempDir> = (0..REPLICAS).map(|_| folder()).collect();
    let engines: Vec<SyncEngine> = folders.iter().map(|folder| engine(folder.path())).collect();
    for engine in &engines {
        connect(engine, relay.url(), writer("desk"));
    }
    for edit in 0..EDITS {
        for (author, engine) in engines.iter().enumerate() {
            add_item(engine, &format!("{edit} of {author}"));
        }
    }
    for engine in &engines {
        synced(engine).await;
    }
    let mut all: Vec<String> = (0..EDITS)
        .flat_map(|edit| (0..REPLICAS).map(move |author| format!("{edit} of {author}")))
        .collect();
    all.sort();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for engine in &engines {
        shows(engine, &all).await;
    }
    let digests: Vec<_> =
        engines.iter().map(|engine| engine.edit(|store| store.digest()).unwrap()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_store_is_refused_until_the_deletion_is_taken_back() {
    let (home, dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let (desk, other) = (engine_of(dir.path(), "s"), engine_of(dir.path(), "other"));
    for (engine, store) in [(&desk, "s"), (&other, "other")] {
        add_item(engine, "made before");
        connect(engine, relay.url(), token(store, Scope::Write));
        synced(engine).await;
    }
    assert!(relay.delete_store(&id("s")).unwrap());
    let is_refused = |state: &ConnectionState| {
        matches!(state, ConnectionState::Refused { code: RefusalCode::Forbidden, .. })
    };
    reaches(&desk, is_refused).await;
    connect(&desk, relay.url(), writer("desk"));
    reaches(&desk, is_refused).await;
    add_item(&other, "made after");
    synced(&other).await;
    assert!(relay.log().undelete(&id("s")).unwrap());
    connect(&desk, relay.url(), writer("desk"));
    synced(&desk).await;
    assert_eq!(relay.log().summary(&id("s")).unwrap().unwrap().changes, 1);
    relay.stop().await;
}

/// Goal: a backup needs no pause, and what came after it heals by itself.
/// Method: two devices edit without a pause while a backup is made; the relay is restored from it, and
/// comes back on the same address with the same certificate, without what it took in meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restored_backup_clients_heal_the_gap() {
    let (home, ann_dir, bob_dir) = (folder(), folder(), folder());
    let first = relay(home.path()).await;
    let (desk, phone) = (engine_of(ann_dir.path(), "s"), engine_of(bob_dir.path(), "s"));
    connect(&desk, first.url(), writer("desk"));
    connect(&phone, first.url(), writer("desk"));
    let backup = home.path().join("backup");
    let (log, to) = (first.log().clone(), backup.clone());
    let mut making = None;
    let mut expected = Vec::new();
    for number in 0..60 {
        for engine in [&desk, &phone] {
            expected.push(format!("{number:02}"));
            add_item(engine, &format!("{number:02}"));
        }
        if number == 20 {
            synced(&desk).await;
            let (log, to) = (log.clone(), to.clone());
            making = Some(tokio::task::spawn_blocking(move || log.backup(&to)));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    making.unwrap().await.unwrap().unwrap();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    shows(&desk, &expected).await;
    shows(&phone, &expected).await;
    synced(&desk).await;
    synced(&phone).await;
    let address = first.local_addr();
    first.stop().await;
    drop(log);
    std::fs::remove_file(home.path().join("relay.redb")).unwrap();
    sds_server::backup::restore(&backup, home.path()).unwrap();
    assert!(sds_server::check::check(home.path()).unwrap().is_sound());
    let mut config = RelayConfig::new(secret(), home.path());
    config.listen = address;
    let second = Relay::start(config).await.unwrap();
    // Nothing new is said, so only the gap can be what is sent.
    let late_dir = folder();
    let late = engine_of(late_dir.path(), "s");
    connect(&late, second.url(), token("s", Scope::Read));
    shows(&late, &expected).await;
    assert_eq!(second.log().summary(&id("s")).unwrap().unwrap().changes, 120);
    second.stop().await;
    assert!(sds_server::check::check(home.path()).unwrap().is_sound());
}
