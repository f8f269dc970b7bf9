//! What an operator asks of a running relay over HTTP, and what nobody can do to that listener.

mod support {
    pub(crate) mod admin;
    pub(crate) mod common;
    #[expect(dead_code, reason = "whoever is present has a note")]
    pub(crate) mod engines;
    pub(crate) mod http;
    pub(crate) mod relay;
    #[expect(dead_code, reason = "nobody writes by hand")]
    pub(crate) mod stream;
    #[expect(dead_code, reason = "nobody looks at labels")]
    pub(crate) mod watching;
}

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sds_engine::Version;
use sds_server::limits::{
    ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX, ADMIN_HEAD_TIME,
    ADMIN_PAGE_MAX, Limit,
};
use sds_server::store_log::StoreQuota;
use sds_server::{Relay, RelayConfig, StoreSet};
use sds_sync::{
    ClientFrame, ConnectionState, RefusalCode, RelayFrame, SyncEngine, SyncStatus, Token,
};
use serde_json::{Value, json};
use support::admin::{Answer, admin_of, ask, ask_as, operator, relay, relay_of, send};
use support::common::{PATIENCE, folder, id, secret};
use support::engines::{add_item, connect, engine, engine_of, synced, writer};
use support::stream::{Stream, client};
use support::watching::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn get(address: SocketAddr, path: &str, token: &Token) -> Value {
    let answer = ask(address, ("GET", path), token, "").await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    ask(address, ("POST", path), &operator(), &body.to_string()).await
}

async fn plain(address: SocketAddr, path: &str) -> Answer {
    ask_as(address, ("GET", path), None, "").await
}

/// Waits until the connection of `engine` has ended for good, with `code`.
async fn refused_for_good(engine: &SyncEngine, code: RefusalCode) {
    let refused = |status: &SyncStatus| match &status.connection {
        ConnectionState::Refused { code: found, .. } => *found == code,
        _ => false,
    };
    until(engine, refused).await;
}

