//! Who may do what, row by row, over real QUIC: which tokens open which stores, and what each scope
//! allows then. What happens to tokens while they are in use is in `terms` and `admin_tokens`.

mod support {
    #[expect(dead_code, reason = "only tokens are asked for")]
    pub(crate) mod admin;
    pub(crate) mod common;
    pub(crate) mod http;
    pub(crate) mod stream;
}

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use sds_engine::{Change, Patch, Version};
use sds_server::{KeyId, Keyring, Relay, RelayConfig, Scope, Secret};
use sds_sync::presence::PresenceState;
use sds_sync::transport::Connection;
use sds_sync::{ClientFrame, RefusalCode, RelayFrame, Token};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::admin::{ask, relay_of};
use support::common::{self, SECRET, folder, secret};
use support::stream::{Stream, change, client};
use tokio::time::timeout;

const OTHER: &str = "another secret of more than thirty-two characters";
/// The first version with presence, and the last that opens without seats being asked about.
const PROTOCOL: u16 = 3;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(header: &Header, secret: &str, claims: &Value) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// The claims of a good token, with some of them changed; null takes one away.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({"sub": "desk", "aud": "s", "scope": "write", "exp": now() + 3_600});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn token(changes: &Value) -> String {
    sign(&Header::new(Algorithm::HS256), SECRET, &claims(changes))
}

fn named(kid: &str, secret: &str) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(kid.to_owned());
    sign(&header, secret, &claims(&json!({})))
}

async fn relay(folder: &Path, issuer: Option<&str>) -> (Relay, SocketAddr) {
    let mut keys = Keyring::from(secret());
    keys.add(Some(KeyId::new("next").unwrap()), Secret::new(OTHER).unwrap()).unwrap();
    let config =
        RelayConfig { issuer: issuer.map(str::to_owned), ..RelayConfig::new(keys, folder) };
    relay_of(config).await
}

impl Stream {
    /// Asks for a store; the answer is still to be read.
    async fn ask(connection: &Connection, store: &str, token: &str) -> Self {
        Self::begin(connection, open(store, token)).await
    }
}

fn open(store: &str, token: &str) -> ClientFrame {
    let (store, token) = (store.to_owned(), Token::from(token.to_owned()));
    let version = Version::new().encode().into();
    ClientFrame::Open { protocol: PROTOCOL, store, token, version }
}

type Row = (&'static str, String, Option<RefusalCode>);

async fn check(relay: &Relay, rows: Vec<Row>) {
    let connection = client(relay).await;
    let good = token(&json!({"iss": "home"}));
    let _keeps_the_connection = Stream::ask(&connection, "s", &good).await;
    for (what, token, expected) in rows {
        let refusal = Stream::ask(&connection, "s", &token).await.refusal().await;
        assert_eq!(refusal, expected, "{what}");
    }
}

/// Acceptance 166, 167, and 168 but for the issuer.
#[tokio::test(flavor = "multi_thread")]
async fn only_good_tokens_of_the_store_open_it() {
    let folder = folder();
    let (relay, _) = relay(folder.path(), None).await;
    let with = |changes: Value| token(&changes);
    let by = |algorithm| sign(&Header::new(algorithm), SECRET, &claims(&json!({})));
    // {"alg":"none","typ":"JWT"}
    let payload = with(json!({})).split('.').nth(1).unwrap().to_owned();
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let good = with(json!({}));
    let (body, signature) = good.rsplit_once('.').unwrap();
    let many = vec!["s"; 65];
    let (unauthorized, forbidden) = (Some(RefusalCode::Unauthorized), Some(RefusalCode::Forbidden));
    let foreign = sign(&Header::new(Algorithm::HS256), OTHER, &claims(&json!({})));
    let rows = vec![
        ("good", good.clone(), None),
        ("none", String::new(), unauthorized),
        ("garbage", "garbage".to_owned(), unauthorized),
        ("three parts of garbage", "a.b.c".to_owned(), unauthorized),
        ("cut short", good[..good.len() - 2].to_owned(), unauthorized),
        ("without a signature", format!("{body}."), unauthorized),
        (
            "another payload",
            format!("{}.{signature}", with(json!({"sub": "eve"})).rsplit_once('.').unwrap().0),
            unauthorized,
        ),
        ("too long", with(json!({"jti": "x".repeat(8_192)})), unauthorized),
        ("alg none", unsigned, unauthorized),
        ("HS384", by(Algorithm::HS384), unauthorized),
        ("HS512", by(Algorithm::HS512), unauthorized),
        ("foreign", foreign, unauthorized),
        ("expired", with(json!({"exp": now() - 1})), unauthorized),
        ("expires now", with(json!({"exp": now()})), unauthorized),
        ("without exp", with(json!({"exp": null})), unauthorized),
        ("exp as text", with(json!({"exp": "soon"})), unauthorized),
        ("exp before 1970", with(json!({"exp": -1})), unauthorized),
        ("without sub", with(json!({"sub": null})), unauthorized),
        ("empty sub", with(json!({"sub": ""})), unauthorized),
        ("sub as number", with(json!({"sub": 1})), unauthorized),
        ("without scope", with(json!({"scope": null})), unauthorized),
        ("unknown scope", with(json!({"scope": "superuser"})), unauthorized),
        ("scope in capitals", with(json!({"scope": "Write"})), unauthorized),
        ("without aud", with(json!({"aud": null})), unauthorized),
        ("array aud", with(json!({"aud": ["s"]})), unauthorized),
        ("other store", with(json!({"aud": "t"})), forbidden),
        ("longer store", with(json!({"aud": "ss"})), forbidden),
        ("a star in aud", with(json!({"aud": "*"})), forbidden),
        ("stores", with(json!({"aud": null, "stores": ["t", "s"]})), None),
        ("a prefix", with(json!({"aud": null, "stores": ["s*"]})), None),
        ("all", with(json!({"aud": null, "stores": ["*"]})), None),
        ("other stores", with(json!({"aud": null, "stores": ["t*", "ss"]})), forbidden),
        ("aud and stores", with(json!({"stores": ["s"]})), unauthorized),
        ("no stores", with(json!({"aud": null, "stores": []})), unauthorized),
        ("too many stores", with(json!({"aud": null, "stores": many})), unauthorized),
        ("any issuer", with(json!({"iss": "anybody"})), None),
        ("the other key by name", named("next", OTHER), None),
        ("the other key's name", named("next", SECRET), unauthorized),
        ("an unknown key", named("none", SECRET), unauthorized),
        ("no key's name", named("", SECRET), unauthorized),
    ];
    check(&relay, rows).await;
    relay.stop().await;
}

/// Acceptance 168: the issuer.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_issuer_configured_only_its_tokens_open_stores() {
    let folder = folder();
    let (relay, _) = relay(folder.path(), Some("home")).await;
    let of = |issuer: Value| token(&json!({ "iss": issuer }));
    let unauthorized = Some(RefusalCode::Unauthorized);
    let rows = vec![
        ("home", of(json!("home")), None),
        ("none", of(json!(null)), unauthorized),
        ("other", of(json!("away")), unauthorized),
        ("several", of(json!(["home"])), unauthorized),
    ];
    check(&relay, rows).await;
    relay.stop().await;
}

