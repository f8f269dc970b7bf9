//! Which source of the configuration wins, and what each mistake is called.

use clap::Parser;
use tempfile::TempDir;

use super::*;

const SECRET: &str = "a secret of more than thirty-two characters";

/// A folder with `relay.toml` in it.
struct Home(TempDir);

impl Home {
    fn with(text: &str) -> Self {
        let home = Self(TempDir::new().unwrap());
        fs::write(home.path("relay.toml"), text).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn gather(
        &self,
        words: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Settings, ConfigError> {
        let config = self.path("relay.toml");
        let head = ["sds-relay", "--config", config.to_str().unwrap()];
        let line = CommandLine::try_parse_from(head.iter().chain(words)).unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::gather(&line.serve, environment)
    }

    fn error(&self, words: &[&str]) -> String {
        self.gather(words, &[]).unwrap_err().to_string()
    }
}

#[test]
fn an_empty_file_is_the_defaults_and_what_is_printed_is_a_file_again() {
    let home = Home::with("");
    let settings = home.gather(&[], &[]).unwrap();
    let expected = Settings { data_dir: home.path("sds-relay-data"), ..Settings::default() };
    assert_eq!(settings, expected);
    let again: Settings = toml::from_str(&settings.to_toml()).unwrap();
    assert_eq!(again, settings);
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let home = Home::with("port = 1\nhost = '::1'\n[limits]\nstreams = 10\nopen_stores = 9\n");
    let settings = home.gather(&["--port", "2"], &[]).unwrap();
    assert_eq!((settings.port, settings.host.as_str()), (2, "::1"));
    assert_eq!((settings.limits.streams, settings.limits.open_stores), (10, 9));
    assert_eq!(settings.limits.connections, Limits::default().connections);
}

#[test]
fn the_admin_listener_and_the_folder_have_other_names_too() {
    let home = Home::with("data_dir = 'file'\n[admin]\nport = 1\n");
    let settings = home.gather(&["--admin", "[::1]:2", "--admin-host", "host"], &[]).unwrap();
    assert_eq!((settings.admin.host.as_str(), settings.admin.port), ("::1", Some(2)));
    let both = [("SDS_PERSIST_DIR", "/old"), ("SDS_PERSISTENCE_DIR", "/new")];
    let folder = |words: &[&str], environment: &[(&str, &str)]| {
        home.gather(words, environment).unwrap().data_dir
    };
    assert_eq!(folder(&[], &both), Path::new("/new"));
    assert_eq!(folder(&[], &both[..1]), Path::new("/old"));
    assert_eq!(folder(&["--data-dir", "/flag"], &both), Path::new("/flag"));
    assert_eq!(folder(&[], &[("SDS_PERSIST_DIR", "")]), home.path("file"));
}

/// Goal: of each layer HOST:PORT wins over its parts, and a flag over any variable.
#[test]
fn flags_win_over_the_environment_for_the_admin_listener_too() {
    let home = Home::with("[admin]\nhost = 'file'\nport = 1\n");
    let both = [("SDS_ADMIN", "both:3"), ("SDS_ADMIN_HOST", "part"), ("SDS_ADMIN_PORT", "2")];
    let empty = [("SDS_ADMIN", ""), ("SDS_ADMIN_HOST", ""), ("SDS_ADMIN_PORT", "")];
    let rows = [
        ("", &empty[..], "file", 1),
        ("", &both[1..], "part", 2),
        ("", &both, "both", 3),
        ("--admin-host flag", &both, "flag", 3),
        ("--admin-port 4", &both[1..2], "part", 4),
        ("--admin flags:5 --admin-port 4", &both, "flags", 5),
    ];
    for (words, environment, host, port) in rows {
        let words: Vec<&str> = words.split_whitespace().collect();
        let admin = home.gather(&words, environment).unwrap().admin;
        assert_eq!(admin, AdminSettings { host: host.to_owned(), port: Some(port) }, "{words:?}");
    }
    for (name, value) in [("SDS_ADMIN", "3001"), ("SDS_ADMIN_PORT", "many")] {
        let error = home.gather(&[], &[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}={value}")), "{error}");
    }
}

/// Goal: what a start would find damaged is found before. Method: each file of the folder that is
/// read.
#[test]
fn what_is_damaged_in_the_folder_is_a_problem() {
    let home = Home::with("");
    let settings = home.gather(&[], &[(SECRET_VARIABLE, SECRET)]).unwrap();
    assert!(settings.problems().is_empty(), "what is not there is made");
    assert!(!home.path("sds-relay-data").exists(), "by the relay");
    for name in ["identity.pem", "revocations.jsonl"] {
        fs::create_dir_all(&settings.data_dir).unwrap();
        fs::write(settings.data_dir.join(name), "half a line\n").unwrap();
        let problems = settings.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains(name), "{problems:?}");
        fs::remove_dir_all(&settings.data_dir).unwrap();
    }
}

#[test]
fn a_limit_is_the_flag_s_then_the_environment_s_then_the_file_s() {
    let home = Home::with("[limits]\nstreams = 10\nopen_stores = 9\nconnections = 8\n");
    let environment = [("SDS_LIMITS_STREAMS", "20"), ("SDS_LIMITS_OPEN_STORES", "19")];
    let settings = home.gather(&["--limit", "streams=30"], &environment).unwrap();
    let Limits { streams, open_stores, connections, .. } = settings.limits;
    assert_eq!((streams, open_stores, connections), (30, 19, 8));
    for bad in ["streams", "stream=1", "streams=many", "streams=-1", "streams=99999999999"] {
        let error = home.error(&["--limit", bad]);
        assert!(error.contains(bad), "{error}");
    }
    let error = home.gather(&[], &[("SDS_LIMITS_STREAM", "1")]).unwrap_err().to_string();
    assert!(error.contains("SDS_LIMITS_STREAM=1"), "{error}");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let rows = [
        ("port = 1\nhots = 'x'\n", "line 2", "hots"),
        ("\n\n[limits]\nstream = 1\n", "line 4", "stream"),
        ("[tls]\ncertificate = 'c'\nkey = 'k'\nca = 'x'\n", "line 4", "ca"),
        ("[[keys]]\nsecret = 'x'\n", "line 2", "secret"),
        ("[admin]\nlisten = 1\n", "line 2", "listen"),
        ("port = 'x'\n", "line 1", "port"),
        ("[tls]\ncertificate = 'c'\n", "line 1", "key"),
        ("log_format = 'xml'\n", "line 1", "xml"),
        ("port = \n", "line 1", "port"),
    ];
    for (text, line, key) in rows {
        let error = Home::with(text).error(&[]);
        assert!(error.contains(line) && error.contains(key), "{text}: {error}");
        assert!(error.contains("relay.toml"), "{error}");
    }
}

#[test]
fn the_one_secret_is_from_the_environment_or_a_file() {
    let home = Home::with("");
    let settings = home.gather(&["--secret-file", "gone"], &[]).unwrap();
    assert!(matches!(settings.keyring(), Err(ConfigError::Read { .. })));
    assert!(settings.to_toml().contains("secret_file = \"gone\""), "{}", settings.to_toml());
    let settings = home.gather(&[], &[(SECRET_VARIABLE, SECRET)]).unwrap();
    settings.keyring().unwrap();
    assert!(!settings.to_toml().contains(SECRET));
    assert!(!format!("{settings:?}").contains(SECRET));
    let short = home.gather(&[], &[(SECRET_VARIABLE, "short")]).unwrap();
    let error = short.keyring().unwrap_err().to_string();
    assert!(error.contains(SECRET_VARIABLE) && !error.contains("\"short\""), "{error}");
}

/// Goal: a secret that an operator takes out of one place does not go on signing and checking from
/// another. Method: each two of the places, at the start and for a check.
#[test]
fn secrets_in_two_places_are_an_error_that_names_both() {
    let (none, keys) = (Home::with("keys = []\n"), Home::with("[[keys]]\nsecret_file = 'a'\n"));
    fs::write(keys.path("a"), SECRET).unwrap();
    let file = keys.path("a");
    let flag = ["--secret-file", file.to_str().unwrap()];
    let variable = [(SECRET_VARIABLE, SECRET)];
    let places = ["SDS_JWT_SECRET ", "SDS_JWT_SECRET_FILE", "[[keys]]"];
    type Row<'a> = (&'a Home, &'a [&'a str], &'a [(&'a str, &'a str)], &'a [usize]);
    let rows: [Row<'_>; 7] = [
        (&none, &[], &variable, &[]),
        (&none, &flag, &[], &[]),
        (&keys, &[], &[], &[]),
        (&keys, &[], &variable, &[0, 2]),
        (&keys, &flag, &[], &[1, 2]),
        (&none, &flag, &variable, &[0, 1]),
        (&keys, &flag, &variable, &[0, 1]),
    ];
    for (home, words, environment, named) in rows {
        let settings = home.gather(words, environment).unwrap();
        let Err(error) = settings.to_relay_config() else {
            assert!(named.is_empty() && settings.problems().is_empty(), "{words:?}");
            continue;
        };
        let said = error.to_string();
        assert!(matches!(error, ConfigError::TwoPlaces(..)) && !named.is_empty(), "{said}");
        assert!(named.iter().all(|place| said.contains(places[*place])), "{said}");
        assert!(matches!(&settings.problems()[..], [ConfigError::TwoPlaces(..)]));
    }
    let named = Home::with("signing_key = 'new'\n").gather(&[], &variable).unwrap();
    let error = named.keyring().map(drop);
    assert!(matches!(error, Err(ConfigError::NoSuchKey(_))), "the one secret has no name");
}

