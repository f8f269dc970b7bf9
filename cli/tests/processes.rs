//! Several processes at one store: an owner that keeps it open, its guests, and who comes after them.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder with stores, and the environment of a shell in which nothing of ours is set.
struct Device {
    home: tempfile::TempDir,
    stores: PathBuf,
}

/// A process that keeps the store open, until it is killed or this is dropped.
struct Keeper {
    child: Child,
    /// What it said when it was ready.
    lines: Vec<String>,
}

impl Device {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let stores = home.path().join("stores");
        Self { home, stores }
    }

    /// A device whose stores are too deep in the file system for the path of a socket.
    fn deep() -> Self {
        let home = tempfile::tempdir().unwrap();
        let stores = home.path().join("a-folder-with-a-long-name".repeat(8));
        Self { home, stores }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sds"));
        for name in ["SDS_SERVER_URL", "SDS_TOKEN", "SDS_CA"] {
            command.env_remove(name);
        }
        command.env("SDS_STORE_ID", "notes").env("SDS_PERSISTENCE_DIR", &self.stores);
        command.env("TMPDIR", self.home.path()).env_remove("XDG_RUNTIME_DIR");
        command.args(args);
        command
    }

    fn sds(&self, args: &[&str]) -> String {
        let output: Output = self.command(args).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {err}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Starts `sds store serve`, and waits until it is ready; `lines` is how many it prints.
    fn keep_open(&self, args: &[&str], lines: usize) -> Keeper {
        let mut command = self.command(&["store", "serve"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let lines: Vec<String> = out.lines().take(lines).map(Result::unwrap).collect();
        Keeper { child, lines }
    }

    fn labels(&self) -> Vec<String> {
        let list = self.sds(&["entry", "list", "--label"]);
        list.lines().map(|line| line.split("  ").nth(1).unwrap_or_default().to_owned()).collect()
    }

    fn digest(&self) -> String {
        let info = self.sds(&["store", "info"]);
        info.lines().find(|line| line.starts_with("digest:")).unwrap().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.stores.join("notes.sds.sock")
    }
}

impl Keeper {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn field(&self, name: &str) -> &str {
        let line = self.lines.iter().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {:?}", self.lines)).trim()
    }

    fn ends_well(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[test]
fn commands_beside_a_process_that_keeps_the_store_open_are_its_guests() {
    let device = Device::new();
    device.sds(&["entry", "create", "--label", "before"]);
    let keeper = device.keep_open(&[], 1);
    let mode = std::fs::symlink_metadata(device.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else's business");
    let folder = device.sds(&["entry", "create", "--label", "folder"]);
    let file = device.home.path().join("large");
    std::fs::write(&file, vec![7; 2_500_000]).unwrap();
    let file = file.to_str().unwrap();
    let large = device.sds(&["entry", "create", "--container", &folder, "--file", file]);
    assert_eq!(device.labels(), ["before", "folder"]);
    let moved = device.sds(&["entry", "move", &large, "--to", "root", "--at", "0"]);
    assert!(moved.contains("moved"), "{moved}");
    let back = device.home.path().join("back");
    device.sds(&["entry", "get", &large, "--output", back.to_str().unwrap()]);
    assert_eq!(std::fs::read(&back).unwrap(), vec![7; 2_500_000]);
    let digest = device.digest();
    keeper.ends_well();
    assert!(!device.socket().exists(), "it cleans up behind itself");
    assert_eq!(device.digest(), digest, "all of it is in the file");
    device.sds(&["entry", "get", &large, "--output", back.to_str().unwrap()]);
    assert_eq!(std::fs::read(&back).unwrap(), vec![7; 2_500_000]);
}

#[test]
fn guests_take_turns_with_few_ids() {
    let device = Device::new();
    let keeper = device.keep_open(&[], 1);
    let edit = |label: String| device.sds(&["entry", "create", "--label", &label]);
    let ids: BTreeSet<String> = (0..20).map(|number| edit(format!("{number}"))).collect();
    assert_eq!(ids.len(), 20);
    // The ids of entries say who made them. A guest gets the seat of one that has left, unless the owner has
    // not heard of its end yet, which takes a moment: so there are few.
    let authors: BTreeSet<&str> = ids.iter().map(|id| &id[..23]).collect();
    assert!(authors.len() <= 4, "{ids:?}");
    keeper.ends_well();
}

#[test]
fn commands_at_the_same_time_all_succeed_with_and_without_an_owner() {
    for is_kept in [false, true] {
        let device = Device::new();
        device.sds(&["entry", "create", "--label", "first"]);
        let keeper = is_kept.then(|| device.keep_open(&[], 1));
        let edit = |worker: usize| {
            for number in 0..8 {
                device.sds(&["entry", "create", "--label", &format!("{worker}-{number}")]);
            }
        };
        std::thread::scope(|scope| {
            let edit = &edit;
            (0..6).for_each(|worker| drop(scope.spawn(move || edit(worker))));
        });
        let labels = device.labels();
        let distinct: BTreeSet<&String> = labels.iter().collect();
        assert_eq!((labels.len(), distinct.len()), (49, 49), "{labels:?}");
        if let Some(keeper) = keeper {
            keeper.ends_well();
        }
    }
}

#[test]
fn guests_of_an_owner_that_is_killed_go_on_without_it() {
    let device = Device::new();
    let keeper = device.keep_open(&[], 1);
    device.sds(&["entry", "create", "--label", "before"]);
    // A stopped owner answers nobody, but has the file.
    keeper.signal("-STOP");
    let start = |label: &str| {
        device.command(&["entry", "create", "--label", label]).stderr(Stdio::piped()).spawn()
    };
    let waiting: Vec<Child> = ["one", "two", "three"].map(|label| start(label).unwrap()).into();
    sleep(Duration::from_millis(300));
    drop(keeper);
    for child in waiting {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(device.socket().exists(), "what it left does no harm");
    assert_eq!(BTreeSet::from_iter(device.labels()).len(), 4);
    assert_eq!(device.labels().len(), 4);
    let next = device.keep_open(&[], 1);
    device.sds(&["entry", "create", "--label", "after"]);
    next.ends_well();
    assert_eq!(device.labels().len(), 5);
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_no_hindrance() {
    let device = Device::deep();
    let keeper = device.keep_open(&[], 1);
    assert!(std::fs::symlink_metadata(device.socket()).unwrap().is_symlink());
    let elsewhere = std::fs::read_link(device.socket()).unwrap();
    assert!(elsewhere.starts_with(device.home.path()), "{elsewhere:?}");
    device.sds(&["entry", "create", "--label", "deep"]);
    drop(keeper);
    let keeper = device.keep_open(&[], 1);
    assert!(!elsewhere.exists(), "the next owner tidies up");
    assert_eq!(device.labels(), ["deep"]);
    keeper.ends_well();
}

#[test]
fn two_owners_never_keep_one_store_but_the_second_serves_as_a_guest() {
    let device = Device::new();
    let first = device.keep_open(&[], 1);
    let second = device.keep_open(&[], 1);
    device.sds(&["entry", "create", "--label", "one"]);
    second.ends_well();
    device.sds(&["entry", "create", "--label", "two"]);
    first.ends_well();
    assert_eq!(device.labels(), ["one", "two"]);
}

#[test]
fn two_devices_on_one_network_share_a_store_without_a_relay() {
    let (desk, laptop) = (Device::new(), Device::new());
    let keeper = desk.keep_open(&["--listen", "127.0.0.1:0"], 3);
    let (url, token) = (keeper.field("url:").to_owned(), keeper.field("token:").to_owned());
    let sync = ["store", "sync", "--server", &url, "--token", &token];
    desk.sds(&["entry", "create", "--label", "from the desk"]);
    let file = laptop.home.path().join("large");
    std::fs::write(&file, vec![9; 1_500_000]).unwrap();
    let large = laptop.sds(&["entry", "create", "--file", file.to_str().unwrap()]);
    assert_eq!(laptop.sds(&sync), "store 'notes': synced");
    assert_eq!(desk.digest(), laptop.digest());
    let back = desk.home.path().join("back");
    desk.sds(&["entry", "get", &large, "--output", back.to_str().unwrap()]);
    assert_eq!(std::fs::read(&back).unwrap(), vec![9; 1_500_000]);
    // The same works beside a process that keeps the laptop's store open.
    let other = laptop.keep_open(&[], 1);
    laptop.sds(&["entry", "create", "--label", "from the laptop"]);
    desk.sds(&["entry", "create", "--label", "later"]);
    assert_eq!(laptop.sds(&sync), "store 'notes': synced");
    assert_eq!(desk.digest(), laptop.digest());
    other.ends_well();
    assert_eq!(desk.digest(), laptop.digest());
    for (url, token, code) in
        [(&*url, "a.bad.token", 4), (&url.replace("#sha256=", "#sha256=00"), &token, 2)]
    {
        let args = ["store", "sync", "--server", url, "--token", token];
        assert_eq!(laptop.command(&args).output().unwrap().status.code(), Some(code), "{url}");
    }
    keeper.ends_well();
    let again = desk.keep_open(&["--listen", "127.0.0.1:0"], 3);
    let pin = |url: &str| url.split_once('#').unwrap().1.to_owned();
    assert_eq!(pin(again.field("url:")), pin(&url), "the certificate is kept");
}

#[test]
fn a_keeper_stays_in_step_with_a_peer() {
    let (desk, laptop) = (Device::new(), Device::new());
    let keeper = desk.keep_open(&["--listen", "127.0.0.1:0"], 3);
    let (url, token) = (keeper.field("url:"), keeper.field("token:"));
    let other = laptop.keep_open(&["--server", url, "--token", token], 1);
    desk.sds(&["entry", "create", "--label", "ping"]);
    wait_for(&laptop, "ping");
    laptop.sds(&["entry", "create", "--label", "pong"]);
    wait_for(&desk, "pong");
    other.ends_well();
    keeper.ends_well();
    assert_eq!(desk.digest(), laptop.digest());
}

#[test]
fn a_second_keeper_hears_what_the_first_hears_and_goes_on_without_it() {
    let (desk, laptop) = (Device::new(), Device::new());
    let first = desk.keep_open(&[], 1);
    let second = desk.keep_open(&["--listen", "127.0.0.1:0"], 3);
    let (url, token) = (second.field("url:"), second.field("token:"));
    let other = laptop.keep_open(&["--server", url, "--token", token], 1);
    desk.sds(&["entry", "create", "--label", "to the first"]);
    wait_for(&laptop, "to the first");
    laptop.sds(&["entry", "create", "--label", "through the second"]);
    wait_for(&desk, "through the second");
    drop(first);
    desk.sds(&["entry", "create", "--label", "to the file"]);
    wait_for(&laptop, "to the file");
    let third = desk.keep_open(&[], 1);
    desk.sds(&["entry", "create", "--label", "to the third"]);
    wait_for(&laptop, "to the third");
    other.ends_well();
    second.ends_well();
    third.ends_well();
    assert_eq!(desk.digest(), laptop.digest());
}

fn wait_for(device: &Device, label: &str) {
    let begin = Instant::now();
    while !device.labels().iter().any(|known| known == label) {
        assert!(begin.elapsed() < Duration::from_secs(30), "{label} does not arrive");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn reading_commands_leave_the_file_to_others() {
    let device = Device::new();
    device.sds(&["entry", "create", "--label", "x"]);
    // A reader that prints to somebody who does not read.
    let file = device.home.path().join("large");
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    let big = Path::new(&file).to_str().unwrap();
    for _ in 0..3 {
        device.sds(&["entry", "create", "--file", big]);
    }
    let stuck = device.command(&["store", "export"]).stdout(Stdio::piped()).spawn();
    let mut stuck = stuck.unwrap();
    sleep(Duration::from_millis(300));
    let begin = Instant::now();
    device.sds(&["entry", "create", "--label", "y"]);
    assert!(begin.elapsed() < Duration::from_secs(5));
    stuck.kill().unwrap();
    stuck.wait().unwrap();
}
