//! The page at `/` as a person meets it, in a Chromium without a window. Where there is none, the test
//! says so and looks at nothing; `SDS_CHROMIUM` names one that is not found by itself.
#![cfg(unix)]

mod support {
    #[expect(dead_code, reason = "the page asks")]
    pub(crate) mod admin;
    pub(crate) mod common;
    pub(crate) mod engines;
}

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::admin::{ask_as, operator, relay};
use support::common::{PATIENCE, folder};
use support::engines::{add_item, present, synced, writer};
use tempfile::TempDir;

/// A browser, asked over a pipe in the form of the Chrome DevTools Protocol.
struct Browser {
    child: Child,
    commands: File,
    answers: BufReader<File>,
    /// The page that is talked with.
    session: Option<String>,
    next: u64,
    /// What was told of unasked.
    events: VecDeque<Value>,
    _folder: TempDir,
}

impl Browser {
    fn start(program: &PathBuf) -> Self {
        let folder = folder();
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // A browser that does not answer any more ends by itself.
        let script = r#"in=$1 out=$2; shift 2; exec timeout 90 "$@" 3<"$in" 4>"$out""#;
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args([&to, &from])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = OpenOptions::new().write(true).open(&to).unwrap();
        let answers = BufReader::new(File::open(&from).unwrap());
        let events = VecDeque::new();
        let mut browser =
            Self { child, commands, answers, session: None, next: 0, events, _folder: folder };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.next {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push_back(answer);
        }
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    fn wait_for(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression) != true {
            let page = "document.body.innerText";
            assert!(begun.elapsed() < PATIENCE, "{expression} in\n{}", self.value(page));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was complained of so far, and which addresses were asked.
    fn complaints_and_requests(&mut self) -> (Vec<Value>, Vec<String>) {
        let (mut complaints, mut requests) = (Vec::new(), Vec::new());
        for event in self.events.drain(..) {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => complaints.push(params.clone()),
                Some("Runtime.consoleAPICalled") if params["type"] != "log" => {
                    complaints.push(params.clone());
                }
                Some("Log.entryAdded") => complaints.push(params["entry"].clone()),
                Some("Network.requestWillBeSent") => {
                    requests.push(params["request"]["url"].as_str().unwrap().to_owned());
                }
                _ => {}
            }
        }
        (complaints, requests)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let _closed = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ended = self.child.wait();
    }
}

fn browser_program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SDS_CHROMIUM") {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

fn sign_in(browser: &mut Browser, token: &str) {
    let typed = json!(token);
    browser.value(&format!(
        "document.getElementById('token').value = {typed}; \
         document.getElementById('enter').requestSubmit()"
    ));
}

const IS_OUT: &str = "document.getElementById('inside').checkVisibility() === false && \
                      document.getElementById('token').checkVisibility()";

/// What a person does: looks, signs in, sees who is here, ends a session, signs out.
fn visit(program: &PathBuf, address: SocketAddr, token: &str) {
    let mut browser = Browser::start(program);
    let url = format!("http://{address}/");
    browser.call("Page.navigate", json!({ "url": url }));
    browser.wait_for("document.readyState === 'complete' && location.protocol === 'http:'");
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
    let Some(program) = browser_program() else {
        writeln!(std::io::stdout(), "skipped: no Chromium is here; SDS_CHROMIUM can name one")
            .unwrap();
        return relay.stop().await;
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
