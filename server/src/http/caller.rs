//! The caller of a request: a user on a device, or an application service, which may act as one of its users and devices.

use std::net::IpAddr;
use std::sync::Arc;

use actors::dialects::{self, Topic};
use actors::services::{CarriesInterests, Service};
use actors::wire::{Name, Naming};
use actors::{Identity, Refusal, Secret, accounts};
use ruma::{OwnedDeviceId, OwnedUserId};

use super::address;
use super::error::{Error, Result};
use super::limits::Limits;
use crate::state::App;

/// The token that an endpoint requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// None. A token that is sent anyway identifies the account for the limits; an unknown one is no error.
    None,
    /// A token of a user or an appservice, if one is sent.
    Optional,
    /// That of an appservice, if the body is one of an appservice; the endpoint decides. An unknown one is no error before: clients
    /// log in again while they still send the token that they lost.
    Login,
    /// A token of a user or an appservice.
    User,
    /// A token of an appservice.
    Appservice,
}

/// The caller of a request, with the limits that apply to it.
#[derive(Clone)]
pub struct Caller {
    bearer: Bearer,
    address: String,
    asserted_device: Option<Name>,
    limits: Arc<Limits>,
}

/// The user, device and appservice that a token identifies; empty without a token.
#[derive(Clone, Default)]
struct Bearer {
    identity: Option<Identity>,
    appservice: Option<Arc<Service>>,
    token: Option<Secret>,
    /// Why the token identifies nobody, where that is no error.
    refused: Option<Refusal>,
}

/// The parts of a request that can identify its caller.
pub(crate) struct RequestParts<'a> {
    /// The path.
    pub(crate) path: &'a str,
    /// The header `Authorization`.
    pub(crate) header: Option<&'a str>,
    /// The decoded pairs of the query.
    pub(crate) query: &'a [(String, String)],
    /// The query parameter by which an appservice names the device it acts as, if it can.
    pub(crate) device: Option<Name>,
    /// The address of the client.
    pub(crate) ip: Option<IpAddr>,
}

impl<'a> RequestParts<'a> {
    /// The key under which limits count the client's address.
    fn address(&self) -> String {
        self.ip
            .map_or_else(|| "unknown".to_owned(), address::bucket)
    }

    /// A value of the query. An empty name of a user or a device is a mistake of the caller, and names nobody.
    fn param(&self, name: &str) -> Option<&'a str> {
        let pair = self.query.iter().find(|(n, _)| n == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// The token, from the header or from the query.
    fn token(&self) -> Result<Option<&'a str>> {
        match (self.header, self.param("access_token")) {
            (Some(_), Some(_)) => {
                let twice = "the token is sent twice".to_owned();
                Err(Error::Request(401, "M_MISSING_TOKEN", twice))
            }
            (Some(header), None) => {
                let scheme_and_token = header.split_once(' ');
                let token =
                    scheme_and_token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                let (_, token) = token.ok_or_else(Error::missing_token)?;
                Ok(Some(token))
            }
            (None, token) => Ok(token),
        }
    }
}

// ANCHOR: dialect
/// Which names, stable or unstable, the answer uses: unstable ones only if the request names its device by the unstable parameter
/// alone. An appservice that sends both knows the stable names.
#[must_use]
pub fn dialect(query: &[(String, String)], device: Option<Name>) -> Naming {
    let names = |name: &str| query.iter().any(|(n, _)| n == name);
    match device {
        Some(device) if names(device.unstable) && !names(device.stable) => Naming::Unstable,
        _ => Naming::Stable,
    }
}
// ANCHOR_END: dialect

