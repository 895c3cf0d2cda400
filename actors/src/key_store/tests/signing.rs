//! Cross-signing with real keys.

use ruma::CanonicalJsonObject;
use ruma::serde::Base64;
use ruma::serde::base64::Standard;
use ruma::signatures::{Ed25519KeyPair, sign_json};

use super::*;

/// A key pair that signs as its public key, or as a device.
struct Pair {
    pair: Ed25519KeyPair,
    public: String,
}

fn pair(device: Option<&str>) -> Pair {
    let der = Ed25519KeyPair::generate();
    let named = |name: String| Ed25519KeyPair::from_der(&der, name).expect("a key pair");
    let public = Base64::<Standard, _>::new(named(String::new()).public_key().to_vec()).encode();
    Pair {
        pair: named(device.unwrap_or(&public).to_owned()),
        public,
    }
}

fn signed(mut object: Value, user: &UserId, by: &[&Pair]) -> Value {
    for key in by {
        let mut canonical: CanonicalJsonObject = serde_json::from_value(object).expect("canonical");
        sign_json(user.as_str(), &key.pair, &mut canonical).expect("signed");
        object = serde_json::to_value(canonical).expect("JSON");
    }
    object
}

fn signing_key(user: &UserId, usage: &str, key: &Pair) -> Value {
    let id = format!("ed25519:{}", key.public);
    json!({"user_id": user, "usage": [usage], "keys": {id: key.public}})
}

/// A user with a device and all three cross-signing keys.
struct Person {
    who: Identity,
    device: Pair,
    device_keys: Value,
    master: Pair,
    self_signing: Pair,
    user_signing: Pair,
}

impl Person {
    async fn new(stage: &Stage, user: &str, device: &str) -> Person {
        let who = stage.device(user, device).await;
        let person = Person {
            device_keys: Value::Null,
            device: pair(Some(device)),
            master: pair(None),
            self_signing: pair(None),
            user_signing: pair(None),
            who,
        };
        let mut keys = identity(&person.who);
        keys["keys"] = json!({format!("ed25519:{device}"): person.device.public});
        let keys = signed(keys, &person.who.user, &[&person.device]);
        let mut message = upload(&person.who);
        message.device_keys = Some(raw(&keys));
        stage.ask(message).await.expect("taken in");
        Person {
            device_keys: keys,
            ..person
        }
    }

    fn user(&self) -> &UserId {
        &self.who.user
    }

    fn master_key(&self) -> Value {
        signing_key(self.user(), "master", &self.master)
    }

    fn signing(&self) -> UploadSigning {
        let by_master = |usage, key: &Pair| {
            let key = signing_key(self.user(), usage, key);
            Some(raw(&signed(key, self.user(), &[&self.master])))
        };
        UploadSigning {
            from: self.who.clone(),
            confirmed: false,
            master_key: Some(raw(&self.master_key())),
            self_signing_key: by_master("self_signing", &self.self_signing),
            user_signing_key: by_master("user_signing", &self.user_signing),
        }
    }

    async fn bootstrap(&self, stage: &Stage) {
        let done = stage.ask(self.signing()).await.expect("taken in");
        assert_eq!(done, SigningUploaded::Done);
    }

    fn signatures(&self, over: &[(&UserId, &str, Value)]) -> UploadSignatures {
        let mut signed: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>> = BTreeMap::new();
        for (user, key, object) in over {
            let of_user = signed.entry((*user).to_owned()).or_default();
            of_user.insert((*key).to_owned(), raw(object));
        }
        UploadSignatures {
            from: self.who.clone(),
            signed,
        }
    }
}

/// The users and keys that signed a key.
fn signers(key: &RawValue) -> Vec<String> {
    let signatures = value(key)["signatures"].clone();
    let all = signatures.as_object().into_iter().flatten();
    all.flat_map(|(user, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(id, _)| format!("{user} {id}"))
    })
    .collect()
}

