//! After any sequence of registrations, memberships, pages and crashes: the appservice is owed each message once that waits for a
//! device over which it decides, its joined members are counted correctly in each room, and it tracks the users who share a room
//! with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::accounts::UserRow;
use schema::inbox::InboxRow;
use schema::owed::Owed;
use schema::sessions::{self, DeviceCreator};
use schema::{Store, StoreOptions, memberships, service_rooms};

use super::super::change::{self, Change};
use super::super::rules::parse;
use super::super::{known, rules};
use super::*;
use crate::Settings;
use crate::device_lists::pass::tests::{drain, move_to};
use crate::services::{CarriesInterests, FeaturesInForce, Proposals, Registration};
use crate::to_device_inbox;

mod examples;

const USERS: [&str; 5] = [
    "@irc_a:test",
    "@irc_b:test",
    "@ircbot:test",
    "@alice:test",
    "@bob:test",
];
const ROOMS: [&str; 4] = ["!a:test", "!b:test", "!c:test", "!d:test"];
const MEMBERSHIPS: [&str; 4] = ["join", "join", "leave", "invite"];

/// The namespaces that the file of the appservice has at different times.
const NAMESPACES: [&str; 4] = [
    "{users: [{exclusive: true, regex: '@irc_.*'}]}",
    "{users: [{exclusive: true, regex: '@irc_a.*'}, {exclusive: false, regex: '@irc_.*'}]}",
    "{users: [{exclusive: true, regex: '@(alice|irc_b).*'}]}",
    "{}",
];

fn irc() -> ServiceId {
    ServiceId::from("irc")
}

fn all_on() -> Proposals {
    Proposals {
        to_device: true,
        device_lists: true,
        ..Proposals::default()
    }
}

fn settings(proposals: Proposals) -> Settings {
    Settings {
        server_name: "test".try_into().expect("a server name"),
        observe: Some(Vec::new()),
        proposals,
        open_registration: true,
        presence: false,
        password_cost: (8, 1),
        default_room_version: "11".to_owned(),
    }
}

struct TestServer {
    folder: tempfile::TempDir,
    store: Store,
    /// The text of the file; `None` if there is no file.
    file: Option<String>,
    /// The proposals that this start has enabled.
    on: Proposals,
}

impl TestServer {
    fn open() -> TestServer {
        let folder = tempfile::tempdir().expect("a folder");
        let store = TestServer::store(&folder);
        TestServer {
            folder,
            store,
            file: None,
            on: all_on(),
        }
    }

    fn store(folder: &tempfile::TempDir) -> Store {
        let url = format!("sqlite:{}", folder.path().join("db").display());
        Store::open(&url, &StoreOptions::default()).expect("the store opens")
    }

