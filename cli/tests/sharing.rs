//! Two devices share a store through a relay with nothing but `sds` commands.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_sync::StoreId;

struct Device<'a> {
    dir: &'a Path,
    server: String,
    token: String,
}

impl Device<'_> {
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sds"))
            .env("SDS_STORE_ID", "notes")
            .env("SDS_PERSISTENCE_DIR", self.dir)
            .env("SDS_SERVER_URL", &self.server)
            .env("SDS_TOKEN", &self.token)
            .env_remove("SDS_CA")
            .args(args)
            .output()
            .unwrap()
    }

    fn sds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {err}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn digest(&self) -> String {
        let info = self.sds(&["store", "info"]);
        info.lines().find(|line| line.starts_with("digest:")).unwrap().to_owned()
    }
}

fn secret() -> Secret {
    Secret::new("a secret that is long enough for HS256").unwrap()
}

fn token(store: &str, scope: Scope) -> String {
    let grant = Grant {
        stores: StoreId::new(store).unwrap().into(),
        subject: "tester".to_owned(),
        scope,
        lifetime: Duration::from_secs(60),
        issuer: None,
    };
    mint(&secret(), &grant, SystemTime::now()).unwrap().reveal().to_owned()
}

#[test]
fn two_devices_share_a_store_that_was_edited_offline() {
    let home = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = RelayConfig::new(secret(), home.path().join("relay"));
    let relay = runtime.block_on(Relay::start(config)).unwrap();
    let dirs = [home.path().join("one"), home.path().join("two")];
    let device = |dir, token| Device { dir, server: relay.url().to_string(), token };
    let one = device(&dirs[0], token("notes", Scope::Write));
    let two = device(&dirs[1], token("notes", Scope::Write));

    let file = home.path().join("large");
    std::fs::write(&file, vec![3; 1_500_000]).unwrap();
    let note = one.sds(&["entry", "create", "--label", "Shopping", "--value", "milk"]);
    let large = one.sds(&["entry", "create", "--file", file.to_str().unwrap()]);
    assert_eq!(one.sds(&["store", "sync"]), "store 'notes': synced");
    assert_eq!(two.sds(&["store", "sync"]), "store 'notes': synced");
    assert_eq!(one.digest(), two.digest());
    let back = home.path().join("back");
    two.sds(&["entry", "get", &large, "--output", back.to_str().unwrap()]);
    assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&file).unwrap());

    // Both edit offline; the relay is not needed for that.
    one.sds(&["entry", "create", "--label", "from one"]);
    two.sds(&["entry", "delete", &note]);
    assert_ne!(one.digest(), two.digest());
    for device in [&one, &two, &one] {
        device.sds(&["store", "sync"]);
    }
    assert_eq!(one.digest(), two.digest());
    assert!(two.sds(&["tree", "show"]).contains("from one"));

    let refused =
        [(token("other", Scope::Write), 6), ("not.a.token".to_owned(), 4), (String::new(), 4)];
    for (token, code) in refused {
        let output = device(&dirs[0], token).run(&["store", "sync"]);
        assert_eq!(output.status.code(), Some(code), "{:?}", output);
    }
    let reader = device(&dirs[1], token("notes", Scope::Read));
    reader.sds(&["store", "sync"]);
    reader.sds(&["entry", "create", "--label", "never sent"]);
    assert_eq!(reader.run(&["store", "sync"]).status.code(), Some(6), "read-only");

    runtime.block_on(relay.stop());
    let output = one.run(&["store", "sync", "--timeout", "300"]);
    assert_eq!(output.status.code(), Some(5), "no relay: {output:?}");
}
