//! Which tokens hold no more before their time: by name, by subject, or by the secret that signed
//! them.
//!
//! They are kept in a file of their own beside the relay's: a line of JSON each, appended and
//! synced before anybody is told so. A backup of the relay's file that is restored so brings back
//! no token that was revoked meanwhile. What the revoked tokens would have outlived anyway is
//! dropped.
//!
//! A revocation reaches as far as its maker's rights: an admin of one store revokes for that store
//! alone.
//!
//! Invariant: V1. What is in memory is in the file.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sds_sync::access::{Access, KeyId, StoreSet, unix_seconds};
use sds_sync::new_file::replace_private;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{REVOCATIONS_MAX, REVOCATIONS_PER_MAKER_MAX};
use crate::lines_file;

/// The name of the file in the relay's folder.
const FILE: &str = "revocations.jsonl";

/// The file is written anew when it has this many lines more than twice those that count.
const SLACK_LINES: usize = 64;

/// How many bytes of a hash are a revocation's name.
const NAME_BYTES: usize = 16;

/// Which tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Revoked {
    /// The one with this name (`jti`).
    Token(Box<str>),
    /// Those of this subject.
    Subject(Box<str>),
    /// Those that this secret signed, or the one without a name.
    Key(Option<KeyId>),
}

/// Tokens that hold no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) what: Revoked,
    /// Only those made until then, to the second; one that does not say when counts as one of them.
    pub(crate) issued_until: Option<SystemTime>,
    /// For these stores.
    pub(crate) within: StoreSet,
    /// From then on none of these tokens would hold anyway.
    pub(crate) expires: Option<SystemTime>,
}

