//! The program itself: a relay in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use sds_sync::RelayUrl;

use super::common::SECRET;

/// The program, with the secret and nothing else set.
pub(crate) fn program() -> Command {
    with_secret(Command::new(env!("CARGO_BIN_EXE_sds-relay")))
}

/// `command` with the secret in its environment, and nothing of what else is set for a relay.
pub(crate) fn with_secret(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SDS_") {
            command.env_remove(name);
        }
    }
    command.env("SDS_JWT_SECRET", SECRET);
    command
}

/// A relay in its own process, and everything that it writes.
pub(crate) struct RelayProcess {
    child: Child,
    pub(crate) url: RelayUrl,
    log: Option<JoinHandle<String>>,
}

impl RelayProcess {
    /// Starts a relay on a free port, with its data in `folder`.
    pub(crate) fn start(folder: &Path, words: &[&str]) -> Self {
        let mut command = program();
        command.args(words);
        Self::spawn(command, folder)
    }

    /// Starts `command`, which ends up as a relay, and reads its URL from the one line that it prints.
    pub(crate) fn spawn(mut command: Command, folder: &Path) -> Self {
        command.args(["--port", "0", "--data-dir"]).arg(folder);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().expect("a line with the url").parse().unwrap();
        Self { child, url, log: Some(log) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for the end; says how the process ended and what it has logged.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // After the end there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
