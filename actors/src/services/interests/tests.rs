//! Tests of the claims, and a comparison with an implementation that tries each pattern of each appservice.

use super::memory::Size;
use super::*;

fn registration(id: &str, sender: &str, users: &[(bool, &str)]) -> (Registration, bool) {
    let users: Vec<_> = users
        .iter()
        .map(|(exclusive, regex)| serde_json::json!({"exclusive": exclusive, "regex": regex}))
        .collect();
    let value = serde_json::json!({"id": id, "url": "http://localhost:1", "as_token": id, "hs_token": id,
        "sender_localpart": sender, "namespaces": {"users": users}, "org.matrix.msc3202": true});
    (
        serde_json::from_value(value).expect("a registration"),
        false,
    )
}

fn compiled() -> Interests {
    let all = vec![
        registration(
            "irc",
            "ircbot",
            &[(true, "@irc_.*"), (false, "@irc_open.*")],
        ),
        registration("mirror", "mirror", &[(false, "@.*")]),
    ];
    Interests::compile(
        "test",
        all,
        &Proposals {
            to_device: true,
            device_lists: true,
            ..Proposals::default()
        },
    )
    .expect("patterns compile")
}

/// Clause: as.registration.sender, as.registration.regex, as.registration.local-users
#[test]
fn claims() {
    let interests = compiled();
    let claims = |user: &str| -> Vec<(String, NamespaceClaim)> {
        interests
            .in_user(user)
            .into_iter()
            .map(|(s, c)| (s.id.to_string(), c))
            .collect()
    };
    let cases: &[(&str, &[(&str, NamespaceClaim)])] = &[
        (
            "@irc_bob:test",
            &[
                ("irc", NamespaceClaim::Exclusive),
                ("mirror", NamespaceClaim::Shared),
            ],
        ),
        // The first matching pattern decides.
        (
            "@irc_open_1:test",
            &[
                ("irc", NamespaceClaim::Exclusive),
                ("mirror", NamespaceClaim::Shared),
            ],
        ),
        (
            "@ircbot:test",
            &[
                ("irc", NamespaceClaim::Sender),
                ("mirror", NamespaceClaim::Shared),
            ],
        ),
        ("@mirror:test", &[("mirror", NamespaceClaim::Sender)]),
        ("@alice:test", &[("mirror", NamespaceClaim::Shared)]),
        // Patterns are anchored at the start, and only users of this server are claimed.
        ("@x@irc_bob:test", &[("mirror", NamespaceClaim::Shared)]),
        ("@irc_bob:elsewhere", &[]),
    ];
    for (user, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, claim)| ((*id).to_owned(), *claim))
            .collect();
        assert_eq!(claims(user), expected, "{user}");
    }
}

#[test]
fn a_pattern_is_checked_as_it_is_compiled() {
    assert!(check_pattern("@irc_.*").is_ok());
    assert!(check_pattern("@irc_(").is_err());
}

#[test]
fn url_must_be_present_but_may_be_null() {
    let without = serde_json::json!({"id": "a", "as_token": "a", "hs_token": "a", "sender_localpart": "a", "namespaces": {}});
    assert!(serde_json::from_value::<Registration>(without.clone()).is_err());
    let mut null = without;
    null["url"] = serde_json::Value::Null;
    assert!(serde_json::from_value::<Registration>(null).is_ok_and(|r| r.url.is_none()));
}

/// A random number generator with a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// Appservices with up to three patterns each. Some patterns match no user, some every user, some the same users as another's.
fn some_services(random: &mut Random) -> Vec<(Registration, bool)> {
    let patterns = [
        "@irc_.*",
        "@irc_[0-4]+:test",
        "@i",
        "@.*",
        "@.*:test$",
        "^@irc_1",
        "irc_",
        "@(irc|xmpp)_.*:test",
        "@xmpp_\\d{2}",
        "@none:elsewhere",
        "@(?i:IRC)_5",
        "@bot1:test",
    ];
    let one = |(n, random): (usize, &mut Random)| {
        let users: Vec<_> = (0..random.below(4))
            .map(|_| (random.below(2) == 0, random.of(&patterns)))
            .collect();
        registration(&format!("s{n}"), &format!("bot{}", random.below(4)), &users)
    };
    (0..random.below(8) + 1).map(|n| one((n, random))).collect()
}

/// A simple implementation that tries each pattern by itself.
struct Reference(Vec<(Registration, Vec<(regex::Regex, NamespaceClaim)>)>);

impl Reference {
    fn of(all: &[(Registration, bool)]) -> Reference {
        let compiled = |n: &Namespace| {
            let claim = if n.exclusive {
                NamespaceClaim::Exclusive
            } else {
                NamespaceClaim::Shared
            };
            (regex::Regex::new(&n.regex).expect("a pattern"), claim)
        };
        let each = all
            .iter()
            .map(|(r, _)| (r.clone(), r.namespaces.users.iter().map(compiled).collect()));
        Reference(each.collect())
    }

