//! A Chromium without a window.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::common::{PATIENCE, folder};

/// A browser, asked over a pipe in the form of the Chrome DevTools Protocol.
pub(crate) struct Browser {
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
    pub(crate) fn start(program: &PathBuf) -> Self {
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

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
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
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression) != true {
            let page = "document.body.innerText";
            assert!(begun.elapsed() < PATIENCE, "{expression} in\n{}", self.value(page));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was complained of so far, and which addresses were asked.
    pub(crate) fn complaints_and_requests(&mut self) -> (Vec<Value>, Vec<String>) {
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

/// A Chromium, if there is one.
pub(crate) fn browser_program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SDS_CHROMIUM") {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}
