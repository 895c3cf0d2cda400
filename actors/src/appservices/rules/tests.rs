//! A table of folders: the stored registrations, the files, and the resulting plan.

use super::*;

/// `ID [VERSION] [as_token=T] [sender=S]` as a registration; the version is its `hs_token`.
fn good(text: &str) -> Registration {
    let mut words = text.split(' ');
    let id = words.next().expect("an id");
    let (mut version, mut token, mut sender) = ("1", id.to_owned(), format!("{id}bot"));
    for word in words {
        match word.split_once('=') {
            Some(("as_token", is)) => token = is.to_owned(),
            Some(("sender", is)) => sender = is.to_owned(),
            _ => version = word,
        }
    }
    let yaml = format!(
        "id: {id}\nurl: null\nas_token: {token}\nhs_token: {version}\nsender_localpart: {sender}\nnamespaces: {{}}\n"
    );
    parse(&yaml).expect("a registration")
}

fn row(text: &str, file: &str, present: bool) -> ServiceRow {
    let registration = good(text);
    let last = crate::services::LastInForce::default();
    ServiceRow {
        appservice_id: registration.id.to_string(),
        registration: serde_json::to_string(&registration).expect("JSON"),
        file: file.to_owned(),
        present,
        last_txn: 0,
        in_force: serde_json::to_string(&last).expect("JSON"),
        acknowledged: 0,
    }
}

fn nothing_on(_: &Registration) -> FeaturesInForce {
    FeaturesInForce::default()
}

/// `FILE: REGISTRATION`, `FILE: broken` or `FILE: broken ID`.
fn file(line: &str) -> File {
    let (name, text) = line.split_once(": ").expect("a file");
    let read = match text.strip_prefix("broken") {
        Some(id) => Err(Broken {
            why: "it is broken".to_owned(),
            id: Some(id.trim().into()).filter(|_| !id.is_empty()),
        }),
        None => Ok(good(text)),
    };
    (name.to_owned(), read)
}

/// The plan for what was in force (`FILE: REGISTRATION`, `gone FILE: REGISTRATION`, `stranger FILE`) and the present files.
fn planned(before: &[&str], now: &[&str]) -> Plan {
    let mut known = StoredRegistrations::default();
    for line in before {
        if let Some(name) = line.strip_prefix("stranger ") {
            known.unidentified.insert(name.to_owned());
            continue;
        }
        let (present, line) = match line.strip_prefix("gone ") {
            Some(line) => (false, line),
            None => (true, *line),
        };
        let (name, text) = line.split_once(": ").expect("a file");
        known.rows.push(row(text, name, present));
    }
    plan(
        now.iter().map(|line| file(line)).collect(),
        &known,
        &nothing_on,
    )
}

/// A description, what was in force, the present files, and the plan as text.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

/// The plan as text.
fn describe(plan: &Plan) -> String {
    let mut words = Vec::new();
    for (id, held) in &plan.in_force {
        let Registration { hs_token, .. } = &held.registration;
        let mut is = format!("{id} {hs_token} {}", held.file);
        if plan.changed.contains(id) {
            is += " changed";
        }
        if plan.moved.contains(id) {
            is += " moved";
        }
        words.push(is);
    }
    words.extend(plan.gone.iter().map(|id| format!("{id} gone")));
    for problem in &plan.problems {
        words.push(format!("! {}: {}", problem.file, problem.instead));
    }
    words.join("\n")
}