/// `engine`, connected, with a note that the relay has.
async fn noted(engine: SyncEngine, relay: &Relay, token: Token) -> SyncEngine {
    connect(&engine, relay.url(), token);
    add_item(&engine, "note");
    synced(&engine).await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_the_relay_is_well_can_be_asked_by_anybody_and_nothing_else() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    assert_eq!(plain(address, "/healthz").await.body, "ok\n");
    assert_eq!(plain(address, "/readyz").await.body, "ready\n");
    let metrics = plain(address, "/metrics").await;
    assert!(metrics.head.contains("application/openmetrics-text"), "{}", metrics.head);
    assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
    for path in ["/api/status", "/api/sessions", "/api/connections", "/api/stores", "/api/backup"] {
        let answer = plain(address, path).await;
        assert_eq!((answer.status, &*answer.error()), (401, "missing token"), "{path}");
        assert!(answer.head.contains("www-authenticate: Bearer"), "{}", answer.head);
    }
    for what in [
        ("GET", "/nothing"),
        ("GET", "/api"),
        ("GET", "/api/token"),
        ("PUT", "/healthz"),
        ("GET", "/ws/s?token=x"),
        ("GET", "/api/stores/"),
        ("DELETE", "/api/stores"),
    ] {
        let answer = ask(address, what, &operator(), "").await;
        assert_eq!((answer.status, &*answer.error()), (404, "not found"), "{what:?}");
    }
    let bad_queries =
        ["sessions?limit=0", "sessions?limit=x", "sessions?nothing=1", "stores?after=a&after=b"];
    for query in bad_queries.into_iter().chain([&*format!("stores?limit={}", ADMIN_PAGE_MAX + 1)]) {
        let answer = ask(address, ("GET", &format!("/api/{query}")), &operator(), "").await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_asked_for_there_is_no_admin_listener() {
    let folder = folder();
    let relay = support::relay::relay(folder.path()).await;
    assert_eq!(relay.admin_addr(), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_here_is_told_and_can_be_cut_off() {
    let (data, store) = (folder(), folder());
    let (relay, address) = relay(data.path()).await;
    let desk = noted(engine(store.path()), &relay, writer("desk")).await;
    let connection = client(&relay).await;
    let (store, token) = ("s".to_owned(), writer("phone"));
    let version = Version::new().encode().into();
    let open = ClientFrame::Open { protocol: 1, store, token, version };
    let mut phone = Stream::opened(&connection, open).await;
    assert!(matches!(phone.next().await, RelayFrame::Changes { .. }));
    let sessions = get(address, "/api/sessions", &operator()).await;
    let rows = sessions["sessions"].as_array().unwrap();
    let subjects: BTreeSet<_> = rows.iter().map(|row| row["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, BTreeSet::from(["desk", "phone"]));
    for row in rows {
        assert_eq!(
            (&row["store"], &row["scope"], &row["lag"]),
            (&json!("s"), &json!("write"), &json!(0))
        );
        assert!(row["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{row}");
        assert!(row["position"].as_u64().unwrap() >= 1, "{row}");
        assert!(row["connection_received_bytes"].as_u64().unwrap() > 100, "{row}");
    }
    let connections = get(address, "/api/connections", &operator()).await;
    assert_eq!(connections["connections"].as_array().unwrap().len(), 2);
    assert_eq!(connections["connections"][0]["sessions"], 1);

    let first = get(address, "/api/sessions?limit=1", &operator()).await;
    let second = format!("/api/sessions?limit=1&after={}", first["next"]);
    assert_ne!(get(address, &second, &operator()).await["sessions"], first["sessions"]);
    let of_phone = get(address, "/api/sessions?subject=phone&store=s", &operator()).await;
    assert_eq!(of_phone["sessions"].as_array().unwrap().len(), 1);
    let others = admin_of(id("other").into());
    assert_eq!(get(address, "/api/sessions", &others).await["sessions"], json!([]));
    assert_eq!(ask(address, ("GET", "/api/connections"), &others, "").await.status, 403);
    let kick = json!({"subject": "phone"}).to_string();
    assert_eq!(ask(address, ("POST", "/api/kick"), &others, &kick).await.json()["ended"], 0);

    assert_eq!(post(address, "/api/kick", &json!({})).await.status, 400);
    let none = post(address, "/api/kick", &json!({"subject": "phone", "store": "t"})).await;
    assert_eq!(none.json(), json!({"ended": 0}));
    let answer = post(address, "/api/kick", &json!({"subject": "phone"})).await;
    assert_eq!(answer.json(), json!({"ended": 1}), "{answer:?}");
    assert_eq!(phone.refusal().await, Some(RefusalCode::Busy));
    assert!(matches!(desk.status().connection, ConnectionState::Connected { .. }));

    let of_desk = get(address, "/api/sessions?subject=desk", &operator()).await;
    let connection = &of_desk["sessions"][0]["connection"];
    let answer = post(address, "/api/kick", &json!({ "connection": connection })).await;
    assert_eq!(answer.json()["ended"], 1);
    // It was not told to stay away, so it comes again.
    let is_back = async {
        loop {
            let of_desk = get(address, "/api/sessions?subject=desk", &operator()).await;
            match &of_desk["sessions"][0]["connection"] {
                Value::Number(again) if *again != connection.as_u64().unwrap().into() => break,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, is_back).await.expect("it comes back");
    desk.stop().await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_listed_with_what_they_take_and_can_be_deleted() {
    let (data, one, two) = (folder(), folder(), folder());
    let (relay, address) = relay(data.path()).await;
    let desk = noted(engine(one.path()), &relay, writer("desk")).await;
    let slashed = engine_of(two.path(), "a/b c");
    let slashed = noted(slashed, &relay, admin_of(id("a/b c").into())).await;

    let stores = get(address, "/api/stores", &operator()).await;
    let ids: Vec<_> =
        stores["stores"].as_array().unwrap().iter().map(|row| &row["store"]).collect();
    assert_eq!(ids, ["a/b c", "s"]);
    let own = get(address, "/api/stores", &admin_of(id("s").into())).await;
    assert_eq!(own["stores"].as_array().unwrap().len(), 1);
    assert!(own["stores"][0]["changes"].as_u64().unwrap() >= 1, "{own}");
    let first = get(address, "/api/stores?limit=1", &operator()).await;
    assert_eq!((&first["stores"][0]["store"], &first["next"]), (&json!("a/b c"), &json!("a/b c")));
    let rest = get(address, "/api/stores?limit=1&after=a%2Fb%20c", &operator()).await;
    assert_eq!(rest["stores"][0]["store"], "s");
    let one = get(address, "/api/stores/a%2Fb%20c", &operator()).await;
    assert!(one["log_bytes"].as_u64().unwrap() > 10, "{one}");

    let delete = ("DELETE", "/api/stores/s");
    let other = admin_of(id("t").into());
    assert_eq!(ask(address, delete, &other, "").await.status, 404, "of others nothing is told");
    assert_eq!(ask(address, ("DELETE", "/api/stores/t"), &other, "").await.status, 404);
    let own = admin_of(id("s").into());
    assert_eq!(ask(address, delete, &own, "").await.json(), json!({"deleted": true}));
    refused_for_good(&desk, RefusalCode::Forbidden).await;
    assert_eq!(ask(address, delete, &own, "").await.status, 404);
    assert_eq!(ask(address, ("GET", "/api/stores/s"), &operator(), "").await.status, 404);
    let deleted = get(address, "/api/stores?deleted=true", &own).await;
    assert_eq!(deleted["stores"][0]["store"], "s");
    let undelete = ("DELETE", "/api/stores/s/tombstone");
    assert_eq!(ask(address, undelete, &own, "").await.status, 403);
    assert_eq!(ask(address, undelete, &operator(), "").await.json(), json!({"undeleted": true}));
    connect(&desk, relay.url(), writer("desk"));
    synced(&desk).await;
    for engine in [desk, slashed] {
        engine.stop().await.unwrap();
    }
    relay.stop().await;
}

/// Asks for a deletion while nobody can write to the file, and leaves until the listener has noticed.
fn ask_and_leave(relay: &Relay, address: SocketAddr, path: &str) {
    let (is_held, held) = std::sync::mpsc::channel();
    let (let_go, is_let_go) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let hold = |_: &_| {
                is_held.send(()).unwrap();
                is_let_go.recv().unwrap();
                Ok(())
            };
            relay.log().write(hold).unwrap();
        });
        held.recv().unwrap();
        let token = operator();
        let request = format!(
            "DELETE /api/{path} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {}\r\n\r\n",
            token.reveal()
        );
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert!(answer.is_empty(), "it was not done yet");
        let_go.send(()).unwrap();
    });
}

/// Goal: what an admin did is written down, also if they left before it was done. Method: a file that
/// nobody else can write to until the listener has given the request up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_for_somebody_who_left_is_written_down() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    relay.log().number_for(&id("s"), "ann", StoreQuota::UNLIMITED).unwrap().unwrap();
    let is_done = |action: &str| relay.log().is_deleted(&id("s")).unwrap() == (action == "delete");
    for (path, action) in [("stores/s", "delete"), ("stores/s/tombstone", "undelete")] {
        // One that was given up before it was begun is not done, so it is asked for again.
        while !is_done(action) {
            ask_and_leave(&relay, address, path);
            // Whoever began before this writes before this.
            relay.log().write(|_| Ok(())).unwrap();
        }
        let is_written = async {
            let action = format!("\"action\":\"{action}\"");
            let audit = folder.path().join("audit.jsonl");
            while !std::fs::read_to_string(&audit).unwrap().contains(&action) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, is_written).await.expect("a line");
    }
    relay.stop().await;
}

/// Goal: whoever watches the relay hears of a disk that fails, whatever fails first. Method: tables that are
/// gone, for a large value and for an admin.
#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_the_file_is_counted() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    relay.log().number_for(&id("s"), "ann", StoreQuota::UNLIMITED).unwrap().unwrap();
    let failures = || {
        let metrics = relay.metrics();
        let line =
            metrics.lines().find(|line| line.starts_with("sds_relay_storage_failures_total"));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).unwrap()
    };
    assert_eq!(failures(), 0);
    let drop_table = |name| {
        let table = redb::TableDefinition::<u64, u64>::new(name);
        relay.log().write(|write| Ok(write.delete_table(table)?)).unwrap();
    };
    let connection = client(&relay).await;
    let version = Version::new().encode().into();
    let open =
        ClientFrame::Open { protocol: 1, store: "s".to_owned(), token: writer("ann"), version };
    let _store = Stream::opened(&connection, open).await;
    drop_table("blobs");
    let offer = ClientFrame::OfferBlob { store: "s".to_owned(), hash: [1; 32], size: 9 };
    let mut upload = Stream::begin(&connection, offer).await;
    assert_eq!(upload.refusal().await, Some(RefusalCode::StorageFailed));
    assert_eq!(failures(), 1);
    drop_table("states");
    assert_eq!(ask(address, ("GET", "/api/stores/s"), &operator(), "").await.status, 500);
    assert_eq!(failures(), 2);
    relay.stop().await;
}

/// Goal: admins of stores hear of no store of others, however they ask. Method: stores of others before,
/// between and behind theirs; lists of each length, followed to their end, and what else an answer names.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_stores_name_none_of_others_and_lead_to_all_own() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let stores = ["a", "secret-1", "team-1", "team-2", "team-3", "tuesday", "x", "z"];
    for store in stores {
        relay.log().number_for(&id(store), "ann", StoreQuota::UNLIMITED).unwrap().unwrap();
    }
    let admins = [
        (StoreSet::parse(&["team-*", "x"]).unwrap(), vec!["team-1", "team-2", "team-3", "x"]),
        (StoreSet::parse(&["nothing*", "team-2"]).unwrap(), vec!["team-2"]),
        (id("z").into(), vec!["z"]),
        (StoreSet::all(), stores.to_vec()),
    ];
    for deleted in [false, true] {
        for (own, expected) in &admins {
            for limit in 1..=3 {
                let (mut found, mut after) = (Vec::new(), String::new());
                loop {
                    let path = format!("/api/stores?limit={limit}&deleted={deleted}{after}");
                    let page = get(address, &path, &admin_of(own.clone())).await;
                    let rows = page["stores"].as_array().unwrap();
                    found.extend(rows.iter().map(|row| row["store"].as_str().unwrap().to_owned()));
                    let Some(next) = page["next"].as_str() else { break };
                    assert!(expected.contains(&next), "{next} is not theirs");
                    assert_eq!(rows.len(), limit, "the page is as full as it can be");
                    after = format!("&after={next}");
                }
                assert_eq!(found, *expected, "{own:?} {limit}");
            }
        }
        for store in stores {
            relay.delete_store(&id(store)).unwrap();
        }
    }
    relay.stop().await;
}

/// Goal: admins of stores cannot fill the relay's file with the ids of stores that they make and delete, and
/// stand in nobody else's way. Method: bounds so low that a few stores meet them.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_stores_are_bounded_for_each_admin_and_in_all() {
    let folder = folder();
    let mut config = RelayConfig::new(secret(), folder.path());
    (config.limits.tombstones_per_admin, config.limits.tombstones) = (2, 3);
    let (relay, address) = relay_of(config).await;
    let begin = |store: &str| {
        let number = relay.log().number_for(&id(store), "ann", StoreQuota::UNLIMITED);
        number.unwrap().unwrap();
    };
    let remove = async |who: &Token, path: &str| {
        let path = format!("/api/stores/{path}");
        ask(address, ("DELETE", &path), who, "").await.status
    };
    let of = |pattern: &str| admin_of(StoreSet::parse(&[pattern]).unwrap());
    let (ann, bob) = (of("a*"), of("b*"));
    ["a1", "a2", "a3", "b1", "b2", "c1"].into_iter().for_each(begin);
    assert_eq!((remove(&ann, "a1").await, remove(&ann, "a2").await), (200, 200));
    assert_eq!(remove(&ann, "a3").await, 507);
    let body = r#"{"sub":"deputy","scope":"admin","stores":["a3*"]}"#;
    let deputy = ask(address, ("POST", "/api/token"), &ann, body).await.json();
    let deputy = Token::from(deputy["token"].as_str().unwrap().to_owned());
    assert_eq!(remove(&deputy, "a3").await, 507, "nor does an admin whom they make");
    assert_eq!(relay.limit_hits(Limit::TombstonesPerAdmin), 2);
    assert_eq!(remove(&bob, "b1").await, 200, "others may");
    assert_eq!(remove(&bob, "b2").await, 507, "until there are too many in all");
    assert_eq!(relay.limit_hits(Limit::Tombstones), 1);
    assert_eq!(remove(&operator(), "c1").await, 200, "an admin of the relay always may");
    for path in ["c1/tombstone", "a1/tombstone"] {
        assert_eq!(remove(&operator(), path).await, 200, "and makes room");
    }
    assert_eq!(remove(&ann, "a3").await, 200);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_while_the_relay_runs() {
    let (data, store) = (folder(), folder());
    let (relay, address) = relay(data.path()).await;
    let desk = noted(engine(store.path()), &relay, writer("desk")).await;
    assert_eq!(get(address, "/api/backup", &operator()).await, json!({"backup": null}));
    let forbidden = ask(address, ("POST", "/api/backup"), &admin_of(id("s").into()), "").await;
    assert_eq!(forbidden.status, 403);
    let made = post(address, "/api/backup", &json!({})).await;
    assert_eq!((made.status, &made.json()["backup"]["state"]), (200, &json!("done")), "{made:?}");
    let made = &made.json()["backup"];
    let path = data.path().join("backups").join(made["file"].as_str().unwrap());
    let report = sds_server::backup::verify(&path).unwrap();
    assert_eq!(
        (made["rows"].as_u64(), made["bytes"].as_u64()),
        (Some(report.rows), Some(report.bytes))
    );
    assert_eq!(&get(address, "/api/backup", &operator()).await["backup"], made);
    desk.stop().await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_relay_left_of_a_backup_is_removed_and_backups_are_not() {
    let data = folder();
    let backups = data.path().join("backups");
    std::fs::create_dir(&backups).unwrap();
    let names = [".backup.x1y2z3.new", "relay-2026.backup", ".backup", "x.new"];
    names.iter().for_each(|name| std::fs::write(backups.join(name), "bytes").unwrap());
    let (relay, _) = relay(data.path()).await;
    assert_eq!(names.map(|name| backups.join(name).exists()), [false, true, true, true]);
    relay.stop().await;
}

/// Goal: who is sent away is told why, also with the connection as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_off_is_told_so_in_each_store() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let connection = client(&relay).await;
    let open = |store: &str| {
        let (token, version) = (operator(), Version::new().encode().into());
        ClientFrame::Open { protocol: 1, store: store.to_owned(), token, version }
    };
    let mut streams = [
        Stream::opened(&connection, open("a")).await,
        Stream::opened(&connection, open("b")).await,
    ];
    let listed = get(address, "/api/connections", &operator()).await;
    let number = &listed["connections"][0]["connection"];
    let answer = post(address, "/api/kick", &json!({ "connection": number })).await;
    assert_eq!(answer.json(), json!({"ended": 2}));
    for stream in &mut streams {
        assert_eq!(stream.refusal().await, Some(RefusalCode::Busy));
    }
    let closed = timeout(PATIENCE, connection.read_datagram()).await.expect("it is closed");
    assert!(closed.is_err());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_asked_to_drain_says_so() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let brief = Duration::from_millis(100);
    let own = admin_of(id("s").into());
    assert_eq!(ask(address, ("POST", "/api/drain"), &own, "").await.status, 403);
    assert!(timeout(brief, relay.asked_to_stop()).await.is_err());
    assert_eq!(post(address, "/api/drain", &json!({})).await.status, 202);
    timeout(PATIENCE, relay.asked_to_stop()).await.unwrap();
    let ready = plain(address, "/readyz").await;
    assert_eq!((ready.status, &*ready.body), (503, "draining\n"));
    let status = get(address, "/api/status", &operator()).await;
    assert_eq!(status["relay"]["not_ready"], "draining");
    assert_eq!(plain(address, "/healthz").await.status, 200, "it is alive as long as it drains");
    relay.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

/// The description names each route once more in `server/src/admin.rs`; here each is asked.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_description_names_answers_as_it_says() {
    let (data, store) = (folder(), folder());
    let (relay, address) = relay(data.path()).await;
    let desk = noted(engine(store.path()), &relay, writer("desk")).await;
    let description = plain(address, "/api/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    let mut asked = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let path =
                path.replace("{store}", if path.contains("tombstone") { "gone" } else { "s" });
            let body = match &*path {
                "/api/token" => r#"{"sub":"desk","scope":"read"}"#,
                "/api/revoke" => r#"{"jti":"nobody's"}"#,
                "/api/kick" => r#"{"subject":"nobody"}"#,
                _ => "",
            };
            let what = (&*method.to_uppercase(), &*path);
            let answer = ask(address, what, &operator(), body).await;
            let told = operation["responses"].as_object().unwrap();
            assert!(told.contains_key(&answer.status.to_string()), "{what:?}: {answer:?}");
            // Nothing of that name is there.
            let misses = path.contains("tombstone") || path.contains("{revocation}");
            let is_expected = answer.status < 300 || misses;
            assert!(is_expected || path == "/readyz", "{what:?}: {answer:?}");
            let needs_token = operation.get("security").is_some();
            let stranger = ask_as(address, what, None, body).await;
            assert_eq!(stranger.status == 401, needs_token, "{what:?}: {stranger:?}");
            asked += 1;
        }
    }
    assert!(asked > 15, "{asked} routes");
    desk.stop().await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_or_asks_for_too_much_is_cut_off() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let large = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(ADMIN_HEAD_BYTES_MAX));
    assert_eq!(send(address, large.as_bytes()).await.status, 431);
    let fits = format!(
        "GET /healthz HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(ADMIN_HEAD_BYTES_MAX / 2)
    );
    assert_eq!(send(address, fits.as_bytes()).await.status, 200);

    // As many as there may be, each of which sends a byte now and then.
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.unwrap();
        slow.push(stream);
    }
    // Nobody has told the listener yet that all are there.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut one_more = TcpStream::connect(address).await.unwrap();
    let _refused = one_more.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await;
    let read = timeout(PATIENCE, one_more.read(&mut [0; 64])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "there is no room: {read:?}");
    for mut stream in slow {
        let drip = async {
            let mut answer = [0; 256];
            while stream.write_all(b"x").await.is_ok() {
                let read = timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
                if matches!(read, Ok(Ok(0) | Err(_))) {
                    break;
                }
            }
        };
        timeout(PATIENCE, drip).await.expect("it is cut off");
    }
    assert!(begun.elapsed() >= ADMIN_HEAD_TIME, "not before the time is up");
    assert!(relay.limit_hits(Limit::Admin) >= 2);
    assert_eq!(plain(address, "/healthz").await.status, 200, "others are served again");
    relay.stop().await;
}