/// Why a token cannot be revoked. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    /// As many as there may be are in force.
    #[error("too many revocations are in force")]
    TooMany,
    /// The file cannot be written.
    #[error("cannot write {FILE}: {0}")]
    File(#[from] io::Error),
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Box<str>>,
    /// Empty for the secret without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// All revocations that are in force.
#[derive(Debug)]
pub(crate) struct Revocations {
    path: PathBuf,
    /// Held while the file is written; how many lines it has.
    lines: Mutex<usize>,
    in_force: RwLock<InForce>,
}

impl Revocations {
    /// Reads the file in `folder`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged: then nobody could say what was revoked.
    pub(crate) fn open(folder: &Path, now: SystemTime) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut in_force = read(&path)?;
        prune(&mut in_force, now);
        let mut lines = 0;
        write_anew(&path, &in_force, &mut lines)?;
        Ok(Self { path, lines: Mutex::new(lines), in_force: RwLock::new(in_force) })
    }

    /// Takes rights away for good; on disk when this returns. Waits for the disk.
    ///
    /// # Errors
    /// If there are too many, or the file cannot be written.
    pub(crate) fn add(&self, revocation: Revocation, now: SystemTime) -> Result<(), RevokeError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
            prune(&mut in_force, now);
            let all = || in_force.values().flatten();
            let of_maker = all().filter(|known| known.within == revocation.within).count();
            let most_of_maker = match revocation.within.is_all() {
                true => REVOCATIONS_MAX,
                false => REVOCATIONS_PER_MAKER_MAX,
            };
            let most_of_all = match revocation.within.is_all() {
                true => REVOCATIONS_MAX,
                // The rest is for admins of the relay.
                false => REVOCATIONS_MAX - REVOCATIONS_PER_MAKER_MAX,
            };
            if all().count() >= most_of_all || of_maker >= most_of_maker {
                return Err(RevokeError::TooMany);
            }
        }
        lines_file::append(&self.path, &encode(&revocation))?;
        *lines += 1;
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        keep(&mut in_force, revocation);
        let count = in_force.values().map(Vec::len).sum::<usize>();
        drop(in_force);
        if *lines > 2 * count + SLACK_LINES {
            let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
            // The file is longer than it need be; what was asked for is in it all the same.
            let _later = write_anew(&self.path, &in_force, &mut lines);
        }
        Ok(())
    }

    /// Whether `access` opens `store` no more.
    pub(crate) fn is_revoked(&self, access: &Access, store: &str) -> bool {
        self.of(access).iter().any(|within| within.contains(store))
    }

    /// For which stores `access` holds no more.
    pub(crate) fn of(&self, access: &Access) -> Vec<StoreSet> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        if in_force.is_empty() {
            return Vec::new();
        }
        let token = access.id.clone().map(Revoked::Token);
        let subject = Revoked::Subject(access.subject.as_str().into());
        let keys = token.into_iter().chain([subject, Revoked::Key(access.key.clone())]);
        let revocations = keys.filter_map(|key| in_force.get(&key)).flatten();
        let hit = revocations.filter(|revocation| match (revocation.issued_until, access.issued) {
            (Some(until), Some(issued)) => issued <= until,
            _ => true,
        });
        hit.map(|revocation| revocation.within.clone()).collect()
    }

    /// Those in force that `may_see`, with their names, in the order of the names, from the one
    /// behind `after` on; at most `max`. Costs a hash of each.
    pub(crate) fn list(
        &self,
        now: SystemTime,
        may_see: impl Fn(&Revocation) -> bool,
        after: Option<&str>,
        max: usize,
    ) -> Vec<(String, Revocation)> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        let holds = |revocation: &&Revocation| revocation.expires.is_none_or(|at| at > now);
        let seen = in_force.values().flatten().filter(holds).filter(|known| may_see(known));
        let named: BTreeMap<String, &Revocation> =
            seen.map(|revocation| (name(revocation), revocation)).collect();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = named.range::<str, _>((from, Bound::Unbounded));
        rest.take(max).map(|(name, known)| (name.clone(), (*known).clone())).collect()
    }

    /// Takes back the revocation of this name, if there is one that `may_lift`; on disk when this
    /// returns. Waits for the disk.
    ///
    /// # Errors
    /// If the file cannot be written. Then the revocation is in force, and it may be that it is no
    /// more after the next start.
    pub(crate) fn lift(
        &self,
        wanted: &str,
        may_lift: impl Fn(&Revocation) -> bool,
    ) -> io::Result<Option<Revocation>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut lifted = None;
        left.retain(|_, alike| {
            lifted = lifted.take().or_else(|| {
                let is_it = |known: &mut Revocation| may_lift(known) && name(known) == wanted;
                alike.extract_if(.., is_it).next()
            });
            !alike.is_empty()
        });
        if lifted.is_some() {
            write_anew(&self.path, &left, &mut lines)?;
            *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = left;
        }
        Ok(lifted)
    }

    /// How many are in force.
    pub(crate) fn len(&self) -> usize {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        in_force.values().map(Vec::len).sum()
    }
}

type InForce = HashMap<Revoked, Vec<Revocation>>;

/// Looks whether the file in `folder`, if there is one, can be read, and changes nothing.
///
/// # Errors
/// If it cannot, or is damaged.
pub(crate) fn check(folder: &Path) -> io::Result<()> {
    match read(&folder.join(FILE)) {
        // There is no such folder, which is another matter.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        found => found.map(drop),
    }
}

fn read(path: &Path) -> io::Result<InForce> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    let mut in_force = HashMap::new();
    for line in lines_file::whole_lines(&bytes) {
        let revocation = decode(line).ok_or_else(|| damaged(path))?;
        keep(&mut in_force, revocation);
    }
    Ok(in_force)
}

/// Writes the file with nothing but what is in force.
fn write_anew(path: &Path, in_force: &InForce, lines: &mut usize) -> io::Result<()> {
    let mut text = Vec::new();
    let mut count = 0;
    for revocation in in_force.values().flatten() {
        text.extend(encode(revocation));
        count += 1;
    }
    replace_private(path, &text)?;
    *lines = count;
    Ok(())
}

