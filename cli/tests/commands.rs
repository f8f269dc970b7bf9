//! `sds` as people and scripts meet it: real processes, real files, exit codes and output.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

/// A folder for stores, and the environment of a shell in which nothing of ours is set.
struct Shell {
    dir: tempfile::TempDir,
}

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    fn json(&self) -> Json {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// What a successful command printed, without the line's end.
    fn line(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out.trim_end()
    }
}

impl Shell {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sds"));
        for name in ["SDS_STORE_ID", "SDS_SERVER_URL", "SDS_TOKEN", "SDS_CA"] {
            command.env_remove(name);
        }
        command.env("SDS_PERSISTENCE_DIR", self.path().join("stores"));
        command
    }

    fn sds(&self, args: &[&str]) -> Done {
        self.command().args(args).output().unwrap().into()
    }

    /// The same, on the store `notes`.
    fn notes(&self, args: &[&str]) -> Done {
        self.command().env("SDS_STORE_ID", "notes").args(args).output().unwrap().into()
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let shell = Shell::new();
    let rows: [(&[&str], &str); 6] = [
        (&[], "Usage: sds"),
        (&["--help"], "Usage: sds"),
        (&["help", "entry"], "create"),
        (&["entry"], "create"),
        (&["store", "--help"], "export"),
        (&["--version"], "sds 0."),
    ];
    for (args, expected) in rows {
        let done = shell.sds(args);
        assert_eq!(done.code, 0, "{args:?}");
        assert!(done.out.contains(expected), "{args:?}: {}", done.out);
        assert_eq!(done.err, "", "{args:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    let shell = Shell::new();
    let rows: [(&[&str], &str); 11] = [
        (&["--store", "a", "--server", "ws://x", "entry", "list"], "--server"),
        (&["nonsense"], "nonsense"),
        (&["entry", "nonsense"], "nonsense"),
        (&["--format", "xml", "entry", "list"], "--format"),
        (&["entry", "list"], "no store ID"),
        (&["--store", "a", "entry", "move", "root"], "--to"),
        (&["--store", "a", "entry", "create", "--at", "-1"], "-1"),
        (&["--store", "a", "store", "sync"], "--server"),
        (&["--store", "a", "--server", "quic://127.0.0.1:1", "store", "sync"], "--token"),
        (&["--store", "a", "--server", "ws://x", "--token", "t", "store", "sync"], "--server"),
        (&["--store", "a", "store", "sync", "--timeout", "0"], "--timeout"),
    ];
    for (args, expected) in rows {
        let done = shell.sds(args);
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
        assert!(done.err.contains("error:"), "{args:?}: {}", done.err);
        assert_eq!(done.out, "", "{args:?}");
    }
    assert!(!shell.path().join("stores").exists(), "a refused command creates nothing");
}

#[test]
fn entries_are_created_read_moved_and_deleted() {
    let shell = Shell::new();
    let folder = shell.notes(&["entry", "create", "--label", "folder"]).line().to_owned();
    let note = shell.notes(&[
        "entry",
        "create",
        "--container",
        &folder,
        "--label",
        "note",
        "--mime",
        "text/markdown",
        "--value",
        "milk",
    ]);
    let note = note.line().to_owned();
    let link = shell.notes(&["entry", "create", "--target", &note, "--format", "json"]).json();
    assert_eq!((&link["kind"], &link["target"]), (&"link".into(), &note.as_str().into()));

    let got = shell.notes(&["entry", "get", &note, "--format", "json"]).json();
    assert_eq!(got["label"], "note");
    assert_eq!(got["mime"], "text/markdown");
    assert_eq!(got["value"], "milk");
    let label = shell.notes(&["entry", "get", &note, "--label"]);
    assert_eq!(label.line(), format!("id:    {note}\nlabel: note"));

    let list = shell.notes(&["entry", "list", "root", "--recursive", "--format", "json"]).json();
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&folder, &note, link["id"].as_str().unwrap()]);

    assert!(
        shell
            .notes(&["entry", "move", &note, "--to", "root", "--at", "0"])
            .line()
            .contains("moved")
    );
    let tree = shell.notes(&["tree", "show"]);
    assert!(tree.line().starts_with("root/\n"), "{}", tree.out);
    assert!(tree.out.lines().nth(1).unwrap().ends_with("  note"), "{}", tree.out);
    assert_eq!(shell.notes(&["entry", "move", &folder, "--to", &folder]).code, 6);
    assert_eq!(shell.notes(&["entry", "delete", "trash"]).code, 6);
    shell.notes(&["entry", "delete", &note]).line();
    let list = shell.notes(&["entry", "list", "trash", "--label"]);
    assert_eq!(list.line(), format!("{note}  note"));
    let info = shell.notes(&["store", "info", "--format", "json"]).json();
    assert_eq!(info["entryCount"], 2, "trash does not count");
}

