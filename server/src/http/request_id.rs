//! The id that a client gives its request, in the header `X-Request-Id`. It is used in the log and in the trace, and sent back.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

/// The longest id that is taken over.
const LONGEST: usize = 64;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, if the client gave it one that is short and consists of visible ASCII.
pub(super) fn given(http: &HttpRequest) -> Option<&str> {
    let id = http.headers().get(HEADER)?.to_str().ok()?;
    let is_visible = id.bytes().all(|byte| byte.is_ascii_graphic());
    (is_visible && (1..=LONGEST).contains(&id.len())).then_some(id)
}

/// The answer, with the id that the client gave the request.
pub(super) fn answered(http: &HttpRequest, mut answer: HttpResponse) -> HttpResponse {
    if let Some(id) = given(http).and_then(|id| HeaderValue::from_str(id).ok()) {
        answer.headers_mut().insert(HEADER, id);
    }
    answer
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn an_id_is_short_and_visible() {
        let longest = "a".repeat(LONGEST);
        let ids = [
            "mine-1",
            longest.as_str(),
            "",
            "two words",
            &longest.repeat(2),
        ];
        let taken = ids.map(|id| {
            let http = TestRequest::default().insert_header(("X-Request-Id", id));
            given(&http.to_http_request()).is_some()
        });
        assert_eq!(taken, [true, true, false, false, false]);
    }
}