fn by(person: &Person, key: &Pair) -> String {
    format!("{} ed25519:{}", person.user(), key.public)
}

/// Clause: cs.signing.confirmed, cs.signing.first, cs.signing.user-signing
#[actix::test]
async fn the_first_keys_need_no_confirmation_and_new_ones_do() {
    let stage = stage().await;
    let bob = stage.device("@bob:test", "PHONE").await;
    let mut alice = Person::new(&stage, "@alice:test", "LAPTOP").await;
    let log = stage.logged().await.len();
    alice.bootstrap(&stage).await;
    // Uploading the same keys again changes nothing.
    alice.bootstrap(&stage).await;
    assert_eq!(
        stage.logged_since(log).await,
        [(schema::device_log::Kind::Keys, "@alice:test".to_owned())]
    );

    let first = alice.signing();
    alice.user_signing = pair(None);
    let mut new = alice.signing();
    let outcome = stage.ask(new.clone()).await.expect("an answer");
    assert_eq!(outcome, SigningUploaded::MustBeConfirmed);
    let seen = stage.query(&alice.who, &["@alice:test"]).await;
    let stored = &seen.user_signing_keys[alice.user()];
    assert_eq!(
        Some(stored.get()),
        first.user_signing_key.as_deref().map(RawValue::get)
    );

    // A new user-signing key concerns only its owner.
    new.confirmed = true;
    let outcome = stage.ask(new).await.expect("an answer");
    assert_eq!(outcome, SigningUploaded::Done);
    assert_eq!(
        stage.logged_since(log + 1).await,
        [(schema::device_log::Kind::Private, "@alice:test".to_owned())]
    );
    let seen = stage.query(&bob, &["@alice:test"]).await;
    assert_eq!(
        (seen.master_keys.len(), seen.self_signing_keys.len()),
        (1, 1)
    );
    assert!(seen.user_signing_keys.is_empty());
}

/// Clause: as.devices.signing-keys
#[actix::test]
async fn services_never_confirm() {
    let stage = stage().await;
    let mut ghost = Person::new(&stage, "@irc_bob:test", "GHOST").await;
    ghost.who.appservice = Some(ServiceId::from("irc"));
    ghost.bootstrap(&stage).await;
    ghost.master = pair(None);
    ghost.bootstrap(&stage).await;
}

/// Clause: cs.signing.form, cs.signing.master-first, cs.signing.signed
#[actix::test]
async fn bad_keys_change_nothing() {
    let stage = stage().await;
    let alice = Person::new(&stage, "@alice:test", "LAPTOP").await;
    let with = |change: &dyn Fn(&mut UploadSigning)| {
        let mut message = alice.signing();
        change(&mut message);
        stage.ask(message)
    };
    let other = pair(None);
    let by_other = raw(&signed(
        signing_key(alice.user(), "self_signing", &alice.self_signing),
        alice.user(),
        &[&other],
    ));
    let mut forged = value(alice.signing().self_signing_key.as_deref().expect("a key"));
    forged["more"] = json!("not signed");
    let mut two = alice.master_key();
    two["keys"][format!("ed25519:{}", other.public)] = json!(other.public);
    let mut misnamed = alice.master_key();
    misnamed["keys"] = json!({"ed25519:other": alice.master.public});
    let mut short = alice.master_key();
    short["keys"] = json!({"ed25519:abc": "abc"});
    let mut of_bob = alice.master_key();
    of_bob["user_id"] = json!("@bob:test");

    let without_master = with(&|m| m.master_key = None).await;
    assert!(matches!(refusal(without_master), Refusal::MissingParam(_)));
    for key in [by_other, raw(&forged)] {
        let wrong = with(&|m| m.self_signing_key = Some(key.clone())).await;
        assert!(matches!(refusal(wrong), Refusal::InvalidSignature(_)));
    }
    for key in [
        two,
        misnamed,
        short,
        of_bob,
        signing_key(alice.user(), "self_signing", &alice.master),
    ] {
        let wrong = with(&|m| m.master_key = Some(raw(&key))).await;
        assert!(matches!(refusal(wrong), Refusal::InvalidParam(_)), "{key}");
    }
    let wrong = with(&|m| m.master_key = Some(raw(&json!("key")))).await;
    assert!(matches!(refusal(wrong), Refusal::BadJson(_)));
    stage.device("@alice:test", &alice.master.public).await;
    assert!(matches!(
        refusal(with(&|_| {}).await),
        Refusal::Forbidden(_)
    ));
    let seen = stage.query(&alice.who, &["@alice:test"]).await;
    assert!(seen.master_keys.is_empty() && seen.self_signing_keys.is_empty());
}

