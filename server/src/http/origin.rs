//! Protects the routes of a development server: only programs and pages of the server's own origin may call them.
//!
//! A website that a developer visits can send requests to the loopback address. The website's own name may even resolve to that
//! address (DNS rebinding), so the `Host` that the browser sends must be one of the server's names.

use std::net::IpAddr;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::error::{Error, Result};

// ANCHOR: own
/// Check that a request may reach a route of the server's own origin.
///
/// # Errors
/// 403 for a foreign `Host`, `Origin` or `Sec-Fetch-Site`; 415 for a request that changes something and is not JSON: a page of
/// another origin can send other content types without a CORS preflight.
pub(super) fn is_own(http: &HttpRequest, hosts: &[String]) -> Result<()> {
    let headers = http.headers();
    let forbidden = |why: &str| Err(Error::Request(403, "M_FORBIDDEN", why.to_owned()));
    let Some(host) = text(headers, &header::HOST).filter(|host| is_local(host, hosts)) else {
        return forbidden("the Host of this request is not this server; --allow-host allows it");
    };
    if headers.contains_key(header::ORIGIN) {
        let origin = text(headers, &header::ORIGIN);
        let of_origin = origin.and_then(|origin| origin.split_once("://"));
        if of_origin.is_none_or(|(_, of_origin)| !of_origin.eq_ignore_ascii_case(host)) {
            return forbidden("pages of another origin may not call this endpoint");
        }
    }
    let site = HeaderName::from_static("sec-fetch-site");
    if headers.contains_key(&site) && !matches!(text(headers, &site), Some("same-origin" | "none"))
    {
        return forbidden("pages of another origin may not call this endpoint");
    }
    let reads = http.method().is_safe();
    if !reads && !is_json(headers) {
        let why = "the content type of this request must be application/json".to_owned();
        return Err(Error::Request(415, "M_NOT_JSON", why));
    }
    Ok(())
}
// ANCHOR_END: own

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether a `Host` names the loopback address or is one of `hosts`. The port is ignored: browsers treat another port as another
/// origin, and none of these names can resolve to another machine.
fn is_local(host: &str, hosts: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    loopback
        || name.eq_ignore_ascii_case("localhost")
        || hosts
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(host))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Add headers that keep other origins from reading the response.
pub(super) fn kept(mut response: HttpResponse) -> HttpResponse {
    const KEPT: [(&str, &str); 3] = [
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in KEPT {
        let headers = response.headers_mut();
        if !headers.contains_key(name) {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn own_pages_and_programs_come_in_and_others_do_not() {
        const OURS: (&str, &str) = ("host", "127.0.0.1:8008");
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
        let cases: &[Case<'_>] = &[
            ("GET", &[OURS], 200),
            ("GET", &[("host", "localhost")], 200),
            ("GET", &[("host", "LOCALHOST:1")], 200),
            ("GET", &[("host", "[::1]:8008")], 200),
            ("GET", &[("host", "127.0.0.2:8008")], 200),
            ("GET", &[("host", "understudy.internal:8008")], 200),
            ("GET", &[], 403),
            ("GET", &[("host", "evil.example:8008")], 403),
            ("GET", &[("host", "localhost.evil.example")], 403),
            ("GET", &[("host", "127.0.0.1.evil.example")], 403),
            ("GET", &[("host", "127.0.0.1@evil.example")], 403),
            ("GET", &[("host", "192.0.2.1:8008")], 403),
            ("GET", &[OURS, ("origin", "http://127.0.0.1:8008")], 200),
            ("GET", &[OURS, ("origin", "http://127.0.0.1:3000")], 403),
            ("GET", &[OURS, ("origin", "https://evil.example")], 403),
            ("GET", &[OURS, ("origin", "null")], 403),
            ("GET", &[OURS, ("sec-fetch-site", "same-origin")], 200),
            ("GET", &[OURS, ("sec-fetch-site", "none")], 200),
            ("GET", &[OURS, ("sec-fetch-site", "same-site")], 403),
            ("GET", &[OURS, ("sec-fetch-site", "cross-site")], 403),
            ("POST", &[OURS, JSON], 200),
            ("POST", &[OURS], 415),
            ("POST", &[OURS, ("content-type", "text/plain")], 415),
            (
                "POST",
                &[OURS, JSON, ("origin", "https://evil.example")],
                403,
            ),
        ];
        let hosts = ["understudy.internal".to_owned()];
        for (method, headers, expected) in cases {
            let method = method.parse().expect("a method");
            let mut request = TestRequest::default().method(method);
            for header in *headers {
                request = request.append_header(*header);
            }
            let status = match is_own(&request.to_http_request(), &hosts) {
                Ok(()) => 200,
                Err(Error::Request(status, _, _)) => status,
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(status, *expected, "{headers:?}");
        }
    }
}