/// Clause: as.registration.unique-id
#[test]
fn a_service_is_identified_by_its_id_and_a_broken_file_withdraws_nothing() {
    const STAYS: &str = "the last good version of \"irc\" stays in force";
    const NOTHING: &str = "nothing is in force from it";
    let cases: &[Case<'_>] = &[
        (
            "a new one",
            &[],
            &["a.yaml: irc"],
            &["irc 1 a.yaml changed"],
        ),
        (
            "nothing happened",
            &["a.yaml: irc"],
            &["a.yaml: irc"],
            &["irc 1 a.yaml"],
        ),
        (
            "an edit",
            &["a.yaml: irc"],
            &["a.yaml: irc 2"],
            &["irc 2 a.yaml changed"],
        ),
        ("it goes", &["a.yaml: irc"], &[], &["irc gone"]),
        (
            "it comes back",
            &["gone a.yaml: irc"],
            &["a.yaml: irc"],
            &["irc 1 a.yaml changed"],
        ),
        (
            "a rename is nothing",
            &["a.yaml: irc"],
            &["z.yaml: irc"],
            &["irc 1 z.yaml moved"],
        ),
        (
            "a rename and an edit",
            &["a.yaml: irc"],
            &["z.yaml: irc 2"],
            &["irc 2 z.yaml changed"],
        ),
        (
            "broken where it stood",
            &["a.yaml: irc"],
            &["a.yaml: broken"],
            &["irc 1 a.yaml", &format!("! a.yaml: {STAYS}")],
        ),
        (
            "broken after a rename that was seen",
            &["z.yaml: irc"],
            &["z.yaml: broken irc"],
            &["irc 1 z.yaml", &format!("! z.yaml: {STAYS}")],
        ),
        (
            "renamed and broken at once, the id can be read",
            &["a.yaml: irc", "b.yaml: tg"],
            &["z.yaml: broken irc"],
            &[
                "irc 1 z.yaml moved",
                "tg gone",
                &format!("! z.yaml: {STAYS}"),
            ],
        ),
        (
            "renamed and broken at once, nothing can be read",
            &["a.yaml: irc"],
            &["z.yaml: broken"],
            &["irc 1 z.yaml moved", &format!("! z.yaml: {STAYS}")],
        ),
        (
            "a broken file that was there before explains nothing",
            &["a.yaml: irc", "stranger z.yaml"],
            &["z.yaml: broken"],
            &["irc gone", &format!("! z.yaml: {NOTHING}")],
        ),
        (
            "nor does one that names another service",
            &["a.yaml: irc"],
            &["z.yaml: broken tg"],
            &["irc gone", &format!("! z.yaml: {NOTHING}")],
        ),
        (
            "a broken file of a service never seen",
            &["a.yaml: irc"],
            &["a.yaml: irc", "b.yaml: broken"],
            &["irc 1 a.yaml", &format!("! b.yaml: {NOTHING}")],
        ),
        (
            "a broken file at the old name, a good one elsewhere",
            &["a.yaml: irc"],
            &["a.yaml: broken", "z.yaml: irc 2"],
            &[
                "irc 2 z.yaml changed",
                "! a.yaml: \"irc\" is in force from z.yaml",
            ],
        ),
        (
            "a broken copy beside it",
            &["z.yaml: irc"],
            &["a.yaml: broken irc", "z.yaml: irc 2"],
            &[
                "irc 2 z.yaml changed",
                "! a.yaml: \"irc\" is in force from z.yaml",
            ],
        ),
        (
            "two broken ones: the file that it came from keeps it",
            &["z.yaml: irc"],
            &["a.yaml: broken irc", "z.yaml: broken"],
            &[
                "irc 1 z.yaml",
                "! a.yaml: \"irc\" is in force from z.yaml",
                &format!("! z.yaml: {STAYS}"),
            ],
        ),
        (
            "two good ones: the file that it came from decides",
            &["z.yaml: irc"],
            &["a.yaml: irc 2", "z.yaml: irc 3"],
            &["irc 3 z.yaml changed", "! a.yaml: that one is in force"],
        ),
        (
            "two good ones that are new: the first decides",
            &[],
            &["a.yaml: irc 2", "z.yaml: irc 3"],
            &["irc 2 a.yaml changed", "! z.yaml: that one is in force"],
        ),
        (
            "a broken file that names another service than it carried keeps both",
            &["a.yaml: irc", "b.yaml: tg"],
            &["a.yaml: broken tg"],
            &[
                "irc 1 a.yaml",
                "tg 1 a.yaml moved",
                "! a.yaml: the last good version of \"irc\", \"tg\" stays in force",
            ],
        ),
        (
            "a file that carries another service now",
            &["a.yaml: irc"],
            &["a.yaml: tg"],
            &["tg 1 a.yaml changed", "irc gone"],
        ),
        (
            "a service that was gone comes back broken: it stays gone",
            &["gone a.yaml: irc"],
            &["a.yaml: broken irc"],
            &[&format!("! a.yaml: {NOTHING}")],
        ),
    ];
    for (what, before, now, expected) in cases {
        assert_eq!(
            describe(&planned(before, now)),
            expected.join("\n"),
            "{what}"
        );
    }
}

