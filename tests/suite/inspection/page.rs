//! The page of a development server, as files; `server/page/test` clicks through it.

use tests::Stage;
use tests::person::client;

#[actix_web::test]
async fn the_page_is_kept_by_its_tag_and_loads_nothing_of_other_origins() {
    let stage = Stage::new().await;
    let files = [
        ("", "text/html; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ];
    for (file, kind) in files {
        let request = || client().get(format!("{}/_understudy/{file}", stage.base()));
        let first = request().send().await.expect("an answer");
        assert_eq!(first.status(), 200, "{file}");
        let headers = first.headers().clone();
        assert_eq!(headers["content-type"], kind);
        assert_eq!(headers["content-security-policy"], "default-src 'self'");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        assert!(!first.bytes().await.expect("a body").is_empty());

        let again = request().header("if-none-match", &headers["etag"]);
        let again = again.send().await.expect("an answer");
        assert_eq!(again.status(), 304, "{file}");
        assert_eq!(again.headers()["etag"], headers["etag"]);

        let foreign = request().header("origin", "https://evil.example");
        let foreign = foreign.send().await.expect("an answer");
        assert_eq!(foreign.status(), 403, "{file}");
    }
}

#[actix_web::test]
async fn a_server_that_is_not_for_development_has_no_page() {
    let stage = Stage::with(&[], |options| options.dev = false).await;
    let page = format!("{}/_understudy/", stage.base());
    let answer = client().get(page).send().await.expect("an answer");
    assert_eq!(answer.status(), 404);
}