impl Caller {
    /// Find the caller of a request by its token and, for an appservice, by the user and device named in the query.
    ///
    /// # Errors
    /// 401 without a known token where one is required; 403 for a user outside the appservice's namespaces; 400 for a device that
    /// does not exist; 429 for an address that has sent too many unknown tokens.
    pub(super) async fn find(
        app: &App,
        limits: Arc<Limits>,
        auth: Auth,
        asked: &RequestParts<'_>,
    ) -> Result<Caller> {
        let token = match asked.token() {
            // Another scheme, such as `Basic`, is meant for a proxy in front of the server.
            Err(_) if auth == Auth::None => None,
            token => token?,
        };
        let address = asked.address();
        let bearer = match (auth, token) {
            (Auth::None | Auth::Optional | Auth::Login, None) => Bearer::default(),
            (_, None) => return Err(Error::missing_token()),
            (_, Some(token)) => {
                let attempts = limits.attempts();
                let tried = match attempts.map(|a| a.may_try_token(&address, token)) {
                    Some(Err(refused)) if auth != Auth::Login => return Err(refused.into()),
                    Some(Err(refused)) => Err(refused.into()),
                    _ => try_token(app, &limits, &address, auth, asked, token).await,
                };
                match tried {
                    Err(Error::Actor(actors::Error::Refused(why)))
                        if matches!(auth, Auth::None | Auth::Login) =>
                    {
                        Bearer {
                            refused: Some(why),
                            ..Bearer::default()
                        }
                    }
                    bearer => bearer?,
                }
            }
        };
        if let Some(identity) = &bearer.identity {
            let ip = asked.ip.map(|ip| ip.to_string());
            accounts::seen(&app.actors, identity, ip.as_deref());
        }
        Ok(Caller {
            bearer,
            address,
            asserted_device: asked.device,
            limits,
        })
    }

    /// The user, and the device that the token or the appservice names.
    ///
    /// # Errors
    /// 401 when there is no user.
    pub fn identity(&self) -> Result<&Identity> {
        let identity = self.bearer.identity.as_ref();
        identity.ok_or_else(Error::missing_token)
    }

    /// The appservice that the token belongs to.
    #[must_use]
    pub fn appservice(&self) -> Option<&Arc<Service>> {
        self.bearer.appservice.as_ref()
    }

    /// Whether a query parameter of this name identifies the caller, so that it is not part of the endpoint's own query.
    #[must_use]
    pub fn is_asserted_by(&self, name: &str) -> bool {
        let device = self.asserted_device;
        let names_device = device.is_some_and(|device| device.forms().contains(&name));
        let of_service = name == "user_id" || names_device;
        name == "access_token" || self.appservice().is_some() && of_service
    }

    /// The token, which logging out revokes.
    #[must_use]
    pub fn token(&self) -> Option<&Secret> {
        self.bearer.token.as_ref()
    }

    /// Why the token identifies nobody, if it does not and the endpoint needs none.
    #[must_use]
    pub fn refused(&self) -> Option<&Refusal> {
        self.bearer.refused.as_ref()
    }

    /// The key under which limits count the client's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the request carries no known token.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.bearer.identity.is_none() && self.bearer.appservice.is_none()
    }

    /// Check that the caller is this user.
    ///
    /// # Errors
    /// 403 for another user, 401 without a known token.
    pub fn must_be(&self, user: &ruma::UserId) -> Result<&Identity> {
        let identity = self.identity()?;
        if identity.user != user {
            return Err(Refusal::Forbidden("this belongs to another user".into()).into());
        }
        Ok(identity)
    }

    /// The limits on callers, which all requests share.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Look up a token; an unknown one counts against its address.
async fn try_token(
    app: &App,
    limits: &Limits,
    address: &str,
    auth: Auth,
    asked: &RequestParts<'_>,
    token: &str,
) -> Result<Bearer> {
    let found = bearer(app, auth, asked, token).await;
    if let Some(attempts) = limits.attempts() {
        match &found {
            Ok(_) => attempts.right_token(address, token),
            Err(error) if error.is_unknown_token() => attempts.wrong_token(address),
            Err(_) => {}
        }
    }
    found
}