/// Acceptance 165.
#[test]
fn without_a_secret_or_with_a_short_one_nothing_starts() {
    let none = Home::with("").gather(&[], &[(SECRET_VARIABLE, "")]).unwrap();
    assert!(matches!(none.to_relay_config(), Err(ConfigError::NoSecret)));
    let home = Home::with("[[keys]]\nsecret_file = 'secret'\n");
    fs::write(home.path("secret"), format!("{}\n", "x".repeat(31))).unwrap();
    let error = home.gather(&[], &[]).unwrap().to_relay_config().unwrap_err();
    assert!(matches!(error, ConfigError::Secret { .. }), "{error}");
    assert!(error.to_string().contains("secret"));
    fs::write(home.path("secret"), format!("{}\r\n", "x".repeat(32))).unwrap();
    home.gather(&[], &[]).unwrap().to_relay_config().unwrap();
}

#[test]
fn several_keys_check_and_the_one_that_is_named_signs() {
    let text = "signing_key = 'new'\n[[keys]]\nkid = 'old'\nsecret_file = 'a'\n\
                [[keys]]\nkid = 'new'\nsecret_file = 'b'\n[[keys]]\nsecret_file = 'c'\n";
    let home = Home::with(text);
    for name in ["a", "b", "c"] {
        fs::write(home.path(name), name.repeat(32)).unwrap();
    }
    let settings = home.gather(&[], &[]).unwrap();
    let keyring = format!("{:?}", settings.keyring().unwrap());
    let place = |kid: &str| keyring.find(kid).unwrap();
    assert!(place("new") < place("old"), "{keyring}");
    assert!(!keyring.contains("bbb"));
    let of = |signing: &str, text: &str| {
        let other = text.replace("signing_key = 'new'", &format!("signing_key = '{signing}'"));
        fs::write(home.path("relay.toml"), other).unwrap();
        home.gather(&[], &[]).unwrap().keyring().map(drop)
    };
    assert!(matches!(of("gone", text), Err(ConfigError::NoSuchKey(_))));
    assert!(matches!(of("new", &text.replace("'old'", "'new'")), Err(ConfigError::Keyring(_))));
    assert!(matches!(of("new", &text.replace("'old'", "'o l d'")), Err(ConfigError::KeyId(..))));
}