/// What a scope allows; nothing stands for what is done.
struct Rights {
    scope: Scope,
    writing: Option<RefusalCode>,
    minting: u16,
}

/// Acceptance 169, 170, and the scopes' table: all receive, ask and show themselves; writers write, and
/// only admins make tokens.
#[tokio::test(flavor = "multi_thread")]
async fn each_scope_allows_what_the_one_before_it_does_and_more() {
    let read_only = Some(RefusalCode::ReadOnly);
    let rows = [
        Rights { scope: Scope::Read, writing: read_only, minting: 403 },
        Rights { scope: Scope::Write, writing: None, minting: 403 },
        Rights { scope: Scope::Admin, writing: None, minting: 200 },
    ];
    for rights in rows {
        let folder = folder();
        let (relay, address) = relay(folder.path(), None).await;
        let minted = common::token("s", "desk", rights.scope);
        let (own, other) = (minted.reveal(), token(&json!({"sub": "phone"})));
        let (mine, theirs) = (client(&relay).await, client(&relay).await);
        let mut desk = Stream::opened(&mine, open("s", own)).await;
        let mut phone = Stream::opened(&theirs, open("s", &other)).await;
        let mut apart = Stream::opened(&theirs, open("t", &token(&json!({"aud": "t"})))).await;

        let first = change(1, 0);
        phone.send(std::slice::from_ref(&first)).await;
        assert!(matches!(phone.next().await, RelayFrame::Stored { .. }));
        assert_eq!(received(&mut desk).await, vec![first.clone()], "{:?}", rights.scope);

        show_presence(&mut desk).await;
        assert!(
            matches!(phone.next().await, RelayFrame::Presence { subject, .. } if subject == "desk")
        );

        let content = Bytes::from_static(b"content");
        let (hash, size) = (Sha256::digest(&content).into(), content.len() as u64);
        let blob = |frame| Stream::begin(&mine, frame);
        let put = ClientFrame::PutBlob { store: "s".to_owned(), hash, size };
        assert_eq!(blob(put).await.refusal().await, rights.writing);
        let offer = ClientFrame::OfferBlob { store: "s".to_owned(), hash, size };
        assert_eq!(blob(offer).await.refusal().await, rights.writing);
        let ask_for = ClientFrame::GetBlob { store: "s".to_owned(), hash };
        assert_eq!(blob(ask_for).await.next().await, RelayFrame::BlobMissing);
        let elsewhere = ClientFrame::GetBlob { store: "t".to_owned(), hash };
        assert_eq!(blob(elsewhere).await.refusal().await, Some(RefusalCode::Unauthorized));

        let body = r#"{"sub":"guest","scope":"read"}"#;
        let answer = ask(address, ("POST", "/api/token"), &minted, body).await;
        assert_eq!(answer.status, rights.minting, "{:?}", rights.scope);

        let second = change(2, 0);
        desk.send(std::slice::from_ref(&second)).await;
        assert_eq!(desk.refusal().await, rights.writing, "{:?}", rights.scope);
        if rights.writing.is_none() {
            assert_eq!(received(&mut phone).await, vec![second]);
        }
        // A reader that comes again is told what it lacks, from what it says that it has.
        let mut again = Stream::opened(&mine, open("s", own)).await;
        assert!(received(&mut again).await.contains(&first));
        let silence = timeout(Duration::from_millis(200), apart.receiver.next::<RelayFrame>());
        assert!(silence.await.is_err(), "another store hears nothing");
        relay.stop().await;
    }
}

/// The next changes, whatever of presence comes before them.
async fn received(stream: &mut Stream) -> Vec<Change> {
    loop {
        match stream.next().await {
            RelayFrame::Changes { patch } => return Patch::decode(&patch).unwrap().into_changes(),
            RelayFrame::Presence { .. } | RelayFrame::PeerLeft { .. } => {}
            frame => panic!("no changes: {frame:?}"),
        }
    }
}

async fn show_presence(stream: &mut Stream) {
    let state = PresenceState { name: Some("Ann".to_owned()), ..PresenceState::default() };
    let state = state.encode().unwrap().into();
    stream.sender.send(&ClientFrame::Presence { clock: 1, state }).await.unwrap();
}
