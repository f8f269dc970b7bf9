//! Tokens over HTTP: who gets which, and taking them back while they are in use.

mod support {
    pub(crate) mod admin;
    pub(crate) mod common;
    #[expect(dead_code, reason = "nobody edits")]
    pub(crate) mod engines;
    pub(crate) mod http;
    #[expect(dead_code, reason = "nobody writes")]
    pub(crate) mod stream;
    #[expect(dead_code, reason = "nobody looks at labels")]
    pub(crate) mod watching;
}

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sds_server::{Grant, KeyId, Keyring, Relay, RelayConfig, Scope, Secret, StoreSet, mint};
use sds_sync::access::{Gate, TokenId};
use sds_sync::limits::{SUBJECT_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use sds_sync::{ClientFrame, ConnectionState, RefusalCode, RelayFrame, Token};
use serde_json::{Value, json};
use support::admin::{Answer, admin_of, ask, ask_as, operator, relay, relay_of};
use support::common::{PATIENCE, folder, grant, id, secret, sign, token};
use support::engines::{present, writer};
use support::stream::{Stream, client};
use support::watching::until;
use tokio::time::timeout;

const HOUR: Duration = Duration::from_secs(3_600);
const TOKEN: (&str, &str) = ("POST", "/api/token");
const REVOKE: (&str, &str) = ("POST", "/api/revoke");
const BACKUP: (&str, &str) = ("POST", "/api/backup");

/// An admin of the store `s`.
fn admin() -> Token {
    admin_of(id("s").into())
}

fn claims(answer: &Answer) -> sds_sync::access::Access {
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = Token::from(answer.json()["token"].as_str().unwrap().to_owned());
    Gate::new(secret(), None).verify(&token, SystemTime::now()).unwrap()
}

/// Acceptance 173.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_have_a_token_is_told_why() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let bearer = |token: &Token| format!("Bearer {}", token.reveal());
    let good = r#"{"sub":"desk","scope":"read"}"#;
    let other = Secret::new(&"x".repeat(32)).unwrap();
    let grant = grant("s", "boss", Scope::Admin);
    let foreign = mint(&other, &grant, SystemTime::now()).unwrap();
    let expired = mint(&secret(), &grant, SystemTime::now() - 2 * HOUR).unwrap();
    let cases = [
        (None, 401, "missing token"),
        (Some("Basic eDp5".to_owned()), 401, "missing token"),
        (Some("Bearer".to_owned()), 401, "missing token"),
        (Some("Bearer garbage".to_owned()), 401, "invalid token"),
        (Some(bearer(&foreign)), 401, "invalid token"),
        (Some(bearer(&expired)), 401, "invalid token"),
        (Some(bearer(&writer("desk"))), 403, "admin scope required"),
        (Some(bearer(&token("s", "desk", Scope::Read))), 403, "admin scope required"),
    ];
    for (authorization, status, error) in cases {
        let answer = ask_as(address, TOKEN, authorization.as_deref(), good).await;
        assert_eq!((answer.status, &*answer.error()), (status, error), "{authorization:?}");
        let says_how = answer.head.contains("www-authenticate: Bearer");
        assert_eq!(says_how, status == 401, "{}", answer.head);
        // Who may not ask is told so before anything is said of the question.
        let answer = ask_as(address, TOKEN, authorization.as_deref(), "{").await;
        assert_eq!(answer.status, status);
    }
    let lower = bearer(&admin()).replace("Bearer", "bearer");
    let lower = ask_as(address, TOKEN, Some(&lower), good).await;
    assert_eq!(lower.status, 200, "the scheme may be written in any case");
    relay.stop().await;
}