    fn claims(&self, user: &str) -> Vec<(String, NamespaceClaim)> {
        if !user.ends_with(":test") {
            return Vec::new();
        }
        // The match must begin at the start of the id.
        let fits =
            |pattern: &regex::Regex| pattern.find(user).is_some_and(|found| found.start() == 0);
        let claim = |(r, patterns): &(Registration, Vec<(regex::Regex, NamespaceClaim)>)| {
            let sender = user == format!("@{}:test", r.sender_localpart);
            let first = patterns.iter().find(|(pattern, _)| fits(pattern));
            let claim = if sender {
                Some(NamespaceClaim::Sender)
            } else {
                first.map(|(_, claim)| *claim)
            };
            claim.map(|claim| (r.id.to_string(), claim))
        };
        self.0.iter().filter_map(claim).collect()
    }
}

#[test]
fn cached_claims_are_those_of_the_patterns() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let all = some_services(&mut random);
        let reference = Reference::of(&all);
        let mut interests =
            Interests::compile("test", all.clone(), &Proposals::default()).expect("patterns");
        // Often too small for all users, so that entries are cached, dropped and computed again.
        let entries = [0, 64, 1_024][random.below(3)];
        interests.claims = ClaimCache::of(Size {
            entries,
            bytes: 16 << 10,
        });
        for _ in 0..600 {
            let user = match random.below(4) {
                0 => format!("@bot{}:test", random.below(5)),
                1 => format!(
                    "@{}{}:elsewhere",
                    random.of(&["irc_", "xmpp_", ""]),
                    random.below(60)
                ),
                _ => format!(
                    "@{}{}:test",
                    random.of(&["irc_", "xmpp_", "IRC_", "i"]),
                    random.below(60)
                ),
            };
            let expected = reference.claims(&user);
            let found = interests.in_user(&user).into_iter();
            let found: Vec<_> = found.map(|(s, c)| (s.id.to_string(), c)).collect();
            assert_eq!(found, expected, "seed {seed}: {user}");
            for (r, _) in &all {
                let one = expected.iter().find(|(id, _)| id == r.id.as_str());
                assert_eq!(
                    interests.claim(&r.id, &user),
                    one.map(|(_, c)| *c),
                    "seed {seed}: {user}"
                );
            }
            let owner = expected.iter().find(|(_, c)| c.is_exclusive());
            let found = interests.exclusive_owner(&user).map(|s| s.id.to_string());
            assert_eq!(
                found.as_ref(),
                owner.map(|(id, _)| id),
                "seed {seed}: {user}"
            );
        }
    }
}

#[test]
fn a_cache_stays_within_its_bounds_and_drops_unread_entries_first() {
    let bound = Size {
        entries: 320,
        bytes: 64 << 10,
    };
    let memory = ClaimCache::of(bound);
    let answer = |n: u32| -> FoundClaims { [(n, NamespaceClaim::Shared)].into() };
    let mut asked_again = 0;
    for n in 0..10_000 {
        memory.recall(&format!("@u{n}:test"), || answer(n));
        let often = memory.recall("@often:test", || {
            asked_again += 1;
            answer(77)
        });
        assert_eq!(often[0].0, 77);
        let size = memory.size();
        assert!(
            size.entries <= bound.entries && size.bytes <= bound.bytes,
            "{size:?}"
        );
    }
    assert!(
        memory.size().entries > bound.entries / 3,
        "and is used: {:?}",
        memory.size()
    );
    assert_eq!(asked_again, 1, "an entry that is read stays");
}

#[test]
fn an_answer_larger_than_the_memory_is_given_and_not_kept() {
    let memory = ClaimCache::of(Size {
        entries: 3_200,
        bytes: 64 << 10,
    });
    let everybody: FoundClaims = (0..1_000).map(|n| (n, NamespaceClaim::Shared)).collect();
    let mut found_out = 0;
    for _ in 0..3 {
        let answer = memory.recall("@alice:test", || {
            found_out += 1;
            Arc::clone(&everybody)
        });
        assert_eq!(answer.len(), 1_000);
    }
    assert_eq!(
        (found_out, memory.size()),
        (
            3,
            Size {
                entries: 0,
                bytes: 0
            }
        )
    );
}

#[test]
fn concurrent_threads_get_the_same_answer() {
    let interests = compiled();
    let expected: Vec<_> = (0..500).map(|n| n % 3 == 0).collect();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for (n, own) in (0..).zip(&expected) {
                    let user = format!("@{}{n}:test", if *own { "irc_" } else { "p" });
                    let claim = interests.claim(&"irc".into(), &user);
                    assert_eq!(claim.is_some(), *own, "{user}");
                }
            });
        }
    });
}

#[test]
fn a_service_is_found_by_its_id_and_by_its_token() {
    let all = (0..1_000).map(|n| registration(&format!("s{n}"), &format!("bot{n}"), &[]));
    let interests =
        Interests::compile("test", all.collect(), &Proposals::default()).expect("patterns");
    for id in ["s0", "s500", "s999"] {
        assert_eq!(
            interests.service(&id.into()).expect("by id").id.as_str(),
            id
        );
        // The token of these registrations is their id.
        assert_eq!(interests.by_token(id).expect("by token").id.as_str(), id);
    }
    for unknown in ["", "s", "s1000", "S0", "s0 "] {
        assert!(interests.service(&unknown.into()).is_none(), "{unknown}");
        assert!(interests.by_token(unknown).is_none(), "{unknown}");
    }
    assert!(Interests::default().by_token("s0").is_none());
}
