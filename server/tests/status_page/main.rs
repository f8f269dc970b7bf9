//! The page at `/` as a person meets it, in a Chromium without a window. Where there is none, the test
//! says so and looks at nothing; `SDS_CHROMIUM` names one that is not found by itself.
#![cfg(unix)]

mod browser;
#[path = "../support"]
mod support {
    #[expect(dead_code, reason = "the page asks")]
    pub(crate) mod admin;
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod http;
    pub(crate) mod large;
    #[expect(dead_code, reason = "nobody is refused")]
    pub(crate) mod stream;
}

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use browser::{Browser, browser_program};
use sds_engine::Version;
use sds_sync::limits::PROTOCOL_VERSION;
use sds_sync::transport::Connection;
use sds_sync::{ClientFrame, RelayFrame};
use serde_json::json;
use support::admin::{ask_as, operator, relay};
use support::common::folder;
use support::engines::{add_item, present, synced, writer};
use support::large::large_change;
use support::stream::{Stream, change, client};

fn sign_in(browser: &mut Browser, token: &str) {
    let typed = json!(token);
    browser.value(&format!(
        "document.getElementById('token').value = {typed}; \
         document.getElementById('enter').requestSubmit()"
    ));
}

/// A Chromium; says so if there is none.
fn program() -> Option<PathBuf> {
    let program = browser_program();
    if program.is_none() {
        let skipped = b"skipped: no Chromium is here; SDS_CHROMIUM can name one\n";
        std::io::stdout().write_all(skipped).unwrap();
    }
    program
}

/// Opens `url` and waits until it is there.
fn go_to(browser: &mut Browser, url: &str) {
    browser.call("Page.navigate", json!({ "url": url }));
    browser.wait_for("document.readyState === 'complete' && location.protocol === 'http:'");
}

const IS_OUT: &str = "document.getElementById('inside').checkVisibility() === false && \
                      document.getElementById('token').checkVisibility()";

