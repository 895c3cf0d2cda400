//! Endpoints that ruma defines: method, paths and required token come from ruma's metadata.

use ::ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme,
    NoAccessToken, NoAuthentication,
};
use ::ruma::api::{IncomingRequest, Metadata};

use crate::http::caller::Auth;

/// ruma's kinds of authentication, as values.
pub trait Scheme: AuthScheme {
    /// The token that the scheme requires.
    const AUTH: Auth;
}

macro_rules! schemes {
    ($($scheme:ty => $auth:ident),* $(,)?) => { $(impl Scheme for $scheme { const AUTH: Auth = Auth::$auth; })* };
}
schemes! {
    NoAuthentication => None,
    NoAccessToken => None,
    AccessToken => User,
    AccessTokenOptional => Optional,
    AppserviceToken => Appservice,
    AppserviceTokenOptional => Login,
}

/// A ruma request type that a client may send.
pub trait Endpoint:
    IncomingRequest<OutgoingResponse: 'static> + Metadata<Authentication: Scheme> + 'static
{
}

impl<R> Endpoint for R where
    R: IncomingRequest<OutgoingResponse: 'static> + Metadata<Authentication: Scheme> + 'static
{
}