/// Acceptance 173.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_makes_no_sense_is_told_why() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let json = "invalid JSON body";
    let required = "sub and scope required";
    let scope = "scope has to be read, write or admin";
    let exp = "exp has to be a number from 1 and a unit of s, m, h, d or w, such as 24h";
    let stores = "expected either store, an id, or stores, 1 to 64 ids or beginnings of ids with * \
                  behind them";
    let own = "the stores are not all your own";
    let long = format!(r#"{{"sub":"{}","scope":"read"}}"#, "x".repeat(8_000));
    let rows = [
        ("", 400, json),
        ("{", 400, json),
        ("null", 400, json),
        ("[]", 400, json),
        ("\"sub\"", 400, json),
        ("{}", 400, required),
        (r#"{"sub":"desk"}"#, 400, required),
        (r#"{"scope":"read"}"#, 400, required),
        (r#"{"sub":"","scope":"read"}"#, 400, required),
        (r#"{"sub":1,"scope":"read"}"#, 400, required),
        (r#"{"sub":null,"scope":"read"}"#, 400, required),
        (r#"{"sub":"desk","scope":["read"]}"#, 400, required),
        (r#"{"sub":"desk","scope":"superuser"}"#, 400, scope),
        (r#"{"sub":"desk","scope":"Read"}"#, 400, scope),
        (r#"{"sub":"desk","scope":"read","exp":"soon"}"#, 400, exp),
        (r#"{"sub":"desk","scope":"read","exp":"0h"}"#, 400, exp),
        (r#"{"sub":"desk","scope":"read","exp":3600}"#, 400, exp),
        (r#"{"sub":"desk","scope":"read","exp":"999999999999999999999d"}"#, 400, exp),
        (r#"{"sub":"desk","scope":"read","store":""}"#, 400, stores),
        (r#"{"sub":"desk","scope":"read","store":1}"#, 400, stores),
        (r#"{"sub":"desk","scope":"read","stores":[]}"#, 400, stores),
        (r#"{"sub":"desk","scope":"read","stores":[1]}"#, 400, stores),
        (r#"{"sub":"desk","scope":"read","stores":"s"}"#, 400, stores),
        (r#"{"sub":"desk","scope":"read","store":"s","stores":["s"]}"#, 400, stores),
        (r#"{"sub":"desk","scope":"read","store":"t"}"#, 403, own),
        (r#"{"sub":"desk","scope":"read","stores":["s","t"]}"#, 403, own),
        (r#"{"sub":"desk","scope":"read","stores":["s*"]}"#, 403, own),
        (
            r#"{"sub":"desk","scope":"read","exp":"91d"}"#,
            403,
            "the token would outlive the one that asks for it",
        ),
        (&long, 400, "sub is too long"),
    ];
    for (body, status, error) in rows {
        let answer = ask(address, TOKEN, &admin(), body).await;
        assert_eq!((answer.status, &*answer.error()), (status, error), "{body}");
    }
    let large = format!(r#"{{"sub":"{}","scope":"read"}}"#, "x".repeat(70_000));
    assert_eq!(ask(address, TOKEN, &admin(), &large).await.status, 413);
    relay.stop().await;
}

/// Acceptance 174.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_the_same_store_and_what_was_asked_for() {
    let folder = folder();
    let config = RelayConfig {
        issuer: Some("home".to_owned()),
        ..RelayConfig::new(secret(), folder.path())
    };
    let (relay, address) = relay_of(config).await;
    let issuer = || Some("home".to_owned());
    let lifetime = 90 * 24 * HOUR;
    let admin = sign(&Grant { lifetime, issuer: issuer(), ..grant("s", "boss", Scope::Admin) });
    let rows = [
        (r#"{"sub":"desk","scope":"read"}"#, Scope::Read, 24 * HOUR),
        (r#"{"sub":"desk","scope":"write","exp":null}"#, Scope::Write, 24 * HOUR),
        (r#"{"sub":"desk","scope":"admin","exp":"15m"}"#, Scope::Admin, HOUR / 4),
        (r#"{"sub":"desk","scope":"read","exp":"90s","store":"s"}"#, Scope::Read, HOUR / 40),
        (r#"{"sub":"desk","scope":"read","exp":"2d","stores":["s"]}"#, Scope::Read, 48 * HOUR),
    ];
    let mut ids = Vec::new();
    for (body, scope, lifetime) in rows {
        let before = SystemTime::now();
        let answer = ask(address, TOKEN, &admin, body).await;
        assert_eq!(answer.json().as_object().unwrap().len(), 1, "{answer:?}");
        let token = Token::from(answer.json()["token"].as_str().unwrap().to_owned());
        let access = Gate::new(secret(), issuer()).check(&token, "s", SystemTime::now()).unwrap();
        assert_eq!((&*access.subject, access.scope), ("desk", scope));
        let least = before + lifetime - Duration::from_secs(1);
        assert!(
            access.expires >= least && access.expires <= SystemTime::now() + lifetime,
            "{body}"
        );
        assert_eq!(access.stores, id("s").into());
        ids.push(access.id.unwrap());
        let stranger = Gate::new(secret(), Some("away".to_owned()));
        assert!(stranger.check(&token, "s", SystemTime::now()).is_err());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each has a name of its own");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_has_more_rights_than_the_one_that_asks_for_it() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let body =
        |stores: &[&str]| json!({"sub": "desk", "scope": "read", "stores": stores}).to_string();
    let rows: [(&[&str], &[&str], u16); 7] = [
        (&["*"], &["*"], 200),
        (&["*"], &["a", "b*"], 200),
        (&["team-*"], &["team-a"], 200),
        (&["team-*"], &["team-a*", "team-b"], 200),
        (&["team-*"], &["team"], 403),
        (&["team-*"], &["*"], 403),
        (&["a", "b"], &["a", "b", "c"], 403),
    ];
    for (own, asked, status) in rows {
        let admin = admin_of(StoreSet::parse(own).unwrap());
        let answer = ask(address, TOKEN, &admin, &body(asked)).await;
        assert_eq!(answer.status, status, "{own:?} {asked:?} {answer:?}");
    }
    // Without a wish it ends with the one that asks for it, at the latest.
    let brief = token("s", "boss", Scope::Admin);
    let access = claims(&ask(address, TOKEN, &brief, r#"{"sub":"desk","scope":"read"}"#).await);
    assert!(access.expires <= SystemTime::now() + HOUR);
    assert!(access.expires >= SystemTime::now() + HOUR - Duration::from_secs(60));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_sessions_at_once_and_opens_none_also_after_a_restart() {
    let (store, other, data) = (folder(), folder(), folder());
    let (relay, address) = relay(data.path()).await;
    let answer = ask(address, TOKEN, &admin(), r#"{"sub":"desk","scope":"write"}"#).await;
    let token = Token::from(answer.json()["token"].as_str().unwrap().to_owned());
    let desk = present(store.path(), relay.url(), token.clone()).await;
    let phone = present(other.path(), relay.url(), writer("phone")).await;
    let body = json!({ "token": token.reveal() }).to_string();
    let answer = ask(address, REVOKE, &admin(), &body).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"revoked": true, "ended": 1})));
    until(&desk, |status| is_unauthorized(&status.connection)).await;
    assert!(!is_unauthorized(&phone.status().connection), "others stay");
    let again = ask(address, REVOKE, &admin(), &body).await;
    assert_eq!(again.json()["ended"], 0);
    relay.stop().await;
    let (relay, _) = support::admin::relay(data.path()).await;
    assert_eq!(open(&relay, &token).await, Some(RefusalCode::Unauthorized));
    assert_eq!(open(&relay, &writer("desk")).await, None, "another token of the same subject");
    relay.stop().await;
    desk.stop().await.unwrap();
    phone.stop().await.unwrap();
}

/// Whether the connection ended for good, because the token is not accepted.
fn is_unauthorized(connection: &ConnectionState) -> bool {
    matches!(connection, ConnectionState::Refused { code, .. } if *code == RefusalCode::Unauthorized)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_token_the_blobs_are_out_of_reach_too() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut desk = Stream::opened(&connection, open_frame(writer("desk"))).await;
    let blob = async || {
        let get = ClientFrame::GetBlob { store: "s".to_owned(), hash: [7; 32] };
        Stream::begin(&connection, get).await
    };
    assert_eq!(blob().await.next().await, RelayFrame::BlobMissing);
    let body = json!({"sub": "desk"}).to_string();
    assert_eq!(ask(address, REVOKE, &admin(), &body).await.json()["ended"], 1);
    let unauthorized = Some(RefusalCode::Unauthorized);
    assert_eq!(desk.refusal().await, unauthorized);
    // The stream is still open on this side.
    assert_eq!(blob().await.refusal().await, unauthorized);
    relay.stop().await;
}

/// Goal: no session outlives the revocation of its token, however close together they come.
/// Method: both at once, again and again; then nobody with such a token may be listed for long.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_while_their_token_is_revoked_does_not_stay() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let connection = client(&relay).await;
    let mut streams = Vec::new();
    for round in 0..30 {
        let subject = format!("desk {round}");
        let token = writer(&subject);
        let (mut sender, mut receiver) = connection.open_stream().await.unwrap();
        let open = open_frame(token);
        let body = json!({ "sub": subject }).to_string();
        let admin = operator();
        let revoke = async {
            tokio::time::sleep(Duration::from_micros(200 * (round % 10))).await;
            ask(address, REVOKE, &admin, &body).await
        };
        let (sent, revoked) = tokio::join!(sender.send(&open), revoke);
        sent.unwrap();
        assert_eq!(revoked.status, 200);
        let told = async {
            // Some see the store for a moment.
            while let RelayFrame::Opened { .. } = receiver.next().await.unwrap().unwrap() {}
        };
        timeout(PATIENCE, told).await.expect("it is refused");
        streams.push((sender, receiver));
    }
    let sessions = ask(address, ("GET", "/api/sessions"), &operator(), "").await;
    assert_eq!(sessions.json()["sessions"], json!([]));
    relay.stop().await;
}

/// Asks for the store `s`.
fn open_frame(token: Token) -> ClientFrame {
    let version = sds_engine::Version::new().encode().into();
    ClientFrame::Open { protocol: 1, store: "s".to_owned(), token, version }
}

/// Opens the store `s`; why it was refused, if it was.
async fn open(relay: &Relay, token: &Token) -> Option<RefusalCode> {
    let connection = client(relay).await;
    Stream::begin(&connection, open_frame(token.clone())).await.refusal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_revoked_by_name_by_subject_and_by_secret_within_the_rights_of_who_does() {
    let new_secret = Secret::new(&"n".repeat(32)).unwrap();
    let key = KeyId::new("new").unwrap();
    let mut keys = Keyring::new(Some(key), new_secret);
    keys.add(None, secret()).unwrap();
    let signed = |subject: &str, store: &str, at: SystemTime| {
        let lifetime = 48 * HOUR;
        let grant = Grant { lifetime, ..grant(store, subject, Scope::Write) };
        let name = TokenId::random();
        (keys.mint(&grant, &name, at).unwrap(), name.as_str().to_owned())
    };
    let now = SystemTime::now();
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let other_admin = token("t", "boss", Scope::Admin);
    let (token, name) = signed("desk", "s", now - HOUR);
    let text = |bytes| "x".repeat(bytes);
    let rows: [(Value, &Token, u16, Option<RefusalCode>); 20] = [
        (json!({"jti": text(TOKEN_ID_BYTES_MAX)}), &admin(), 200, None),
        (json!({"jti": text(TOKEN_ID_BYTES_MAX + 1)}), &admin(), 400, None),
        (json!({"sub": text(SUBJECT_BYTES_MAX)}), &operator(), 200, None),
        (json!({"sub": text(SUBJECT_BYTES_MAX + 1)}), &operator(), 400, None),
        (json!({"sub": ""}), &admin(), 400, None),
        (json!({"jti": name, "token": token.reveal()}), &admin(), 400, None),
        (json!({"jti": name}), &admin(), 200, Some(RefusalCode::Unauthorized)),
        (json!({"jti": name}), &operator(), 200, Some(RefusalCode::Unauthorized)),
        (json!({"jti": name}), &other_admin, 200, None),
        (json!({"token": token.reveal()}), &admin(), 200, Some(RefusalCode::Unauthorized)),
        (json!({"token": token.reveal()}), &other_admin, 403, None),
        (json!({"token": "garbage"}), &admin(), 400, None),
        (json!({"sub": "desk"}), &admin(), 200, Some(RefusalCode::Unauthorized)),
        (json!({"sub": "phone"}), &admin(), 200, None),
        (json!({"sub": "desk", "issued_until": seconds(now - 2 * HOUR)}), &admin(), 200, None),
        (json!({"kid": "new"}), &operator(), 200, Some(RefusalCode::Unauthorized)),
        (json!({"kid": ""}), &operator(), 200, None),
        (json!({"kid": "new"}), &admin(), 403, None),
        (json!({}), &admin(), 400, None),
        (json!({"sub": "desk", "jti": name}), &admin(), 400, None),
    ];
    for (body, who, status, expected) in rows {
        let folder = folder();
        let (relay, address) = relay_of(RelayConfig::new(keys.clone(), folder.path())).await;
        let answer = ask(address, REVOKE, who, &body.to_string()).await;
        assert_eq!(answer.status, status, "{body} {answer:?}");
        assert_eq!(open(&relay, &token).await, expected, "{body}");
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_are_listed_and_lifted_within_the_rights_of_who_asks() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let (desk, phone) = (writer("desk"), writer("phone"));
    for (body, who) in [
        (json!({"sub": "desk", "issued_until": 99_999_999_999_u64}), admin()),
        (json!({"sub": "phone"}), operator()),
        (json!({"jti": "lost", "expires": 99_999_999_999_u64}), operator()),
    ] {
        assert_eq!(ask(address, REVOKE, &who, &body.to_string()).await.status, 200, "{body}");
    }
    let listed = async |who: &Token, query: &str| {
        let path = format!("/api/revocations{query}");
        let answer = ask(address, ("GET", &path), who, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        (answer["revocations"].as_array().unwrap().clone(), answer["next"].clone())
    };
    let (own, next) = listed(&admin(), "").await;
    assert_eq!((own.len(), &own[0]["sub"], next), (1, &json!("desk"), Value::Null));
    assert_eq!(own[0]["stores"], json!(["s"]));
    assert_eq!(own[0]["issued_until"], 99_999_999_999_u64);
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let (rows, next) = listed(&operator(), &format!("?limit=1{after}")).await;
        all.extend(rows);
        let Some(next) = next.as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(all.len(), 3);
    let path_of = |sub: &str| {
        let row = all.iter().find(|row| row["sub"] == sub).unwrap();
        format!("/api/revocations/{}", row["revocation"].as_str().unwrap())
    };
    let lift = async |who: &Token, path: &str| ask(address, ("DELETE", path), who, "").await.status;
    assert_eq!(open(&relay, &desk).await, Some(RefusalCode::Unauthorized));
    assert_eq!(lift(&admin(), &path_of("phone")).await, 404, "an operator's");
    assert_eq!(lift(&token("t", "boss", Scope::Admin), &path_of("desk")).await, 404);
    assert_eq!(lift(&admin(), &path_of("desk")).await, 200);
    assert_eq!(lift(&admin(), &path_of("desk")).await, 404, "it is lifted");
    assert_eq!(open(&relay, &desk).await, None);
    assert_eq!(lift(&operator(), &path_of("phone")).await, 200);
    relay.stop().await;
    let (relay, address) = support::admin::relay(folder.path()).await;
    assert_eq!(open(&relay, &phone).await, None, "also after a restart");
    let left = ask(address, ("GET", "/api/revocations"), &operator(), "").await.json();
    assert_eq!(left["revocations"].as_array().unwrap().len(), 1);
    relay.stop().await;
    let audit = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert_eq!(audit.matches("\"action\":\"lift\"").count(), 2, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_whose_token_was_revoked_is_one_no_more_and_no_token_gets_into_the_files() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let admin = admin();
    let body = r#"{"sub":"desk","scope":"admin"}"#;
    let answer = ask(address, TOKEN, &admin, body).await;
    let minted = Token::from(answer.json()["token"].as_str().unwrap().to_owned());
    assert_eq!(ask(address, TOKEN, &minted, body).await.status, 200);
    let revoke = json!({ "token": minted.reveal() }).to_string();
    assert_eq!(ask(address, REVOKE, &operator(), &revoke).await.status, 200);
    let refused = ask(address, TOKEN, &minted, body).await;
    assert_eq!((refused.status, &*refused.error()), (401, "invalid token"));
    // An admin of one store cannot take the relay from its operator.
    let boss = json!({ "sub": "boss", "issued_until": 99_999_999_999_u64 }).to_string();
    assert_eq!(ask(address, REVOKE, &admin, &boss).await.status, 200);
    assert_eq!(ask(address, TOKEN, &admin, body).await.status, 401);
    let elsewhere = r#"{"sub":"desk","scope":"admin","store":"t"}"#;
    assert_eq!(ask(address, TOKEN, &operator(), elsewhere).await.status, 200);
    assert_eq!(ask(address, TOKEN, &operator(), body).await.status, 200, "for all stores, too");
    // Refused is also what is beyond somebody's rights.
    let own = admin_of(id("t").into());
    let beyond = r#"{"sub":"desk","scope":"read","store":"s"}"#;
    let asked =
        [(TOKEN, beyond), (REVOKE, r#"{"kid":""}"#), (("POST", "/api/drain"), ""), (BACKUP, "")];
    for (what, body) in asked {
        assert_eq!(ask(address, what, &own, body).await.status, 403, "{what:?}");
    }
    relay.stop().await;
    for file in ["audit.jsonl", "revocations.jsonl"] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        for token in [&admin, &minted] {
            let signature = token.reveal().rsplit('.').next().unwrap();
            assert!(!text.contains(signature), "{file}: {text}");
        }
        text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    }
    let audit = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    for (action, count) in [("start", 1), ("mint", 4), ("revoke", 2), ("refused", 6), ("stop", 1)] {
        let found = audit.matches(&format!("\"action\":\"{action}\"")).count();
        assert_eq!(found, count, "{action} in {audit}");
    }
    let by_own = "\"action\":\"refused\",\"by\":\"boss\"";
    assert_eq!(audit.matches(by_own).count(), 4, "who is known is named: {audit}");
}

/// Goal: who may give out tokens for some stores, with any name in them, keeps nobody of that name away from
/// other stores. Method: as many connections as a subject may have, made with tokens of an admin of `a*` and of
/// an admin whom they made, and then those of somebody else with the same name.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_tokens_of_an_admin_of_stores_takes_nothing_from_others_of_that_name() {
    let folder = folder();
    let mut config = RelayConfig::new(secret(), folder.path());
    config.limits.connections_per_subject = 2;
    let (relay, address) = relay_of(config).await;
    let made = async |by: &Token, body: Value| {
        let answer = ask(address, TOKEN, by, &body.to_string()).await;
        Token::from(answer.json()["token"].as_str().unwrap().to_owned())
    };
    let first = admin_of(StoreSet::parse(&["a*"]).unwrap());
    let deputy = json!({"sub": "deputy", "scope": "admin", "stores": ["a1*"]});
    let deputy = made(&first, deputy).await;
    let theirs = json!({"sub": "bob", "scope": "write", "store": "a0"});
    let deputies = json!({"sub": "bob", "scope": "write", "store": "a1"});
    let (theirs, deputies) = (made(&first, theirs).await, made(&deputy, deputies).await);
    let bob = token("b", "bob", Scope::Write);
    let rows = [
        ("a0", theirs, true),
        ("a1", deputies.clone(), true),
        ("a1", deputies, false),
        ("b", bob.clone(), true),
        ("b", bob.clone(), true),
        ("b", bob, false),
    ];
    let mut open = Vec::new();
    for (store, token, is_good) in rows {
        let connection = client(&relay).await;
        let (store, version) = (store.to_owned(), sds_engine::Version::new().encode().into());
        let first = ClientFrame::Open { protocol: 3, store, token, version };
        let mut stream = Stream::begin(&connection, first).await;
        let answer = stream.next().await;
        match answer {
            RelayFrame::Refused { code, .. } => {
                assert_eq!(RefusalCode::from_number(code), RefusalCode::Busy);
                assert!(!is_good, "{}", open.len());
            }
            _ => assert!(is_good, "{}: {answer:?}", open.len()),
        }
        open.push((connection, stream));
    }
    relay.stop().await;
}
