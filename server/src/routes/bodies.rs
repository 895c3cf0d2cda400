//! Requests with bodies that ruma's types do not take as they are. Clients send keys that these types do not know.

use std::collections::BTreeMap;

use ruma::api::IncomingRequest;
use ruma::api::error::DeserializationError;
use serde_json::value::RawValue;

/// Says that a type wraps a request, and belongs to the same endpoint.
macro_rules! same_endpoint {
    ($wrapper:ident) => {
        impl<R: ruma::api::Metadata> ruma::api::Metadata for $wrapper<R> {
            const METHOD: http::Method = R::METHOD;
            const RATE_LIMITED: bool = R::RATE_LIMITED;
            type Authentication = R::Authentication;
            type PathBuilder = R::PathBuilder;
            const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
        }
    };
}
pub(super) use same_endpoint;

/// A request and its whole body, for what is stored as the client wrote it.
pub(super) struct Kept<R> {
    pub(super) request: R,
    pub(super) body: Box<RawValue>,
}
same_endpoint!(Kept);

impl<R: IncomingRequest> IncomingRequest for Kept<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        // ruma's types take an absent body as an empty one.
        let body = match *request.body() {
            [] => RawValue::from_string("{}".to_owned())?,
            body => serde_json::from_slice(body)?,
        };
        let request = R::try_from_http_request_inner(request, path)?;
        Ok(Kept { request, body })
    }
}

/// A request of whose body only the member is read that the last variable of the path names. ruma's type takes no other beside it.
pub(super) struct OfField<R>(pub(super) R);
same_endpoint!(OfField);

impl<R: IncomingRequest> IncomingRequest for OfField<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(request.body())?;
        fields.retain(|name, _| Some(&name.as_str()) == path.last());
        let body = serde_json::to_vec(&fields)?;
        let request = R::try_from_http_request_inner(request.map(|_| &body[..]), path)?;
        Ok(OfField(request))
    }
}