#[test]
fn what_is_missing_exits_with_3() {
    let shell = Shell::new();
    let unknown = "00000000-0000-4000-8000-0000000000ff";
    for args in [["entry", "list"], ["tree", "show"], ["store", "export"]] {
        assert_eq!(shell.notes(&args).code, 3, "{args:?}: no such store");
    }
    assert!(!shell.path().join("stores").exists(), "reading creates nothing");
    let info = shell.notes(&["store", "info"]);
    assert!(info.line().contains("not found"));
    let link_target = shell.notes(&["entry", "create"]).line().to_owned();
    let link = shell.notes(&["entry", "create", "--target", &link_target]).line().to_owned();
    for args in [
        vec!["entry", "get", unknown],
        vec!["entry", "delete", unknown],
        vec!["entry", "move", &link, "--to", unknown],
        vec!["entry", "create", "--container", &link],
        vec!["entry", "create", "--target", &link],
        vec!["entry", "create", "--file", "/does/not/exist"],
    ] {
        let done = shell.notes(&args);
        assert_eq!(done.code, 3, "{args:?}: {}", done.err);
        assert!(done.err.starts_with("sds: error: "), "{}", done.err);
    }
    let done = shell.notes(&["--format", "json", "entry", "get", unknown]);
    let error: Json = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["exitCode"], 3);
}

#[test]
fn files_of_any_size_go_in_and_come_out_unchanged() {
    let shell = Shell::new();
    for (name, bytes) in [
        ("small.bin", vec![0, 159, 146, 150]),
        ("large.bin", vec![7; 3_000_000]),
        ("note.txt", "grüße".into()),
        ("long.txt", "x".repeat(200_000).into()),
    ] {
        let (file, back) = (shell.path().join(name), shell.path().join("back"));
        std::fs::write(&file, &bytes).unwrap();
        let id = shell.notes(&["entry", "create", "--file", file.to_str().unwrap()]);
        shell.notes(&["entry", "get", id.line(), "--output", back.to_str().unwrap()]);
        assert_eq!(std::fs::read(&back).unwrap(), bytes, "{name}");
    }
    let small = shell.notes(&["entry", "list", "--value", "--format", "json"]).json();
    assert_eq!(small[0]["value"], "AJ+Slg==", "bytes are base64");
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_none() {
    let shell = Shell::new();
    let run = |args: &[&str], out: std::process::Stdio| -> Done {
        let mut command = shell.command();
        command.env("SDS_STORE_ID", "notes").args(args).stdout(out);
        command.output().unwrap().into()
    };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let created = run(&["entry", "create", "--label", "x"], full.into());
    assert_eq!(created.code, 1);
    assert!(created.err.contains("done, but"), "{}", created.err);
    assert!(shell.notes(&["entry", "list", "--label"]).out.contains('x'), "it was done");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(&["entry", "list"], writer.into()).code, 0);
}