/// Clause: cs.signing.visible
#[actix::test]
async fn signatures_are_seen_by_the_owner_and_the_signer() {
    let stage = stage().await;
    let alice = Person::new(&stage, "@alice:test", "LAPTOP").await;
    let bob = Person::new(&stage, "@bob:test", "PHONE").await;
    let carol = stage.device("@carol:test", "TABLET").await;
    alice.bootstrap(&stage).await;
    bob.bootstrap(&stage).await;
    let log = stage.logged().await.len();

    let device = signed(
        alice.device_keys.clone(),
        alice.user(),
        &[&alice.self_signing],
    );
    let own_master = signed(alice.master_key(), alice.user(), &[&alice.device]);
    let bobs_master = signed(bob.master_key(), alice.user(), &[&alice.user_signing]);
    let message = alice.signatures(&[
        (alice.user(), "LAPTOP", device),
        (alice.user(), &alice.master.public, own_master),
        (bob.user(), &bob.master.public, bobs_master),
    ]);
    for _ in 0..2 {
        let failures = stage.ask(message.clone()).await.expect("an answer");
        assert!(failures.is_empty(), "{failures:?}");
    }
    // The repeated upload appends no line to the device-list log. The first upload appended one line for the owner alone, and one
    // for the users who share a room with the owner.
    assert_eq!(
        stage.logged_since(log).await,
        [
            (schema::device_log::Kind::Private, "@alice:test".to_owned()),
            (schema::device_log::Kind::Keys, "@alice:test".to_owned())
        ]
    );

    let laptop = alice.who.needs_device().expect("a device");
    for (reader, sees) in [(&alice.who, true), (&bob.who, false), (&carol, false)] {
        let seen = stage.query(reader, &["@alice:test", "@bob:test"]).await;
        assert_eq!(
            signers(&seen.device_keys[alice.user()][laptop]).len(),
            2,
            "the device's own and the self-signing key's"
        );
        assert_eq!(
            signers(&seen.master_keys[alice.user()]),
            ["@alice:test ed25519:LAPTOP"]
        );
        let over_bob = signers(&seen.master_keys[bob.user()]);
        let expected = if sees {
            vec![by(&alice, &alice.user_signing)]
        } else {
            vec![]
        };
        assert_eq!(over_bob, expected);
        // A query for one user takes another path in the code; the result is the same.
        let alone = stage.query(reader, &["@bob:test"]).await;
        assert_eq!(signers(&alone.master_keys[bob.user()]), expected);
    }
}

