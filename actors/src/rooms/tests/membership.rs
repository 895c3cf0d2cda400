//! Coming and going.

use super::*;

#[actix_rt::test]
async fn who_may_not_is_told_the_rule() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Private).await;
    house
        .act("ann", Action::Invite, "bob", &room)
        .await
        .expect("invited");
    assert_eq!(
        forbidden(house.say("bob", &room, "hi").await),
        "sender's membership is not `join`"
    );
    assert_eq!(
        forbidden(house.join("eve", &room).await),
        "cannot join a room that is not `public`"
    );
    house.join("bob", &room).await.expect("joined");
    house.join("bob", &room).await.expect("joined already");
    assert_eq!(
        forbidden(
            house
                .set("bob", &room, "m.room.name", json!({"name": "x"}))
                .await
        ),
        "sender does not have enough power to send event of type `m.room.name`"
    );
    let nowhere = RoomId::parse("!none:test").expect("an id");
    assert!(matches!(
        refusal(house.say("bob", &nowhere, "hi").await),
        Refusal::Forbidden(_)
    ));
    assert!(matches!(
        refusal(house.join("bob", &nowhere).await),
        Refusal::NotFound(_)
    ));
    let knock = Enter {
        by: by("eve"),
        room: room.clone().into(),
        how: Entrance::Knock,
        reason: None,
    };
    assert!(matches!(
        refusal(ask(&house.actors.rooms, knock).await),
        Refusal::Forbidden(_)
    ));
}

/// Each row: who acts, how, what bob is before, and what he is afterwards or that it is refused. Bob's levels are none, ann's all.
#[actix_rt::test]
async fn kick_ban_unban() {
    use Action::{Ban, Invite, Kick, Leave, Unban};
    let house = House::new().await;
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
        let room = house.room("ann", Preset::Private).await;
        house
            .act("ann", Invite, "eve", &room)
            .await
            .expect("invited");
        house.join("eve", &room).await.expect("joined");
        if before == "ban" {
            house.act("ann", Ban, "bob", &room).await.expect("banned");
        } else if !before.is_empty() {
            house
                .act("ann", Invite, "bob", &room)
                .await
                .expect("invited");
            if before != "invite" {
                house.join("bob", &room).await.expect("joined");
            }
            if before == "leave" {
                house.act("bob", Leave, "bob", &room).await.expect("left");
            }
        }
        let done = house.act(actor, action, "bob", &room).await;
        let what = format!("{actor} {action:?} {before:?}");
        assert_eq!(done.is_ok(), after.is_some(), "{what}: {done:?}");
        assert_eq!(
            house.membership(&room, "bob").await,
            after.unwrap_or(before),
            "{what}"
        );
        let id = room.to_string();
        let (row, joined, invited) = house
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
async fn a_new_name_is_said_in_every_room() {
    let house = House::new().await;
    let (one, two) = (
        house.room("ann", Preset::Public).await,
        house.room("ann", Preset::Public).await,
    );
    house.join("bob", &one).await.expect("joined");
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
    house
        .actors
        .env
        .store
        .write(write)
        .await
        .expect("registered");
    ask(&house.actors.rooms, ProfileChanged { user: user("bob") })
        .await
        .expect("told");
    house.join("bob", &two).await.expect("joined");
    for room in [one, two] {
        let row = house
            .read(move |db| memberships::get(db, room.as_str(), "@bob:test"))
            .await;
        assert_eq!(row.and_then(|m| m.display_name).as_deref(), Some("Bob"));
    }
}

#[actix_rt::test]
async fn a_member_of_one_room_is_admitted_to_another() {
    let house = House::new().await;
    let (club, hall) = (
        house.room("ann", Preset::Private).await,
        house.room("ann", Preset::Private).await,
    );
    let rule = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]});
    house
        .set("ann", &hall, "m.room.join_rules", rule)
        .await
        .expect("set");
    assert!(matches!(
        refusal(house.join("bob", &hall).await),
        Refusal::Forbidden(_)
    ));
    house
        .act("ann", Action::Invite, "bob", &club)
        .await
        .expect("invited");
    house.join("bob", &club).await.expect("joined");
    house.join("bob", &hall).await.expect("admitted");
    let id = hall.to_string();
    let event = house
        .read(move |db| events::state(db, &id, "m.room.member", "@bob:test"))
        .await
        .expect("an event");
    assert!(
        event
            .pdu
            .contains(r#""join_authorised_via_users_server":"@ann:test""#)
    );
}
