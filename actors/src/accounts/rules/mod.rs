//! The specification's rules for user ids, devices and registration, as pure functions.

pub mod profile;
pub mod push_rules;

use ruma::{OwnedUserId, ServerName, UserId};
use schema::ServiceId;

use crate::runtime::lengths::NAME;
use crate::services::{Interests, Service};
use crate::{Refusal, Result};

/// The longest display name of a device, in characters: Synapse's limit.
const DEVICE_NAME_CHARS: usize = 100;

/// The longest password, in bytes, since the cost of hashing grows with it.
const PASSWORD_BYTES: usize = 512;

/// The id of a new person: its localpart is of `a-z0-9._=-/+`, converted to lower case. ([spec])
///
/// # Errors
/// [`Refusal::InvalidUsername`]
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#user-identifiers
pub fn person(server: &ServerName, typed: &str) -> Result<OwnedUserId, Refusal> {
    new_user(server, &typed.to_ascii_lowercase())
}

/// The id of a new user of an application service: its localpart is of the same characters, and of upper case, which bridges have
/// always used. Existing users with other characters stay valid. ([spec])
///
/// Deviation: the grammar for new users has no upper case.
///
/// # Errors
/// [`Refusal::InvalidUsername`]
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#user-identifiers
pub fn service_user(server: &ServerName, localpart: &str) -> Result<OwnedUserId, Refusal> {
    new_user(server, localpart)
}

fn new_user(server: &ServerName, localpart: &str) -> Result<OwnedUserId, Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._=-/+".contains(&b);
    if localpart.is_empty() || !localpart.bytes().all(allowed) {
        return Err(Refusal::InvalidUsername(
            "a user name is made of a-z, 0-9 and . _ = - / +".into(),
        ));
    }
    whole(server, localpart)
}

fn whole(server: &ServerName, localpart: &str) -> Result<OwnedUserId, Refusal> {
    let id = format!("@{localpart}:{server}");
    if id.len() > NAME {
        return Err(Refusal::InvalidUsername(
            "a user id has at most 255 bytes".into(),
        ));
    }
    UserId::parse(id).map_err(|e| Refusal::InvalidUsername(e.to_string().into()))
}

/// The user that a log-in names: `user` is a localpart or a full user id of this server. `None` for an invalid id. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#matrix-user-id
pub fn meant(server: &ServerName, user: &str) -> Option<OwnedUserId> {
    let id = if user.starts_with('@') {
        UserId::parse(user).ok()?
    } else {
        whole(server, user).ok()?
    };
    (id.server_name() == server && !id.as_str().contains('\0')).then_some(id)
}

/// Refuse a person's registration of a user id in an exclusive namespace. ([spec]) Clause: as.registration.exclusive-users
///
/// # Errors
/// [`Refusal::Exclusive`]
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
pub fn open_to_people(interests: &Interests, user: &UserId) -> Result<(), Refusal> {
    match interests.exclusive_owner(user.as_str()) {
        None => Ok(()),
        Some(_) => Err(Refusal::Exclusive(
            "this user id is reserved by an application service".into(),
        )),
    }
}

/// Refuse an appservice that acts for a user that it does not claim, or that another appservice claims exclusively. ([spec])
///
/// # Errors
/// [`Refusal::UnknownToken`] when the appservice is no longer registered; [`Refusal::Exclusive`]
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
/// Clause: as.users.namespace
pub fn service_acts_for<'a>(
    interests: &'a Interests,
    service: &ServiceId,
    user: &UserId,
) -> Result<&'a Service, Refusal> {
    let own = interests.service(service).ok_or(Refusal::UnknownToken)?;
    let allowed = interests
        .claim(service, user.as_str())
        .is_some_and(|claim| {
            claim.is_exclusive() || interests.exclusive_owner(user.as_str()).is_none()
        });
    if allowed {
        Ok(own)
    } else {
        Err(Refusal::Exclusive(
            "this user id is not in a namespace of the application service".into(),
        ))
    }
}

/// Refuse a log-in of an appservice whose registration says that it creates devices without logging in. ([spec])
///
/// # Errors
/// [`Refusal::AppserviceLoginUnsupported`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#appservice-login
/// Clause: as.users.login-unsupported
pub fn may_log_in(service: &Service) -> Result<(), Refusal> {
    if !service.logs_in {
        return Err(Refusal::AppserviceLoginUnsupported(
            "this application service creates devices without logging in".into(),
        ));
    }
    Ok(())
}

/// The most devices of a user; it bounds a message to all of them and the list of them.
pub const DEVICES: i64 = 1_000;

/// Refuse a device id that is empty, longer than [`NAME`] bytes, or contains U+0000.
///
/// # Errors
/// [`Refusal::InvalidParam`]
pub fn device_id(id: &str) -> Result<(), Refusal> {
    if id.is_empty() || id.len() > NAME || id.contains('\0') {
        return Err(Refusal::InvalidParam(
            "a device id has 1 to 255 bytes".into(),
        ));
    }
    Ok(())
}

/// Refuse a device's display name that is too long or contains U+0000.
///
/// # Errors
/// [`Refusal::TooMany`], [`Refusal::InvalidParam`]
pub fn device_name(name: Option<&str>) -> Result<(), Refusal> {
    let name = name.unwrap_or_default();
    if name.chars().count() > DEVICE_NAME_CHARS {
        return Err(Refusal::TooMany(
            "a device name has at most 100 characters".into(),
        ));
    }
    no_nul(name)
}