/// What a revocation is called by whoever takes it back: a hash of what it says.
fn name(revocation: &Revocation) -> String {
    let hash = Sha256::digest(encode(revocation));
    hash.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// One more, unless it is there.
fn keep(in_force: &mut InForce, revocation: Revocation) {
    let alike = in_force.entry(revocation.what.clone()).or_default();
    if !alike.contains(&revocation) {
        alike.push(revocation);
    }
}

fn prune(in_force: &mut InForce, now: SystemTime) {
    in_force.retain(|_, alike| {
        alike.retain(|revocation| revocation.expires.is_none_or(|expires| expires > now));
        !alike.is_empty()
    });
}

fn damaged(path: &Path) -> io::Error {
    let message = format!("{}: a line is damaged", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn encode(revocation: &Revocation) -> Vec<u8> {
    let (aud, stores) = revocation.within.to_claims();
    let name = |key: &Option<KeyId>| key.as_ref().map_or("", KeyId::as_str).into();
    let (jti, sub, kid) = match &revocation.what {
        Revoked::Token(id) => (Some(id.clone()), None, None),
        Revoked::Subject(subject) => (None, Some(subject.clone()), None),
        Revoked::Key(key) => (None, None, Some(name(key))),
    };
    let issued_until = revocation.issued_until.map(unix_seconds);
    let expires = revocation.expires.map(unix_seconds);
    let line = Line { jti, sub, kid, issued_until, aud, stores, expires };
    // These fields can always be written.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn decode(line: &[u8]) -> Option<Revocation> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let what = match (line.jti, line.sub, line.kid) {
        (Some(id), None, None) => Revoked::Token(id),
        (None, Some(subject), None) => Revoked::Subject(subject),
        (None, None, Some(key)) if key.is_empty() => Revoked::Key(None),
        (None, None, Some(key)) => Revoked::Key(Some(KeyId::new(&key).ok()?)),
        _ => return None,
    };
    let within = StoreSet::from_claims(line.aud.as_deref(), line.stores.as_deref()).ok()?;
    let time = |seconds: Option<u64>| match seconds {
        Some(seconds) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Some),
        None => Some(None),
    };
    let (issued_until, expires) = (time(line.issued_until)?, time(line.expires)?);
    Some(Revocation { what, issued_until, within, expires })
}

#[cfg(test)]
mod tests {
    use sds_sync::StoreId;
    use sds_sync::access::Scope;
    use tempfile::TempDir;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn access() -> Access {
        Access {
            subject: "desk".to_owned(),
            scope: Scope::Write,
            expires: at(10_000),
            stores: StoreSet::all(),
            id: Some("first".into()),
            issued: Some(at(100)),
            key: Some(KeyId::new("new").unwrap()),
            realm: None,
        }
    }

    fn all_of(what: Revoked) -> Revocation {
        Revocation { what, issued_until: None, within: StoreSet::all(), expires: None }
    }

    fn token(id: &str) -> Revoked {
        Revoked::Token(id.into())
    }

    #[test]
    fn tokens_are_revoked_by_name_by_subject_and_by_secret_also_after_reopening() {
        let until = |seconds| Revocation {
            issued_until: Some(at(seconds)),
            ..all_of(Revoked::Subject("desk".into()))
        };
        let one_store = StoreSet::from(StoreId::new("s*").unwrap());
        let rows = [
            (all_of(token("first")), true),
            (all_of(token("other")), false),
            (all_of(Revoked::Subject("desk".into())), true),
            (all_of(Revoked::Subject("phone".into())), false),
            (until(99), false),
            (until(100), true),
            (all_of(Revoked::Key(Some(KeyId::new("new").unwrap()))), true),
            (all_of(Revoked::Key(None)), false),
            (
                Revocation { within: StoreSet::parse(&["s"]).unwrap(), ..all_of(token("first")) },
                true,
            ),
            (
                Revocation { within: StoreSet::parse(&["t*"]).unwrap(), ..all_of(token("first")) },
                false,
            ),
            (Revocation { within: one_store, ..all_of(token("first")) }, false),
        ];
        for (row, (revocation, expected)) in rows.into_iter().enumerate() {
            let folder = TempDir::new().unwrap();
            let revocations = Revocations::open(folder.path(), at(200)).unwrap();
            assert!(!revocations.is_revoked(&access(), "s"));
            revocations.add(revocation, at(200)).unwrap();
            assert_eq!(revocations.is_revoked(&access(), "s"), expected, "row {row}");
            let again = Revocations::open(folder.path(), at(200)).unwrap();
            assert_eq!(again.is_revoked(&access(), "s"), expected, "row {row}, reopened");
        }
    }

    #[test]
    fn a_token_that_does_not_say_when_it_was_made_counts_as_old() {
        let folder = TempDir::new().unwrap();
        let revocations = Revocations::open(folder.path(), at(0)).unwrap();
        let what = Revoked::Subject("desk".into());
        let revocation = Revocation { issued_until: Some(at(1)), ..all_of(what) };
        revocations.add(revocation, at(1)).unwrap();
        let undated = Access { issued: None, ..access() };
        assert!(revocations.is_revoked(&undated, "s") && !revocations.is_revoked(&access(), "s"));
    }

    #[test]
    fn what_has_expired_anyway_is_dropped_from_memory_and_file() {
        let folder = TempDir::new().unwrap();
        let revocations = Revocations::open(folder.path(), at(0)).unwrap();
        for number in 0..300_u64 {
            let what = token(&number.to_string());
            let revocation = Revocation { expires: Some(at(number + 1)), ..all_of(what) };
            revocations.add(revocation, at(number)).unwrap();
            assert_eq!(revocations.len(), 1);
        }
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(text.lines().count() <= 2 + SLACK_LINES, "{} lines", text.lines().count());
        assert_eq!(Revocations::open(folder.path(), at(300)).unwrap().len(), 0);
    }

    #[test]
    fn a_line_that_was_being_written_is_passed_over_and_a_damaged_one_is_not() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(FILE);
        let open = || Revocations::open(folder.path(), at(0));
        open().unwrap().add(all_of(token("first")), at(0)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // The second ends within a character.
        for half in
            [r#"{"jti":"sec"#.as_bytes(), "{\"sub\":\"Zo\u{eb}".as_bytes().split_last().unwrap().1]
        {
            std::fs::write(&path, [&whole[..], half].concat()).unwrap();
            assert_eq!(open().unwrap().len(), 1);
            std::fs::write(&path, [&whole[..], half].concat()).unwrap();
            check(folder.path()).unwrap();
        }
        let revocations = open().unwrap();
        revocations.add(all_of(token("second")), at(0)).unwrap();
        assert_eq!(open().unwrap().len(), 2);
        for bad in
            ["{}\n", "\n", "{\"jti\":\"a\"}\n", "{\"jti\":\"a\",\"sub\":\"b\",\"aud\":\"s\"}\n"]
        {
            std::fs::write(&path, [bad.as_bytes(), &whole].concat()).unwrap();
            assert_eq!(open().unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad}");
        }
    }

    #[test]
    fn one_maker_cannot_use_up_all_that_there_may_be() {
        let folder = TempDir::new().unwrap();
        let revocations = Revocations::open(folder.path(), at(0)).unwrap();
        let within = || StoreSet::from(StoreId::new("s").unwrap());
        let of =
            |number: usize| Revocation { within: within(), ..all_of(token(&number.to_string())) };
        {
            let mut in_force = revocations.in_force.write().unwrap();
            (1..REVOCATIONS_PER_MAKER_MAX).for_each(|number| keep(&mut in_force, of(number)));
        }
        revocations.add(of(0), at(0)).unwrap();
        let one_more = revocations.add(of(REVOCATIONS_PER_MAKER_MAX), at(0));
        assert!(matches!(one_more, Err(RevokeError::TooMany)));
        revocations.add(all_of(token("another maker's")), at(0)).unwrap();
        {
            let mut in_force = revocations.in_force.write().unwrap();
            let left = REVOCATIONS_MAX - in_force.values().map(Vec::len).sum::<usize>() - 1;
            (0..left).for_each(|number| keep(&mut in_force, all_of(token(&format!("x{number}")))));
        }
        revocations.add(all_of(token("the last")), at(0)).unwrap();
        let one_more = revocations.add(all_of(token("one more")), at(0));
        assert!(matches!(one_more, Err(RevokeError::TooMany)));
    }
}