/// Clause: cs.signing.verified, cs.signing.same-key
#[actix::test]
async fn only_what_verifies_is_kept() {
    let stage = stage().await;
    let alice = Person::new(&stage, "@alice:test", "LAPTOP").await;
    let bob = Person::new(&stage, "@bob:test", "PHONE").await;
    alice.bootstrap(&stage).await;
    bob.bootstrap(&stage).await;
    let log = stage.logged().await;

    let by_wrong_key = signed(
        alice.device_keys.clone(),
        alice.user(),
        &[&alice.user_signing],
    );
    let mut forged = signed(
        alice.device_keys.clone(),
        alice.user(),
        &[&alice.self_signing],
    );
    forged["signatures"]["@alice:test"][format!("ed25519:{}", alice.self_signing.public)] =
        forged["signatures"]["@alice:test"]["ed25519:LAPTOP"].clone();
    let mut another = alice.device_keys.clone();
    another["algorithms"] = json!([]);
    let another = signed(another, alice.user(), &[&alice.self_signing]);
    let cases = [
        (alice.user(), "LAPTOP", by_wrong_key, "signature"),
        (alice.user(), "LAPTOP", forged, "signature"),
        (alice.user(), "LAPTOP", another, "signature"),
        (alice.user(), "LAPTOP", json!([]), "json"),
        (alice.user(), "NONE", alice.device_keys.clone(), "found"),
        (
            alice.user(),
            &alice.master.public,
            alice.master_key(),
            "signature",
        ),
        // Only the master key of another user is signed, not a device, and only by the user-signing key.
        (
            bob.user(),
            "PHONE",
            signed(
                bob.device_keys.clone(),
                alice.user(),
                &[&alice.user_signing],
            ),
            "found",
        ),
        (
            bob.user(),
            &bob.master.public,
            signed(bob.master_key(), alice.user(), &[&alice.self_signing]),
            "signature",
        ),
    ];
    for (user, key, object, expected) in cases {
        let message = alice.signatures(&[(user, key, object.clone())]);
        let failures = stage.ask(message).await.expect("an answer");
        let why = match &failures[user][key] {
            Refusal::InvalidSignature(_) => "signature",
            Refusal::BadJson(_) => "json",
            Refusal::NotFound(_) => "found",
            other => panic!("{other:?}"),
        };
        assert_eq!(why, expected, "{key}: {object}");
    }
    assert_eq!(stage.logged().await, log);
}

#[actix::test]
async fn a_new_master_key_drops_what_the_old_ones_signed() {
    let stage = stage().await;
    let mut alice = Person::new(&stage, "@alice:test", "LAPTOP").await;
    let bob = Person::new(&stage, "@bob:test", "PHONE").await;
    alice.bootstrap(&stage).await;
    bob.bootstrap(&stage).await;
    let message = alice.signatures(&[
        (
            alice.user(),
            "LAPTOP",
            signed(
                alice.device_keys.clone(),
                alice.user(),
                &[&alice.self_signing],
            ),
        ),
        (
            alice.user(),
            &alice.master.public,
            signed(alice.master_key(), alice.user(), &[&alice.device]),
        ),
        (
            bob.user(),
            &bob.master.public,
            signed(bob.master_key(), alice.user(), &[&alice.user_signing]),
        ),
    ]);
    assert!(stage.ask(message).await.expect("an answer").is_empty());
    let over_alice = signed(alice.master_key(), bob.user(), &[&bob.user_signing]);
    let message = bob.signatures(&[(alice.user(), &alice.master.public, over_alice)]);
    assert!(stage.ask(message).await.expect("an answer").is_empty());

    // The user-signing key is not replaced; the new master key has not signed it, so it is deleted.
    alice.master = pair(None);
    alice.self_signing = pair(None);
    let mut message = alice.signing();
    message.confirmed = true;
    message.user_signing_key = None;
    assert_eq!(
        stage.ask(message).await.expect("an answer"),
        SigningUploaded::Done
    );

    let seen = stage.query(&alice.who, &["@alice:test", "@bob:test"]).await;
    let laptop = alice.who.needs_device().expect("a device");
    assert_eq!(
        signers(&seen.device_keys[alice.user()][laptop]),
        ["@alice:test ed25519:LAPTOP"]
    );
    assert!(signers(&seen.master_keys[alice.user()]).is_empty());
    assert!(signers(&seen.master_keys[bob.user()]).is_empty());
    assert!(seen.user_signing_keys.is_empty());
    let seen = stage.query(&bob.who, &["@alice:test"]).await;
    assert!(signers(&seen.master_keys[alice.user()]).is_empty());
}