/// Refuse U+0000 in a text to store: PostgreSQL cannot store it.
///
/// # Errors
/// [`Refusal::InvalidParam`]
pub fn no_nul(text: &str) -> Result<(), Refusal> {
    if text.contains('\0') {
        return Err(Refusal::InvalidParam("U+0000 is not allowed".into()));
    }
    Ok(())
}

/// Refuse an empty password, and one so long that hashing it costs too much. ([spec])
///
/// # Errors
/// [`Refusal::WeakPassword`], [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#password-based
pub fn password(password: &str) -> Result<(), Refusal> {
    if password.is_empty() {
        return Err(Refusal::WeakPassword(
            "the password must not be empty".into(),
        ));
    }
    if password.len() > PASSWORD_BYTES {
        return Err(Refusal::InvalidParam(
            "a password has at most 512 bytes".into(),
        ));
    }
    Ok(())
}

/// Refuse access to another user's profile, account data or filters. ([spec]) Clause: cs.accounts.own-data
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
pub fn own(requester: &UserId, owner: &UserId) -> Result<(), Refusal> {
    if requester == owner {
        Ok(())
    } else {
        Err(Refusal::Forbidden("this belongs to another user".into()))
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use crate::services::{Proposals, Registration};

    use super::*;

    #[test]
    fn persons_have_lower_case_localparts() {
        let server = server_name!("test");
        let long = "x".repeat(250);
        let cases = [
            ("alice", Some("@alice:test")),
            ("Alice", Some("@alice:test")),
            ("a.b_c=d-e/f+0", Some("@a.b_c=d-e/f+0:test")),
            ("", None),
            ("al ice", None),
            ("älice", None),
            ("al:ice", None),
            ("a\0b", None),
            (&long, None),
        ];
        for (typed, expected) in cases {
            let user = person(server, typed).ok();
            assert_eq!(user.as_ref().map(|u| u.as_str()), expected, "{typed:?}");
        }
    }

    #[test]
    fn users_of_services_may_have_upper_case_localparts() {
        let server = server_name!("test");
        let cases = [
            ("irc_bob", true),
            ("IRC_Bob", true),
            ("irc_a.b_c=d-e/f+0", true),
            ("irc_[bob]", false),
            ("irc_ü", false),
            ("irc_a b", false),
            ("irc_a@b", false),
            (&"x".repeat(250), false),
            ("", false),
            ("bob:elsewhere", false),
            ("a\0b", false),
        ];
        for (localpart, expected) in cases {
            assert_eq!(
                service_user(server, localpart).is_ok(),
                expected,
                "{localpart:?}"
            );
        }
    }

    #[test]
    fn a_log_in_names_a_user_of_this_server() {
        let server = server_name!("test");
        let cases = [
            ("alice", Some("@alice:test")),
            ("@alice:test", Some("@alice:test")),
            ("@alice:elsewhere", None),
            ("@alice", None),
            ("", Some("@:test")),
        ];
        for (user, expected) in cases {
            let meant = meant(server, user);
            assert_eq!(meant.as_ref().map(|u| u.as_str()), expected, "{user:?}");
        }
    }

    fn interests() -> Interests {
        let service = |id: &str, regex: &str, exclusive: bool, msc4190: bool| {
            let value = json!({"id": id, "url": null, "as_token": id, "hs_token": id, "sender_localpart": format!("{id}bot"),
                "namespaces": {"users": [{"exclusive": exclusive, "regex": regex}]}, "io.element.msc4190": msc4190});
            let registration: Registration = serde_json::from_value(value).expect("a registration");
            (registration, false)
        };
        let all = vec![
            service("irc", "@irc_.*", true, false),
            service("mirror", "@.*", false, true),
        ];
        let on = Proposals {
            manages_devices: true,
            ..Proposals::default()
        };
        Interests::compile("test", all, &on).expect("patterns compile")
    }

    #[test]
    fn an_exclusive_namespace_excludes_persons_and_other_services() {
        let interests = interests();
        // user, people, irc, mirror
        let cases = [
            ("@alice:test", true, false, true),
            ("@irc_bob:test", false, true, false),
            ("@ircbot:test", false, true, false),
            ("@mirrorbot:test", false, false, true),
        ];
        for (user, people, irc, mirror) in cases {
            let user = UserId::parse(user).expect("a user id");
            let acts = |id: &str| service_acts_for(&interests, &id.into(), &user).is_ok();
            assert_eq!(open_to_people(&interests, &user).is_ok(), people, "{user}");
            assert_eq!(acts("irc"), irc, "{user}");
            assert_eq!(acts("mirror"), mirror, "{user}");
            assert!(!acts("gone"), "{user}");
        }
    }

    #[test]
    fn a_service_that_makes_its_own_devices_does_not_log_in() {
        let interests = interests();
        let log_in = |id: &str| interests.service(&id.into()).map(|s| may_log_in(s).is_ok());
        assert_eq!(log_in("irc"), Some(true));
        assert_eq!(log_in("mirror"), Some(false));
    }

    #[test]
    fn device_ids_names_and_passwords_have_limits() {
        let (id, name, secret) = ("x".repeat(256), "ä".repeat(101), "x".repeat(513));
        assert!(device_id("A/B=").is_ok() && device_id(&id[1..]).is_ok());
        assert!(device_id("").is_err() && device_id(&id).is_err() && device_id("a\0").is_err());
        assert!(device_name(None).is_ok() && device_name(Some(&name[2..])).is_ok());
        assert!(device_name(Some(&name)).is_err() && device_name(Some("\0")).is_err());
        assert!(password("x").is_ok() && password(&secret[1..]).is_ok());
        assert!(password("").is_err() && password(&secret).is_err());
    }
}
