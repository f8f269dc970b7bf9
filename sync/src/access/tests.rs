use std::time::{Duration, SystemTime};

use jsonwebtoken::{Header, encode};

use super::*;
use crate::limits::{
    KEY_ID_BYTES_MAX, KEYS_MAX, SUBJECT_BYTES_MAX, TOKEN_ID_BYTES_MAX, TOKEN_STORES_MAX,
};
use crate::store_id::StoreId;

const DAY: Duration = Duration::from_secs(86_400);

fn secret() -> Secret {
    Secret::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn grant() -> Grant {
    Grant {
        stores: StoreId::new("s").unwrap().into(),
        subject: "desk".to_owned(),
        scope: Scope::Write,
        lifetime: DAY,
        issuer: None,
    }
}

fn sign(algorithm: Algorithm, claims: &impl Serialize) -> Token {
    let key = secret().signing_key();
    encode(&Header::new(algorithm), claims, &key).unwrap().into()
}

#[test]
fn secrets_have_at_least_32_characters() {
    assert_eq!(Secret::new(&"é".repeat(31)).unwrap_err(), WeakSecret);
    assert!(Secret::new(&"é".repeat(32)).is_ok());
    assert_eq!(Secret::new("").unwrap_err(), WeakSecret);
    assert!(!format!("{:?}", secret()).contains("0123"));
}

#[test]
fn a_minted_token_opens_its_store_until_it_expires() {
    let now = SystemTime::now();
    let token = mint(&secret(), &grant(), now).unwrap();
    let gate = Gate::new(secret(), None);
    let access = gate.check(&token, "s", now).unwrap();
    assert_eq!((access.subject.as_str(), access.scope), ("desk", Scope::Write));
    assert!(access.may_write());
    assert_eq!(gate.check(&token, "s", now + DAY), Err(AccessError::Unauthorized));
    assert_eq!(gate.check(&token, "t", now), Err(AccessError::Forbidden));
}

#[test]
fn tokens_of_others_are_unauthorized() {
    let now = SystemTime::now();
    let gate = Gate::new(secret(), None);
    let other = Secret::new(&"x".repeat(32)).unwrap();
    let foreign = mint(&other, &grant(), now).unwrap();
    // {"alg":"none","typ":"JWT"} . {"sub":"desk","aud":"s","scope":"write","exp":99999999999}
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJkZXNrIiwiYXVkIjoicyIsInNjb3BlIjoid3JpdGUiLCJleHAiOjk5OTk5OTk5OTk5fQ.";
    for token in ["", "x", "a.b.c", unsigned, foreign.reveal(), &"x".repeat(9_000)] {
        let checked = gate.check(&Token::from(token.to_owned()), "s", now);
        assert_eq!(checked, Err(AccessError::Unauthorized), "{token}");
    }
}

#[test]
fn claims_that_are_missing_or_of_another_kind_are_unauthorized() {
    let now = SystemTime::now();
    let gate = Gate::new(secret(), None);
    let good = r#"{"sub":"desk","aud":"s","scope":"read","exp":99999999999}"#;
    let named = |bytes| good.replace("{", &format!(r#"{{"jti":"{}","#, "x".repeat(bytes)));
    let rows = [
        (good.to_owned(), true),
        (good.replace(r#""s""#, r#"["s"]"#), false),
        (good.replace(r#""sub":"desk","#, ""), false),
        (good.replace("desk", ""), false),
        (good.replace("desk", &"x".repeat(SUBJECT_BYTES_MAX)), true),
        (good.replace("desk", &"x".repeat(SUBJECT_BYTES_MAX + 1)), false),
        (named(TOKEN_ID_BYTES_MAX), true),
        (named(TOKEN_ID_BYTES_MAX + 1), false),
        (good.replace("read", "superuser"), false),
        (good.replace(r#""scope":"read","#, ""), false),
        (good.replace(r#","exp":99999999999"#, ""), false),
        (good.replace("99999999999", "1"), false),
        (good.replace("99999999999", "-1"), false),
        (good.replace("99999999999", "18446744073709551615"), false),
    ];
    for (claims, is_good) in rows {
        let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
        let token = sign(Algorithm::HS256, &claims);
        assert_eq!(gate.check(&token, "s", now).is_ok(), is_good, "{claims}");
        let token = sign(Algorithm::HS384, &claims);
        let checked = gate.check(&token, "s", now);
        assert_eq!(checked, Err(AccessError::Unauthorized), "only HS256");
    }
}

#[test]
fn with_an_issuer_only_its_tokens_are_good() {
    let now = SystemTime::now();
    let gate = Gate::new(secret(), Some("home".to_owned()));
    for (issuer, is_good) in [(None, false), (Some("away"), false), (Some("home"), true)] {
        let grant = Grant { issuer: issuer.map(str::to_owned), ..grant() };
        let token = mint(&secret(), &grant, now).unwrap();
        assert_eq!(gate.check(&token, "s", now).is_ok(), is_good, "{issuer:?}");
    }
}

#[test]
fn what_would_not_be_accepted_is_not_minted() {
    let now = SystemTime::now();
    let mint = |grant: &Grant| mint(&secret(), grant, now).map(drop);
    let nobody = Grant { subject: String::new(), ..grant() };
    assert_eq!(mint(&nobody), Err(MintError::NoSubject));
    let forever = Grant { lifetime: Duration::MAX, ..grant() };
    assert_eq!(mint(&forever), Err(MintError::LifetimeTooLong));
    let long = Grant { subject: "x".repeat(SUBJECT_BYTES_MAX + 1), ..grant() };
    assert_eq!(mint(&long), Err(MintError::SubjectTooLong));
    let long = Grant { issuer: Some("x".repeat(TOKEN_BYTES_MAX)), ..grant() };
    assert_eq!(mint(&long), Err(MintError::TooLong));
}

fn key_id(name: &str) -> Option<KeyId> {
    Some(KeyId::new(name).unwrap())
}

fn other_secret() -> Secret {
    Secret::new(&"x".repeat(32)).unwrap()
}

#[test]
fn the_first_secret_signs_and_each_checks_what_names_it() {
    let now = SystemTime::now();
    let id = TokenId::from_halves(1, 2);
    let old = Keyring::from(secret());
    let mut both = Keyring::new(key_id("new"), other_secret());
    both.add(None, secret()).unwrap();
    let only_new = Keyring::new(key_id("new"), other_secret());
    let mut swapped = Keyring::new(key_id("new"), secret());
    swapped.add(None, other_secret()).unwrap();
    let by_old = old.mint(&grant(), &id, now).unwrap();
    let by_new = both.mint(&grant(), &id, now).unwrap();
    let rows = [
        (&old, &by_old, true),
        (&old, &by_new, false),
        (&both, &by_old, true),
        (&both, &by_new, true),
        (&only_new, &by_old, false),
        (&only_new, &by_new, true),
        (&swapped, &by_old, false),
        (&swapped, &by_new, false),
    ];
    for (row, (keys, token, is_good)) in rows.into_iter().enumerate() {
        let access = Gate::new(keys.clone(), None).check(token, "s", now);
        assert_eq!(access.is_ok(), is_good, "row {row}");
    }
    let access = Gate::new(both, None).verify(&by_new, now).unwrap();
    assert_eq!((access.key, access.id.as_deref()), (key_id("new"), Some(id.as_str())));
    assert_eq!(
        access.issued.map(|time| time.duration_since(UNIX_EPOCH).unwrap().subsec_nanos()),
        Some(0)
    );
}

#[test]
fn secrets_have_names_of_their_own_and_are_not_many() {
    let mut keys = Keyring::from(secret());
    assert_eq!(keys.add(None, other_secret()), Err(KeyringError::SameName));
    for number in 1..KEYS_MAX {
        keys.add(key_id(&number.to_string()), other_secret()).unwrap();
    }
    assert_eq!(keys.add(key_id("onemore"), other_secret()), Err(KeyringError::TooMany));
    let longest = "x".repeat(KEY_ID_BYTES_MAX);
    assert!(KeyId::new(&longest).is_ok());
    for bad in ["", "a b", "\u{e9}", "a\n", &format!("{longest}x")] {
        assert_eq!(KeyId::new(bad), Err(InvalidKeyId), "{bad:?}");
    }
}

#[test]
fn a_token_names_one_store_or_several_but_never_both() {
    let now = SystemTime::now();
    let gate = Gate::new(secret(), None);
    let many = |count| format!(r#""stores":{:?}"#, vec!["s"; count]);
    let rows = [
        (r#""aud":"s""#.to_owned(), Ok(())),
        (r#""aud":"t""#.to_owned(), Err(AccessError::Forbidden)),
        (r#""aud":"*""#.to_owned(), Err(AccessError::Forbidden)),
        (r#""stores":["s"]"#.to_owned(), Ok(())),
        (r#""stores":["t","s"]"#.to_owned(), Ok(())),
        (r#""stores":["t","r*"]"#.to_owned(), Err(AccessError::Forbidden)),
        (r#""stores":["s*"]"#.to_owned(), Ok(())),
        (r#""stores":["*"]"#.to_owned(), Ok(())),
        (many(TOKEN_STORES_MAX), Ok(())),
        (many(TOKEN_STORES_MAX + 1), Err(AccessError::Unauthorized)),
        (r#""stores":[]"#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""stores":["s",""]"#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""stores":["s",1]"#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""stores":"s""#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""aud":"s","stores":["s"]"#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""aud":["s"]"#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""aud":"""#.to_owned(), Err(AccessError::Unauthorized)),
        (r#""nobody":"s""#.to_owned(), Err(AccessError::Unauthorized)),
    ];
    for (stores, expected) in rows {
        let claims = format!(r#"{{"sub":"desk","scope":"read","exp":99999999999,{stores}}}"#);
        let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
        let checked = gate.check(&sign(Algorithm::HS256, &claims), "s", now);
        assert_eq!(checked.map(drop), expected, "{stores}");
    }
}

#[test]
fn stores_survive_minting() {
    let now = SystemTime::now();
    let sets = [
        StoreId::new("a*").unwrap().into(),
        StoreSet::parse(&["a", "b*"]).unwrap(),
        StoreSet::parse(&["b*"]).unwrap(),
        StoreSet::all(),
    ];
    for stores in sets {
        let token = mint(&secret(), &Grant { stores: stores.clone(), ..grant() }, now).unwrap();
        assert_eq!(Gate::new(secret(), None).verify(&token, now).unwrap().stores, stores);
    }
}

/// Goal: who makes admins for parts of their stores stays one realm with them. Method: tokens that are made
/// with tokens, for one store and for several, of which one has a name with a star at its end.
#[test]
fn tokens_stay_in_the_realm_of_the_first_admin_of_stores() {
    let now = SystemTime::now();
    let (keys, gate) = (Keyring::from(secret()), Gate::new(secret(), None));
    let made = |stores: &StoreSet, realm: Option<StoreSet>| {
        let grant = Grant { stores: stores.clone(), scope: Scope::Admin, ..grant() };
        let token = keys.mint_within(&grant, &TokenId::random(), now, realm.as_ref());
        gate.verify(&token.unwrap(), now).unwrap()
    };
    let star = StoreSet::from(StoreId::new("a*").unwrap());
    let all = made(&StoreSet::all(), None);
    assert_eq!(all.realm_of_grants(), None, "an admin of the relay has none");
    for own in [StoreSet::parse(&["a*", "b"]).unwrap(), star.clone()] {
        let first = made(&own, all.realm_of_grants());
        assert_eq!((&first.realm, first.realm_of_grants()), (&None, Some(own.clone())));
        let second = made(&own, first.realm_of_grants());
        assert_eq!(second.realm.as_ref(), Some(&own));
        let third = made(&star, second.realm_of_grants());
        assert_eq!((third.realm.as_ref(), &third.stores), (Some(&own), &star));
        assert_eq!(third.realm_of_grants(), Some(own));
    }
    let bad = r#"{"sub":"desk","aud":"s","scope":"read","exp":99999999999,"realm":"#;
    for (realm, is_good) in [("[]", true), ("\"s\"", true), ("\"\"", false), ("7", false)] {
        let claims: serde_json::Value = serde_json::from_str(&format!("{bad}{realm}}}")).unwrap();
        let token = sign(Algorithm::HS256, &claims);
        assert_eq!(gate.check(&token, "s", now).is_ok(), is_good, "{realm}");
    }
}

#[test]
fn nobody_grants_more_than_they_have() {
    let now = SystemTime::now();
    let access = |scope, stores: &[&str]| Access {
        subject: "desk".to_owned(),
        scope,
        expires: now + DAY,
        stores: StoreSet::parse(stores).unwrap(),
        id: None,
        issued: None,
        key: None,
        realm: None,
    };
    type Row<'a> = (Scope, &'a [&'a str], &'a [&'a str], Duration, Result<(), BeyondMinter>);
    let rows: [Row<'_>; 8] = [
        (Scope::Admin, &["s"], &["s"], DAY, Ok(())),
        (Scope::Admin, &["s"], &["s"], DAY + Duration::from_secs(1), Err(BeyondMinter::Lifetime)),
        (Scope::Admin, &["s"], &["t"], DAY, Err(BeyondMinter::Stores)),
        (Scope::Admin, &["s"], &["s", "t"], DAY, Err(BeyondMinter::Stores)),
        (Scope::Admin, &["s*"], &["s", "st*"], DAY, Ok(())),
        (Scope::Admin, &["s*"], &["*"], DAY, Err(BeyondMinter::Stores)),
        (Scope::Write, &["s"], &["s"], DAY, Err(BeyondMinter::Scope)),
        (Scope::Read, &["*"], &["s"], DAY, Err(BeyondMinter::Scope)),
    ];
    for (scope, own, stores, lifetime, expected) in rows {
        let stores = StoreSet::parse(stores).unwrap();
        let granted = access(scope, own).may_grant(&stores, now + lifetime);
        assert_eq!(granted, expected, "{scope:?} {own:?} {stores:?}");
    }
}