/// Goal: whoever is past what the listener takes is counted, and whoever is at it is not.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_rows_past_their_bounds_are_refused_and_counted() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    let token = ("POST", "/api/token");
    let body = |bytes: usize| {
        let begin = r#"{"sub":"desk","scope":"read","#;
        format!(r#"{begin}"x":"{}"}}"#, "x".repeat(bytes - begin.len() - 7))
    };
    assert_eq!(body(ADMIN_BODY_BYTES_MAX).len(), ADMIN_BODY_BYTES_MAX);
    assert_eq!(ask(address, token, &operator(), &body(ADMIN_BODY_BYTES_MAX)).await.status, 200);
    let rows = |rows: usize| format!("/api/stores?limit={rows}");
    assert_eq!(ask(address, ("GET", &rows(ADMIN_PAGE_MAX)), &operator(), "").await.status, 200);
    assert_eq!(relay.limit_hits(Limit::Admin), 0);
    let past = ask(address, token, &operator(), &body(ADMIN_BODY_BYTES_MAX + 1)).await;
    assert_eq!((past.status, relay.limit_hits(Limit::Admin)), (413, 1));
    for path in [rows(ADMIN_PAGE_MAX + 1), "/api/sessions?limit=1001".to_owned(), rows(0)] {
        assert_eq!(ask(address, ("GET", &path), &operator(), "").await.status, 400, "{path}");
    }
    assert_eq!(relay.limit_hits(Limit::Admin), 3, "no rows at all is a mistake");
    relay.stop().await;
}

/// Goal: a name that is no text is that of nothing, and said so as everything else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_text_is_answered_like_any_that_there_is_not() {
    let folder = folder();
    let (relay, address) = relay(folder.path()).await;
    for what in [
        ("GET", "/api/stores/%FF"),
        ("DELETE", "/api/stores/%FF"),
        ("DELETE", "/api/stores/%FF/tombstone"),
        ("DELETE", "/api/revocations/%FF"),
    ] {
        let answer = ask(address, what, &operator(), "").await;
        assert_eq!((answer.status, &*answer.error()), (404, "not found"), "{what:?}");
        assert_eq!(ask_as(address, what, None, "").await.status, 401, "{what:?}");
    }
    relay.stop().await;
}
