//! Changes of memberships.

use super::*;

#[actix_rt::test]
async fn a_refused_join_names_the_rule() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Private).await;
    server
        .act("ann", Action::Invite, "bob", &room)
        .await
        .expect("invited");
    assert_eq!(
        forbidden(server.say("bob", &room, "hi").await),
        "sender's membership is not `join`"
    );
    assert_eq!(
        forbidden(server.join("eve", &room).await),
        "cannot join a room that is not `public`"
    );
    server.join("bob", &room).await.expect("joined");
    server.join("bob", &room).await.expect("joined already");
    assert_eq!(
        forbidden(
            server
                .set("bob", &room, "m.room.name", json!({"name": "x"}))
                .await
        ),
        "sender does not have enough power to send event of type `m.room.name`"
    );
    let nowhere = RoomId::parse("!none:test").expect("an id");
    assert!(matches!(
        refusal(server.say("bob", &nowhere, "hi").await),
        Refusal::Forbidden(_)
    ));
    assert!(matches!(
        refusal(server.join("bob", &nowhere).await),
        Refusal::NotFound(_)
    ));
    let knock = Enter {
        by: by("eve"),
        room: room.clone().into(),
        how: Entrance::Knock,
        reason: None,
    };
    assert!(matches!(
        refusal(ask(&server.actors.rooms, knock).await),
        Refusal::Forbidden(_)
    ));
}

/// Each row: the sender, the action, bob's membership before, and his membership after or that it is refused. Bob has no power
/// level, ann 100.
#[actix_rt::test]
async fn kicks_bans_and_unbans_depend_on_the_membership() {
    use Action::{Ban, Invite, Kick, Leave, Unban};
    let server = TestServer::new().await;
    let cases = [
        ("ann", Kick, "join", Some("leave")),
        ("ann", Kick, "invite", Some("leave")),
        ("ann", Kick, "leave", None),
        ("ann", Kick, "ban", None),
        ("ann", Kick, "", None),
        ("ann", Ban, "", Some("ban")),
        ("ann", Ban, "join", Some("ban")),
        ("ann", Ban, "ban", Some("ban")),
        ("ann", Unban, "ban", Some("leave")),
        ("ann", Unban, "leave", None),
        ("ann", Unban, "join", None),
        ("ann", Invite, "ban", None),
        ("ann", Invite, "join", None),
        ("ann", Invite, "leave", Some("invite")),
        ("bob", Leave, "join", Some("leave")),
        ("bob", Leave, "invite", Some("leave")),
        ("bob", Leave, "", None),
        ("bob", Leave, "leave", None),
        ("bob", Leave, "ban", None),
        ("eve", Kick, "join", None),
        ("eve", Ban, "join", None),
        ("eve", Unban, "ban", None),
    ];
    for (actor, action, before, after) in cases {
        let room = server.room("ann", Preset::Private).await;
        server
            .act("ann", Invite, "eve", &room)
            .await
            .expect("invited");
        server.join("eve", &room).await.expect("joined");
        if before == "ban" {
            server.act("ann", Ban, "bob", &room).await.expect("banned");
        } else if !before.is_empty() {
            server
                .act("ann", Invite, "bob", &room)
                .await
                .expect("invited");
            if before != "invite" {
                server.join("bob", &room).await.expect("joined");
            }
            if before == "leave" {
                server.act("bob", Leave, "bob", &room).await.expect("left");
            }
        }
        let done = server.act(actor, action, "bob", &room).await;
        let what = format!("{actor} {action:?} {before:?}");
        assert_eq!(done.is_ok(), after.is_some(), "{what}: {done:?}");
        assert_eq!(
            server.membership(&room, "bob").await,
            after.unwrap_or(before),
            "{what}"
        );
        let id = room.to_string();
        let (row, joined, invited) = server
            .read(move |db| {
                Ok((
                    rooms::room(db, &id)?,
                    memberships::in_room(db, &id, "join", "", 100)?.len(),
                    memberships::in_room(db, &id, "invite", "", 100)?.len(),
                ))
            })
            .await;
        let row = row.expect("a row");
        assert_eq!(
            (row.joined, row.invited),
            (joined as i64, invited as i64),
            "{what}"
        );
    }
}

#[actix_rt::test]
async fn a_new_display_name_is_sent_to_every_room() {
    let server = TestServer::new().await;
    let (one, two) = (
        server.room("ann", Preset::Public).await,
        server.room("ann", Preset::Public).await,
    );
    server.join("bob", &one).await.expect("joined");
    let write = |tx: &mut Tx<'_>| {
        accounts::register(
            tx,
            &accounts::UserRow {
                display_name: Some("Bob".to_owned()),
                ..accounts::UserRow::new("@bob:test", 1)
            },
        )?;
        Ok::<_, Error>(())
    };
    server
        .actors
        .env
        .store
        .write(write)
        .await
        .expect("registered");
    ask(&server.actors.rooms, ProfileChanged { user: user("bob") })
        .await
        .expect("told");
    server.join("bob", &two).await.expect("joined");
    for room in [one, two] {
        let row = server
            .read(move |db| memberships::get(db, room.as_str(), "@bob:test"))
            .await;
        assert_eq!(row.and_then(|m| m.display_name).as_deref(), Some("Bob"));
    }
}

#[actix_rt::test]
async fn a_member_of_one_room_is_admitted_to_another() {
    let server = TestServer::new().await;
    let (club, hall) = (
        server.room("ann", Preset::Private).await,
        server.room("ann", Preset::Private).await,
    );
    let rule = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]});
    server
        .set("ann", &hall, "m.room.join_rules", rule)
        .await
        .expect("set");
    assert!(matches!(
        refusal(server.join("bob", &hall).await),
        Refusal::Forbidden(_)
    ));
    server
        .act("ann", Action::Invite, "bob", &club)
        .await
        .expect("invited");
    server.join("bob", &club).await.expect("joined");
    server.join("bob", &hall).await.expect("admitted");
    let id = hall.to_string();
    let event = server
        .read(move |db| events::state(db, &id, "m.room.member", "@bob:test"))
        .await
        .expect("an event");
    assert!(
        event
            .pdu
            .contains(r#""join_authorised_via_users_server":"@ann:test""#)
    );
}