#[test]
fn a_certificate_needs_its_key() {
    let home = Home::with("");
    for half in [["--cert", "c.pem"], ["--key", "k.pem"]] {
        assert!(matches!(home.gather(&half, &[]), Err(ConfigError::HalfCertificate)));
    }
    let home = Home::with("[tls]\ncertificate = 'c.pem'\nkey = 'k.pem'\n");
    let settings = home.gather(&["--key", "/other.pem"], &[]).unwrap();
    let (chain, key) = (home.path("c.pem"), "/other.pem".into());
    assert_eq!(settings.certificate(), CertificateSource::Files { chain, key });
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let home = Home::with("host = 'no such host'\nlog_level = 'a=b=c'\n[limits]\nstreams = 0\n");
    let problems = home.gather(&["--cert", "c", "--key", "k"], &[]).unwrap().problems();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for expected in ["no such host", "a=b=c", "limits.streams", "SDS_JWT_SECRET", "cannot use c"] {
        assert!(text.iter().any(|line| line.contains(expected)), "{expected} in {text:?}");
    }
    assert_eq!(text.len(), 5, "{text:?}");
    let fine = Home::with("").gather(&[], &[(SECRET_VARIABLE, SECRET)]).unwrap();
    assert!(fine.problems().is_empty(), "{:?}", fine.problems());
    assert!(!fine.data_dir.exists(), "a check changes nothing");
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let home = Home::with("data_dir = 'file/data'\n");
    fs::write(home.path("file"), "").unwrap();
    let problems = home.gather(&[], &[(SECRET_VARIABLE, SECRET)]).unwrap().problems();
    assert!(matches!(&problems[..], [ConfigError::Folder { .. }]), "{problems:?}");
}

/// The example is the reference of the operator: it has to be whole and true.
#[test]
fn the_example_names_every_key_with_its_default() {
    let example = include_str!("../../deploy/relay.toml");
    let settings: Settings = toml::from_str(example).unwrap();
    assert_eq!(settings, Settings::default());
    // Without the # before those that have no default it is good too, and then nothing is lacking.
    let is_key = |line: &str| line.starts_with(|first: char| first == '[' || first.is_lowercase());
    let lines = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line));
    let full: Settings = toml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    let Settings { issuer, signing_key, tls, keys, admin, .. } = full;
    assert!(issuer.is_some() && signing_key.is_some() && tls.is_some() && admin.port.is_some());
    assert_eq!(keys.len(), 2);
    let table: toml::Table = toml::from_str(example).unwrap();
    let defaults: toml::Table = Settings::default().to_toml().parse().unwrap();
    for section in ["", "admin", "limits"] {
        let of = |table: &toml::Table| -> Vec<String> {
            let table = if section.is_empty() { table } else { table[section].as_table().unwrap() };
            table.keys().cloned().collect()
        };
        let mut keys = (of(&table), of(&defaults));
        // A list of sections, which would be there twice if the example began an empty one.
        keys.1.retain(|key| key != "keys");
        keys.0.sort();
        keys.1.sort();
        assert_eq!(keys.0, keys.1, "{section}");
    }
}