/// Clause: as.registration.unique-token
#[test]
fn what_is_in_force_keeps_its_token_and_its_sender() {
    let nothing = "nothing is in force from it";
    let cases: &[Case<'_>] = &[
        (
            "a new file with the token of another, first by name",
            &["z.yaml: irc"],
            &["a.yaml: thief as_token=irc", "z.yaml: irc"],
            &["irc 1 z.yaml", &format!("! a.yaml: {nothing}")],
        ),
        (
            "an edit that takes the token of another",
            &["a.yaml: tg", "z.yaml: irc"],
            &["a.yaml: tg 2 as_token=irc", "z.yaml: irc"],
            &[
                "irc 1 z.yaml",
                "tg 1 a.yaml",
                "! a.yaml: the last good version of \"tg\" stays in force",
            ],
        ),
        (
            "the token of one whose file is broken",
            &["a.yaml: tg", "z.yaml: irc"],
            &["a.yaml: tg 2 as_token=irc", "z.yaml: broken"],
            &[
                "irc 1 z.yaml",
                "tg 1 a.yaml",
                "! a.yaml: the last good version of \"tg\" stays in force",
                "! z.yaml: the last good version of \"irc\" stays in force",
            ],
        ),
        (
            "the token of one that goes",
            &["a.yaml: tg", "z.yaml: irc"],
            &["a.yaml: tg 2 as_token=irc"],
            &["tg 2 a.yaml changed", "irc gone"],
        ),
        (
            "tokens that are exchanged",
            &["a.yaml: tg", "z.yaml: irc"],
            &["a.yaml: tg as_token=irc", "z.yaml: irc as_token=tg"],
            &["irc 1 z.yaml changed", "tg 1 a.yaml changed"],
        ),
        (
            "a chain: tg cannot have irc's token, so a third cannot have tg's",
            &["b.yaml: tg", "z.yaml: irc"],
            &[
                "a.yaml: new as_token=tg",
                "b.yaml: tg as_token=irc",
                "z.yaml: irc",
            ],
            &[
                "irc 1 z.yaml",
                "tg 1 b.yaml",
                &format!("! a.yaml: {nothing}"),
                "! b.yaml: the last good version of \"tg\" stays in force",
            ],
        ),
        (
            "two new ones with one token: the first by name",
            &[],
            &["a.yaml: tg as_token=x", "z.yaml: irc as_token=x"],
            &["tg 1 a.yaml changed", &format!("! z.yaml: {nothing}")],
        ),
        (
            "a new one with the sender of another",
            &["z.yaml: irc"],
            &["a.yaml: tg sender=ircbot", "z.yaml: irc"],
            &["irc 1 z.yaml", &format!("! a.yaml: {nothing}")],
        ),
        (
            "two that have had one sender since before that was looked at",
            &["a.yaml: tg sender=bot", "z.yaml: irc sender=bot"],
            &["a.yaml: tg sender=bot", "z.yaml: irc 2 sender=bot"],
            &["irc 2 z.yaml changed", "tg 1 a.yaml"],
        ),
    ];
    for (what, before, now, expected) in cases {
        assert_eq!(
            describe(&planned(before, now)),
            expected.join("\n"),
            "{what}"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_read_withdraws_nothing() {
    let known = StoredRegistrations {
        rows: vec![row("irc", "a.yaml", true), row("old", "b.yaml", false)],
        unidentified: ["z.yaml".to_owned()].into(),
    };
    let plan = without_folder("folder".to_owned(), "gone".to_owned(), &known, &nothing_on);
    assert_eq!(
        describe(&plan),
        "irc 1 a.yaml\n! folder: what was in force stays in force: \"irc\""
    );
    assert_eq!(plan.unidentified, known.unidentified);
}

#[test]
fn enabling_or_disabling_a_feature_is_a_change_of_the_registration() {
    let registration = good("irc");
    let all = FeaturesInForce {
        to_device: true,
        device_lists: true,
        account_data: true,
        observes: true,
        ..FeaturesInForce::default()
    };
    type Change = fn(&mut FeaturesInForce);
    // The feature that was different before; and whether the change is one of the registration, needs a back-fill, and means
    // that device lists were missed.
    let cases: &[(&str, Change, (bool, bool, bool))] = &[
        ("nothing", |_| {}, (false, false, false)),
        ("to-device", |b| b.to_device = false, (true, true, false)),
        (
            "device lists",
            |b| b.device_lists = false,
            (true, true, true),
        ),
        (
            "account data",
            |b| b.account_data = false,
            (true, true, false),
        ),
        ("observe", |b| b.observes = false, (true, false, false)),
        (
            "counts",
            |b| b.counts = crate::services::CountsPolicy::Always,
            (true, false, false),
        ),
    ];
    let planned = |before: Option<FeaturesInForce>, now: FeaturesInForce| {
        let last = before.map(|in_force| crate::services::LastInForce {
            in_force,
            account_data_until: None,
        });
        let in_force = last.map_or_else(String::new, |last| {
            serde_json::to_string(&last).expect("JSON")
        });
        let known = StoredRegistrations {
            rows: vec![ServiceRow {
                in_force,
                ..row("irc", "a.yaml", true)
            }],
            ..StoredRegistrations::default()
        };
        let files = vec![("a.yaml".to_owned(), Ok(registration.clone()))];
        let plan = plan(files, &known, &|_| now.clone());
        let of = |ids: &BTreeSet<ServiceId>| !ids.is_empty();
        (of(&plan.changed), of(&plan.recounted), of(&plan.away))
    };
    for (what, change, expected) in cases {
        let mut before = all.clone();
        change(&mut before);
        assert_eq!(
            planned(Some(before.clone()), all.clone()),
            *expected,
            "{what} is on now"
        );
        let (changed, _, _) = *expected;
        let off = planned(Some(all.clone()), before);
        assert_eq!(off, (changed, false, false), "{what} is off now");
    }
    let unknown = planned(None, all);
    assert_eq!(unknown, (true, true, true), "written by an older version");
}

#[test]
fn members_are_counted_again_only_if_the_users_may_be_different() {
    let before = good("a");
    let change = |change: fn(&mut Registration)| {
        let mut after = before.clone();
        change(&mut after);
        let known = StoredRegistrations {
            rows: vec![row("a", "a.yaml", true)],
            ..StoredRegistrations::default()
        };
        let plan = plan(vec![("a.yaml".to_owned(), Ok(after))], &known, &nothing_on);
        (plan.changed.len(), plan.recounted.len())
    };
    assert_eq!(change(|_| {}), (0, 0));
    assert_eq!(change(|r| r.hs_token = "i".to_owned()), (1, 0));
    assert_eq!(change(|r| r.sender_localpart = "bot".to_owned()), (1, 1));
    assert_eq!(change(|r| r.url = Some("http://a".to_owned())), (1, 1));
    assert_eq!(change(|r| r.receive_ephemeral = true), (1, 1));
    let users = |r: &mut Registration| {
        r.namespaces.users = vec![Namespace {
            exclusive: true,
            regex: "@a.*".to_owned(),
        }];
    };
    assert_eq!(change(users), (1, 1));
}

#[test]
fn a_grant_to_an_unregistered_service_is_reported() {
    let interests = Interests::compile("test", vec![(good("irc"), true)], &Default::default());
    let interests = interests.expect("patterns");
    let observe = ["irc".into(), "ircc".into()];
    assert_eq!(unknown_observers(Some(&observe), &interests), [&observe[1]]);
    assert!(unknown_observers(None, &interests).is_empty());
}