#[test]
fn an_export_is_written_to_a_file_or_to_stdout() {
    let shell = Shell::new();
    shell.notes(&["entry", "create", "--label", "a"]).line();
    let json = shell.notes(&["store", "export"]).json();
    assert_eq!(json["innerEntries"][2]["Label"], "a");
    let file = shell.path().join("out.bin");
    let path = file.to_str().unwrap();
    let done = shell.notes(&["store", "export", "--encoding", "binary", "--output", path]);
    assert_eq!(done.line(), format!("exported to '{path}'"));
    assert_eq!(std::fs::read(&file).unwrap()[..2], [0x1f, 0x8b]);
    let own = shell.path().join("stores/notes.sds");
    let refused = shell.notes(&["store", "export", "--output", own.to_str().unwrap()]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert_eq!(shell.notes(&["store", "export"]).json(), json, "the store is still there");
}

#[test]
fn the_demo_converges_on_a_real_folder() {
    let shell = Shell::new();
    let dir = shell.path().join("shared");
    std::fs::create_dir_all(dir.join("one/two")).unwrap();
    std::fs::create_dir(dir.join("three")).unwrap();
    std::fs::write(dir.join("note.md"), "naïve 😀 text that three people edit").unwrap();
    std::fs::write(dir.join("one/two/large.bin"), vec![9; 2_500_000]).unwrap();
    std::fs::write(dir.join(".gitignore"), "ignored\n").unwrap();
    std::fs::write(dir.join("ignored"), "no").unwrap();
    let dir = dir.to_str().unwrap();

    let text = shell.sds(&["demo", dir]);
    let last = text.line().lines().last().unwrap();
    assert!(last.starts_with("converged: all 7 digests are equal"), "{}", text.out);
    assert!(text.out.contains("[laptop was here]") && text.out.contains("put in meanwhile"));

    let json = shell.sds(&["--format", "json", "demo", dir]).json();
    assert_eq!(json["converged"], true);
    assert_eq!(json["peers"], 3);
    assert_eq!(json["entries"], 6, "what is in the trash does not count");
    assert_eq!(json["digest"].as_str().unwrap().len(), 64);
    for key in ["changes", "bytes_on_disk", "seconds"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{json}");
    }
}

#[test]
fn the_demo_says_clearly_what_it_cannot_share() {
    let shell = Shell::new();
    let empty = shell.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let file = shell.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let missing = shell.path().join("missing");
    for (dir, code, why) in [
        (&missing, 3, "does not exist"),
        (&empty, 3, "holds no files"),
        (&file, 2, "is not a folder"),
    ] {
        let done = shell.sds(&["demo", dir.to_str().unwrap()]);
        assert_eq!(done.code, code, "{}", done.err);
        assert!(done.err.contains(why), "{}", done.err);
    }
}

#[test]
fn a_store_is_checked_without_being_changed() {
    let shell = Shell::new();
    let check = |args: &[&str]| shell.sds(&[&["--store", "s", "store", "check"], args].concat());
    let missing = check(&[]);
    assert_eq!((missing.code, missing.out.as_str()), (3, ""));
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 0, "nothing was made");
    shell.sds(&["--store", "s", "entry", "create", "--value", "milk"]).line();
    assert_eq!(check(&[]).line(), "store 's': sound");
    let json = check(&["--format", "json"]).json();
    assert_eq!((&json["sound"], &json["findings"]), (&true.into(), &serde_json::json!([])));

    let file = shell.path().join("stores/s.sds");
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(4).position(|window| window == b"milk").unwrap();
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let found = check(&[]);
    assert_eq!(found.code, 1);
    assert!(found.out.starts_with("store 's': damaged\npages-damaged: "), "{}", found.out);
    assert!(found.err.contains("restore it from a backup"), "{}", found.err);
    assert!(std::fs::read(&file).unwrap() == damaged);
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(check(&[]).code, 1);
}

/// A process that may not write a single byte to a file is like one whose disk is full.
#[cfg(target_os = "linux")]
#[test]
fn a_store_is_checked_on_a_full_disk_too() {
    let shell = Shell::new();
    shell.sds(&["--store", "s", "entry", "create", "--value", "milk"]).line();
    let sds = env!("CARGO_BIN_EXE_sds");
    let mut full = Command::new("prlimit");
    full.args(["--fsize=0", sds, "--store", "s", "store", "check"]);
    full.env("SDS_PERSISTENCE_DIR", shell.path().join("stores"));
    let done = Done::from(full.output().unwrap());
    assert_eq!(done.line(), "store 's': sound");
}