/// The bearer of a token: an appservice, possibly acting as one of its users, or a user on a device.
/// Clause: as.acting.other-tokens
async fn bearer(app: &App, auth: Auth, asked: &RequestParts<'_>, token: &str) -> Result<Bearer> {
    let env = &app.actors.env;
    let secret = Secret::from(token);
    if let Some(service) = service_of(app, token) {
        if auth != Auth::None {
            env.dialects.count(&service.id, names_used(asked));
        }
        let user = asked.param("user_id");
        let mut forms = asked.device.map(Name::forms).into_iter().flatten();
        let device = forms.find_map(|name| asked.param(name));
        let identity = match masquerade(app, &service, user, device).await {
            // An appservice may name the user that it is about to register as the caller.
            Err(Error::Actor(actors::Error::Refused(_)))
                if matches!(auth, Auth::Optional | Auth::Login | Auth::None) =>
            {
                None
            }
            identity => Some(identity?),
        };
        return Ok(Bearer {
            identity,
            appservice: Some(service),
            token: Some(secret),
            refused: None,
        });
    }
    match accounts::queries::identity_of(env, &secret).await? {
        Some(_) if auth == Auth::Appservice => {
            Err(Refusal::Forbidden("only an application service may ask this".into()).into())
        }
        Some(identity) => Ok(Bearer {
            identity: Some(identity),
            appservice: None,
            token: Some(secret),
            refused: None,
        }),
        None => Err(Refusal::UnknownToken.into()),
    }
}

/// The appservice that the token belongs to.
fn service_of(app: &App, token: &str) -> Option<Arc<Service>> {
    let interests = app.actors.env.store.interests();
    interests.by_token(token).cloned()
}

/// Every part of an appservice's request that exists in an old and a new form: the path's version, where the token is, and how the
/// device is named.
fn names_used<'a>(asked: &RequestParts<'a>) -> impl Iterator<Item = (Topic, &'a str)> {
    let token = asked
        .param("access_token")
        .map_or("Authorization", |_| "access_token");
    let forms = asked.device.map(Name::forms).into_iter().flatten();
    let devices = forms.filter(|name| asked.param(name).is_some());
    dialects::version(asked.path)
        .map(|version| (Topic::Path, version))
        .into_iter()
        .chain([(Topic::Token, token)])
        .chain(devices.map(|name| (Topic::Device, name)))
}

// ANCHOR: masquerade
/// An appservice acts as its sender or as an existing user of its namespaces and, if it names a device, on an existing device.
/// ([spec]) Clause: as.acting.sender, as.acting.user, as.acting.outside, as.acting.not-registered, as.acting.device
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
async fn masquerade(
    app: &App,
    service: &Arc<Service>,
    user: Option<&str>,
    device: Option<&str>,
) -> Result<Identity> {
    let env = &app.actors.env;
    let asserted = user.unwrap_or(&service.sender);
    let user = OwnedUserId::try_from(asserted)
        .map_err(|e| Error::invalid_param(format!("user_id: {e}")))?;
    if asserted != service.sender {
        let claimed = env.store.interests().claim(&service.id, asserted).is_some();
        if !claimed {
            return Err(Refusal::Forbidden(
                "the user is not in the application service's namespaces".into(),
            )
            .into());
        }
        if !accounts::queries::user_exists(env, &user).await? {
            return Err(Refusal::Forbidden("this user has no active account".into()).into());
        }
    }
    let device = device.map(OwnedDeviceId::from);
    if let Some(device) = &device
        && !accounts::queries::device_exists(env, &user, device).await?
    {
        return Err(Refusal::UnknownDevice.into());
    }
    Ok(Identity {
        user,
        device,
        appservice: Some(service.id.clone()),
    })
}
// ANCHOR_END: masquerade

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_uses_only_the_old_names_is_answered_in_them() {
        let cases: &[(&[&str], Naming)] = &[
            (&[], Naming::Stable),
            (&["device_id"], Naming::Stable),
            (
                &["user_id", "org.matrix.msc3202.device_id"],
                Naming::Unstable,
            ),
            (
                &["org.matrix.msc3202.device_id", "device_id"],
                Naming::Stable,
            ),
        ];
        for (names, expected) in cases {
            let query: Vec<_> = names
                .iter()
                .map(|name| ((*name).to_owned(), String::new()))
                .collect();
            let device = Name {
                unstable: "org.matrix.msc3202.device_id",
                stable: "device_id",
            };
            assert_eq!(dialect(&query, Some(device)), *expected, "{names:?}");
            assert_eq!(dialect(&query, None), Naming::Stable);
        }
    }
}