/// What a person does: looks, signs in, sees who is here, ends a session, signs out.
fn visit(program: &PathBuf, address: SocketAddr, token: &str) {
    let mut browser = Browser::start(program);
    let url = format!("http://{address}/");
    go_to(&mut browser, &url);
    assert_eq!(browser.value(IS_OUT), true);
    sign_in(&mut browser, token);
    let rows = "document.getElementById('session_rows').innerText";
    browser.wait_for(&format!("{rows}.includes('desk') && {rows}.includes('<b>phone</b>')"));
    browser.wait_for("document.getElementById('store_rows').innerText.startsWith('s')");
    browser.wait_for("document.getElementById('state').innerText.startsWith('Ready')");
    browser.wait_for("document.getElementById('sessions').innerText === '2'");
    browser.wait_for("document.getElementById('received_bytes').innerText.endsWith('/s')");
    assert_eq!(browser.value("document.querySelectorAll('td b').length"), 0, "names are no markup");
    assert_eq!(browser.value("document.getElementById('token').value"), "");
    let kept = "Object.keys(localStorage).length + Object.keys(sessionStorage).length + \
                document.cookie.length";
    assert_eq!(browser.value(kept), 0, "the token is kept nowhere");
    let unnamed = "[...document.querySelectorAll('button, input')].filter(it => \
                   !it.innerText && !it.ariaLabel && !it.labels?.length).length";
    assert_eq!(browser.value(unnamed), 0, "each control has a name");
    for (width, theme) in [(360, "dark"), (1_280, "light")] {
        let metrics =
            json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": true});
        browser.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        browser.call("Emulation.setEmulatedMedia", features);
        let fits = format!("document.documentElement.scrollWidth <= {width}");
        assert_eq!(browser.value(&fits), true, "{width}");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor");
        let expected = if theme == "dark" { "rgb(17, 20, 26)" } else { "rgb(246, 247, 249)" };
        assert_eq!(ground, expected);
    }
    let of_desk = "document.querySelector('button[aria-label*=\"of desk\"]')";
    let session = browser.value(&format!("{of_desk}.dataset.session"));
    browser.value(&format!("{of_desk}.click()"));
    browser.wait_for(&format!("!document.querySelector('[data-session={session}]')"));
    let (complaints, requests) = browser.complaints_and_requests();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(requests.len() > 6, "{requests:?}");
    for request in requests {
        let is_own = request.starts_with(&url) || request.starts_with("data:");
        assert!(is_own && !request.contains("ey"), "{request}");
    }
    browser.value("document.getElementById('leave').click()");
    assert_eq!(browser.value(IS_OUT), true);
    sign_in(&mut browser, "garbage");
    browser.wait_for("document.getElementById('error').innerText === 'invalid token'");
    assert_eq!(browser.value(IS_OUT), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_who_is_here_to_who_signs_in_and_asks_nobody_else() {
    let (data, one, two) = (folder(), folder(), folder());
    let (relay, address) = relay(data.path()).await;
    let page = ask_as(address, ("GET", "/"), None, "").await;
    assert_eq!(page.status, 200);
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy: "));
    let policy = policy.expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let Some(program) = program() else {
        relay.stop().await;
        return;
    };
    let desk = present(one.path(), relay.url(), writer("desk")).await;
    let phone = present(two.path(), relay.url(), writer("<b>phone</b>")).await;
    add_item(&desk, "note");
    synced(&desk).await;
    let seen = tokio::task::spawn_blocking(move || visit(&program, address, operator().reveal()));
    seen.await.unwrap();
    let audit = std::fs::read_to_string(data.path().join("audit.jsonl")).unwrap();
    let kicks: Vec<&str> = audit.lines().filter(|line| line.contains("\"kick\"")).collect();
    assert!(matches!(&*kicks, [kick] if kick.contains("\"ended\":1")), "{audit}");
    for engine in [desk, phone] {
        engine.stop().await.unwrap();
    }
    relay.stop().await;
}

async fn open(connection: &Connection, store: &str) -> Stream {
    let (token, version) = (operator(), Version::new().encode().into());
    let (protocol, store) = (PROTOCOL_VERSION, store.to_owned());
    Stream::opened(connection, ClientFrame::Open { protocol, store, token, version }).await
}

/// What a person sees of a relay at work: how fast, who is behind, and more stores than fit a page.
fn watch(program: &PathBuf, address: SocketAddr) {
    let mut browser = Browser::start(program);
    go_to(&mut browser, &format!("http://{address}/"));
    sign_in(&mut browser, operator().reveal());
    let is_more_than_none =
        |name: &str| format!("parseFloat(document.getElementById('{name}').innerText) > 0");
    for name in ["changes_appended", "changes_delivered", "received_bytes", "sent_bytes", "lag_max"]
    {
        browser.wait_for(&is_more_than_none(name));
    }
    let behind = "[...document.querySelectorAll('#session_rows tr')].filter(row => \
                  row.cells[1].innerText === 'busy' && parseFloat(row.cells[5].innerText) > 0)";
    browser.wait_for(&format!("{behind}.length === 1"));
    let rows = "document.querySelectorAll('#store_rows tr').length";
    let button = |which: &str| format!("document.getElementById('stores_{which}')");
    let shows = |first: bool, next: bool, count: u64| {
        let (hides_first, hides_next) = (!first, !next);
        let [first, next] = ["first", "next"].map(button);
        format!(
            "{rows} === {count} && {first}.hidden === {hides_first} && {next}.hidden === {hides_next}"
        )
    };
    browser.wait_for(&shows(false, true, 100));
    browser.value(&format!("{}.click()", button("next")));
    browser.wait_for(&shows(true, false, 21));
    browser.value(&format!("{}.click()", button("first")));
    browser.wait_for(&shows(false, true, 100));
    let (complaints, _) = browser.complaints_and_requests();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_rates_and_lag_and_one_page_of_stores_after_another() {
    let data = folder();
    let (relay, address) = relay(data.path()).await;
    let Some(program) = program() else {
        relay.stop().await;
        return;
    };
    let connection = client(&relay).await;
    for number in 0..120 {
        let mut stream = open(&connection, &format!("store-{number}")).await;
        stream.send(&[change(1, 0)]).await;
        while !matches!(stream.next().await, RelayFrame::Stored { .. }) {}
    }
    let others = [client(&relay).await, client(&relay).await];
    let mut reader = open(&others[0], "busy").await;
    let _behind = open(&others[1], "busy").await;
    let mut writer = open(&connection, "busy").await;
    let working = async {
        // Far more than may be on its way to who reads nothing.
        let mut start = 0;
        loop {
            let next =
                if start < 20_000_000 { large_change(1, start, 100_000) } else { change(1, start) };
            start = next.header().end();
            writer.send(&[next]).await;
            while !matches!(writer.next().await, RelayFrame::Stored { .. }) {}
            while !matches!(reader.next().await, RelayFrame::Changes { .. }) {}
        }
    };
    let seen = tokio::task::spawn_blocking(move || watch(&program, address));
    tokio::select! {
        () = working => {}
        seen = seen => seen.unwrap(),
    }
    relay.stop().await;
}