    /// Kill the process and start another one.
    async fn crash(&mut self) {
        self.store.close();
        self.store = TestServer::store(&self.folder);
        self.read_folder(async |_| true).await;
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> T {
        self.store.write_always(write).await.expect("a write")
    }

    /// Read the folder of registrations as the actor does after a change. `meanwhile` runs after the joined members of the
    /// appservice are counted. If `meanwhile` returns `false`, the registration does not come into force, as if the process had
    /// died or the write had failed.
    async fn read_folder(&self, meanwhile: impl AsyncFnOnce(&TestServer) -> bool) {
        let known = self.store.read(known).await.expect("rows");
        let file = self.file.iter();
        let file = file.map(|text| ("irc.yaml".to_owned(), parse::read(text)));
        let settings = settings(self.on.clone());
        let switched_on = |r: &Registration| FeaturesInForce::of(r, false, &self.on);
        let plan = rules::plan(file.collect(), &known, &switched_on);
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        let registrations = plan.in_force.values().map(|held| &held.registration);
        let interests = change::compile(registrations, &settings).expect("patterns");
        let interests = Arc::new(interests);
        let counted = change::count(&self.store, &interests, &plan.recounted);
        let counted = counted.await.expect("counted");
        if !meanwhile(self).await {
            return;
        }
        let change = Change {
            plan: Arc::new(plan),
            compiled: Some((interests, counted)),
            settings,
            now: 0,
        };
        let apply = move |tx: &mut Tx<'_>| change::apply(tx, &change);
        self.store.write_alone(apply).await.expect("in force");
    }

    async fn set_namespaces(&mut self, namespaces: &str) {
        self.file = Some(format!(
            "id: irc\nurl: http://localhost:1\nas_token: a\nhs_token: h\nsender_localpart: ircbot\n\
             namespaces: {namespaces}\norg.matrix.msc3202: true\n"
        ));
    }

    /// Puts a registration with these namespaces into force, and runs the whole back-fill.
    async fn register(&mut self, namespaces: &str) {
        self.set_namespaces(namespaces).await;
        self.read_folder(async |_| true).await;
        self.pages().await;
    }

    async fn pages(&self) {
        while self.write(|tx| page(tx, &irc())).await {}
    }
}

fn message(tx: &mut Tx<'_>, user: &str) -> InboxRow {
    InboxRow {
        position: tx.next_position().0,
        user_id: user.to_owned(),
        device_id: "D".to_owned(),
        sender: "@alice:test".to_owned(),
        kind: "m.example".to_owned(),
        content: "{}".to_owned(),
        ..InboxRow::default()
    }
}

/// Deposit a message that no appservice is owed.
fn deposit(tx: &mut Tx<'_>, user: &str) -> Result<()> {
    let row = message(tx, user);
    inbox::append(tx, vec![row]);
    Ok(())
}

/// Store a to-device message as the inbox actor does, with the rows that owe it to the appservices that get a copy.
fn arrives(tx: &mut Tx<'_>, user: &str) -> Result<()> {
    let (row, interests) = (message(tx, user), tx.interests());
    let to = accounts::device(tx, user, "D")?.expect("a device");
    let copies = to_device_inbox::rules::copies(&to, &interests);
    let row = InboxRow {
        decided_by: to_device_inbox::rules::decided_by(&copies),
        ..row
    };
    let at = Position(row.position);
    inbox::append(tx, vec![row]);
    for (service, interest) in copies {
        let service = interests.service(&service).expect("in force");
        owed::owe(
            tx,
            &Owed {
                why: interest.rule().to_owned(),
                ..service.owed(at, interest.owed_as())
            },
        )?;
    }
    Ok(())
}

fn person(tx: &mut Tx<'_>, user: &str) -> Result<()> {
    accounts::register(tx, &UserRow::new(user, 0))?;
    sessions::ensure_device(tx, user, "D", None, &DeviceCreator::Person)?;
    Ok(())
}

#[actix::test]
async fn a_crash_between_two_pages_loses_and_repeats_nothing() {
    let mut server = TestServer::open();
    server
        .write(|tx| {
            for user in ["@irc_a:test", "@alice:test"] {
                person(tx, user)?;
            }
            for n in 0..1_600 {
                deposit(
                    tx,
                    if n % 4 == 0 {
                        "@alice:test"
                    } else {
                        "@irc_a:test"
                    },
                )?;
            }
            Ok(())
        })
        .await;
    server.set_namespaces(NAMESPACES[0]).await;
    server.read_folder(async |_| true).await;
    let owed = async |server: &TestServer| {
        let all = server
            .write(|tx| {
                let interests = tx.interests();
                let irc = interests.service(&irc()).expect("in force");
                Ok(owed::waiting(
                    tx,
                    &irc.id,
                    Position::START,
                    Position(i64::MAX),
                    9_999,
                )?)
            })
            .await;
        all.into_iter().map(|row| row.position).collect::<Vec<_>>()
    };
    assert!(server.write(|tx| page(tx, &irc())).await, "there is more");
    let first = owed(&server).await;
    assert!(
        !first.is_empty() && first.len() <= 500,
        "one page: {}",
        first.len()
    );
    // A message that arrived after the registration is owed to the appservice already.
    server.write(|tx| deposit(tx, "@irc_a:test")).await;

    server.crash().await;
    server.pages().await;
    let all = owed(&server).await;
    assert_eq!(all.len(), 1_200, "each that waited, once");
    assert_eq!(all[..first.len()], first);
    assert!(all.is_sorted());
    assert_eq!(
        server.write(|tx| Ok(back_fill::get(tx, &irc())?)).await,
        None
    );
}

#[actix::test]
async fn members_are_not_counted_for_a_registration_that_never_comes_into_force() {
    let mut server = TestServer::open();
    server
        .write(|tx| {
            person(tx, "@alice:test")?;
            person(tx, "@irc_a:test")?;
            move_to(tx, ROOMS[0], "@alice:test", "join")?;
            move_to(tx, ROOMS[1], "@irc_a:test", "join")
        })
        .await;
    server.set_namespaces(NAMESPACES[0]).await;
    server.read_folder(async |_| true).await;
    let members = async |server: &TestServer| {
        let members = server
            .write(|tx| Ok(service_rooms::members(tx, &irc())?))
            .await;
        members.into_keys().collect::<Vec<_>>()
    };
    let before = server.file.clone();
    // The new registration has other users. Its write fails, and the file then has its old text again.
    server.set_namespaces(NAMESPACES[2]).await;
    server.read_folder(async |_| false).await;
    server.file = before;
    server.read_folder(async |_| true).await;
    assert_eq!(members(&server).await, [ROOMS[1]], "the write failed");
    server.set_namespaces(NAMESPACES[2]).await;
    server.read_folder(async |_| false).await;
    server.set_namespaces(NAMESPACES[0]).await;
    server.crash().await;
    assert_eq!(members(&server).await, [ROOMS[1]], "the process died");
}

#[actix::test]
async fn after_any_schedule_of_registrations_the_service_is_where_it_would_be_had_it_always_been_there()
 {
    for seed in 0..16u64 {
        let mut state = seed * 7919 + 3;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or(0) % below
        };
        let mut server = TestServer::open();
        server
            .write(|tx| USERS.iter().try_for_each(|user| person(tx, user)))
            .await;
        for _ in 0..80 {
            let (room, user, membership) =
                (ROOMS[random(4)], USERS[random(5)], MEMBERSHIPS[random(4)]);
            match random(14) {
                0..=4 => {
                    server
                        .write(move |tx| move_to(tx, room, user, membership))
                        .await
                }
                5 | 6 => server.write(move |tx| arrives(tx, user)).await,
                7 => server.write(drain).await,
                8 => drop(server.write(|tx| page(tx, &irc())).await),
                9 => server.crash().await,
                // A restart with other proposals enabled.
                12 => {
                    server.on.to_device = random(2) == 0;
                    server.on.device_lists = random(2) == 0;
                    server.crash().await;
                }
                // The joined members are counted for another registration, which then does not come into force.
                13 => {
                    let before = server.file.clone();
                    server.set_namespaces(NAMESPACES[random(4)]).await;
                    server.read_folder(async |_| false).await;
                    server.file = before;
                    if random(2) == 0 {
                        server.crash().await;
                    }
                }
                10 => {
                    server.file = None;
                    server.read_folder(async |_| true).await;
                }
                _ => {
                    server.set_namespaces(NAMESPACES[random(4)]).await;
                    let happens = async move |server: &TestServer| {
                        server
                            .write(move |tx| move_to(tx, room, user, membership))
                            .await;
                        true
                    };
                    server.read_folder(happens).await;
                }
            }
        }
        if server.on != all_on() {
            server.on = all_on();
            server.crash().await;
        }
        if server.file.is_none() {
            server.set_namespaces(NAMESPACES[0]).await;
            server.read_folder(async |_| true).await;
        }
        server.write(drain).await;
        server.pages().await;
        check(&server, seed).await;
        // At the end its users leave the namespaces one by one, and users who shared a room only with them must become `left`.
        for namespaces in [NAMESPACES[random(3)], NAMESPACES[random(3)], NAMESPACES[3]] {
            server.set_namespaces(namespaces).await;
            server.read_folder(async |_| true).await;
            server.write(drain).await;
            server.pages().await;
            check(&server, seed).await;
        }
    }
}

