//! Presence between two processes. The second one is this program itself, told by an environment
//! variable to be it; so it has a `main` of its own.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod presence;
    pub(crate) mod relay;
}

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};

use sds_store::TextField;
use sds_sync::presence::{Cursor, Focus, FocusProperty, PeerPresence, PresenceState};
use sds_sync::{RelayUrl, SyncEngine};
use support::common::{PATIENCE, folder};
use support::engines::{add_item, present, writer};
use support::presence::{has_name, named, sees};
use support::relay::relay;

/// Says where the relay is, to the process that is to be the second one.
const RELAY: &str = "SDS_TEST_RELAY";

/// A line at a time to and from the other process.
struct Other {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Other {
    fn start(url: &RelayUrl) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(RELAY, url.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let said = BufReader::new(out).lines().map_while(Result::ok);
            said.for_each(|line| drop(sender.send(line)));
        });
        Self { child, input, lines }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits for a line that says this.
    fn says(&self, expected: &str) {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|line| line != expected) {
            let line = self.lines.recv_timeout(PATIENCE);
            heard.push(line.unwrap_or_else(|_| panic!("not {expected:?}, but {heard:?}")));
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match std::env::var(RELAY) {
        Ok(url) => runtime.block_on(be_the_other_process(&url)),
        Err(_) => runtime.block_on(two_processes_see_each_other_come_move_and_go()),
    }
}

/// Says whom it sees and where their cursors are, each time that changes, and shows itself when it is
/// told its name, until it is told no more.
async fn be_the_other_process(url: &str) {
    let folder = folder();
    let engine = present(folder.path(), url.parse().unwrap(), writer("other")).await;
    let engine = Arc::new(engine);
    let (seen, mut out) = (Arc::clone(&engine), std::io::stdout());
    let mut presence = engine.watch_presence();
    let mut status = engine.watch_status();
    tokio::spawn(async move {
        loop {
            writeln!(out, "{}", describe(&seen)).unwrap();
            tokio::select! {
                changed = presence.changed() => changed.unwrap(),
                changed = status.changed() => changed.unwrap(),
            }
        }
    });
    let listening = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lines() {
            engine.set_presence_to(Some(named(&line.unwrap()))).unwrap();
        }
    });
    listening.await.unwrap();
}

fn describe(engine: &SyncEngine) -> String {
    let peers = engine.presence();
    let describe = |peer: &PeerPresence| {
        let cursor = peer.state.focus.as_ref().and_then(|focus| focus.cursor.as_ref());
        let range = cursor.and_then(|cursor| engine.read(|store| cursor.range(store)).unwrap());
        let name = peer.state.name.clone().unwrap_or_default();
        let color = peer.state.color.clone().unwrap_or_default();
        format!("{name} ({}) {color} {range:?}", peer.subject)
    };
    peers.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// Goal: two processes see each other's names, colours and cursors; cursors follow edits; who stops is
/// gone at once, and who comes back sees who has stayed.
async fn two_processes_see_each_other_come_move_and_go() {
    let (home, folder) = (folder(), folder());
    let relay = relay(home.path()).await;
    let ann = present(folder.path(), relay.url(), writer("ann")).await;
    let note = add_item(&ann, "note");
    ann.edit(|store| store.write_value(note, "milk and bread")).unwrap().unwrap();
    let mut other = Other::start(&relay.url());
    let cursor = ann.read(|store| Cursor::of(store, note, TextField::Value, 9..14)).unwrap();
    let focus =
        Focus { entry: note, property: FocusProperty::Value, cursor: Some(cursor.unwrap()) };
    let color = Some("#c03".to_owned());
    let state = PresenceState { color, focus: Some(focus), ..named("Ann") };
    ann.set_presence_to(Some(state)).unwrap();
    other.says("Ann (ann) #c03 Some(9..14)");
    ann.edit(|store| store.change_value(note, 0..0, "oat ")).unwrap().unwrap();
    other.says("Ann (ann) #c03 Some(13..18)");
    other.tell("Bob");
    let peers = sees(&ann, has_name("Bob")).await;
    assert_eq!(peers[0].subject, "other");
    ann.stop().await.unwrap();
    other.says("");

    let ann = present(folder.path(), relay.url(), writer("ann")).await;
    sees(&ann, has_name("Bob")).await;
    ann.stop().await.unwrap();
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    relay.stop().await;
}