/// Compare the stored counts, copies and tracked users with those computed from all memberships and messages.
async fn check(server: &TestServer, seed: u64) {
    server
        .write(move |tx| {
            let interests = tx.interests();
            let own = |user: &str| interests.claim(&irc(), user).is_some();
            let mut counted = BTreeMap::new();
            let mut shared = BTreeSet::new();
            for room in ROOMS {
                let mut of = |membership: &str| -> Result<Vec<String>> {
                    let rows = memberships::in_room(tx, room, membership, "", 99)?;
                    Ok(rows.into_iter().map(|m| m.user_id).collect())
                };
                let (joined, invited) = (of("join")?, of("invite")?);
                let members = joined.iter().filter(|user| own(user)).count();
                if members > 0 {
                    counted.insert(room.to_owned(), i64::try_from(members).unwrap_or(0));
                    let people = joined.into_iter().chain(invited);
                    shared.extend(people.filter(|user| !own(user)));
                }
            }
            assert_eq!(
                service_rooms::members(tx, &irc())?,
                counted,
                "seed {seed}: members"
            );
            let tracked = schema::tracked::tracked_by(tx, &irc(), "", 99)?;
            let tracked: BTreeSet<_> = tracked.into_iter().filter(|user| !own(user)).collect();
            assert_eq!(tracked, shared, "seed {seed}: tracked");

            let mut waiting = Vec::new();
            for message in inbox::page(tx, Position::START, Position(i64::MAX), 9_999)? {
                let to = accounts::device(tx, &message.user_id, &message.device_id)?;
                let claim = interests.claim(&irc(), &message.user_id);
                let decides = to.is_some_and(|to| authority(claim, &irc(), &to).is_some());
                if decides {
                    waiting.push(message.position);
                }
            }
            let service = interests.service(&irc()).expect("in force");
            let copies =
                owed::waiting(tx, &service.id, Position::START, Position(i64::MAX), 9_999)?;
            let copies: BTreeSet<_> = copies.into_iter().map(|copy| copy.position).collect();
            let without: Vec<_> = waiting.iter().filter(|p| !copies.contains(p)).collect();
            assert!(
                without.is_empty(),
                "seed {seed}: waiting, and owed to nobody: {without:?}"
            );
            Ok(())
        })
        .await;
}
