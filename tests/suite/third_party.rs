//! Third-party networks: the answers of appservices, merged.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, Stage};

/// A bridge whose registration lists these protocols.
async fn offering(stage: &Stage, id: &str, protocols: Value) -> Bridge {
    let users = json!([{"exclusive": true, "regex": format!("@{id}_.*")}]);
    let aliases = json!([{"exclusive": true, "regex": format!("#{id}_.*")}]);
    let namespaces = json!({"users": users, "aliases": aliases});
    let keys = json!({"namespaces": namespaces, "protocols": protocols});
    stage.bridge_with(id, keys).await
}

/// An appservice's description of a network.
fn network(name: &str) -> Value {
    json!({
        "user_fields": ["network", "nick"], "location_fields": ["network", "channel"], "icon": "mxc://test/icon",
        "field_types": {"nick": {"regexp": "[^ ]+", "placeholder": "nick"}},
        "instances": [{"desc": name, "network_id": name, "fields": {"network": name}, "bot_user_id": "@bot:test"}],
    })
}

fn answers(bridge: &Bridge, status: u16, body: Value) {
    bridge.receiver.to_questions(Some((status, body)));
}

/// Clause: as.network.protocols, as.network.merged
#[actix_web::test]
async fn two_services_describe_one_network() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let libera = offering(&stage, "libera", json!(["irc"])).await;
    let oftc = offering(&stage, "oftc", json!(["irc"])).await;
    let down = offering(&stage, "down", json!(["irc", "xmpp"])).await;
    answers(&libera, 200, network("libera"));
    answers(&oftc, 200, network("oftc"));
    answers(&down, 500, json!({}));
    stage
        .step("what both say is one network with two instances; a service that fails is left out")
        .await;
    let all = alice.get("/thirdparty/protocols").await.ok();
    stage
        .step("one of them, a moment later: what was just said is not asked again")
        .await;
    let irc = alice.get("/thirdparty/protocol/irc").await.ok();
    stage.transcript("two_services_describe_one_network").await;
    assert_eq!(all["irc"], irc);
    let instances = irc["instances"].as_array().expect("instances");
    let names: Vec<_> = instances.iter().map(|i| &i["network_id"]).collect();
    assert_eq!(names, ["libera", "oftc"]);
    assert_eq!(
        instances[0]["bot_user_id"], "@bot:test",
        "unknown keys are passed on"
    );
    for unknown in ["xmpp", "gopher"] {
        let unknown = format!("/thirdparty/protocol/{unknown}");
        alice.get(&unknown).await.is_refused(404, "M_NOT_FOUND");
    }
}

/// Clause: as.network.protocols, as.network.unknown
#[actix_web::test]
async fn without_services_there_are_no_networks() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    assert_eq!(alice.get("/thirdparty/protocols").await.ok(), json!({}));
    let unknown = [
        "/thirdparty/protocol/irc",
        "/thirdparty/user/irc?nick=bob",
        "/thirdparty/location/irc?channel=%23rust",
        "/thirdparty/user?userid=@irc_bob:test",
        "/thirdparty/location?alias=%23irc_rust:test",
    ];
    for path in unknown {
        alice.get(path).await.is_refused(404, "M_NOT_FOUND");
    }
    assert_eq!(irc.receiver.questions(), [""; 0]);
    let bad = [
        "/thirdparty/user",
        "/thirdparty/user?userid=bob",
        "/thirdparty/location?alias=rust",
    ];
    for path in bad {
        let answer = alice.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    let anonymous = alice.anonymous().get("/thirdparty/protocols").await;
    anonymous.is_refused(401, "M_MISSING_TOKEN");
}

/// Clause: as.network.fields
#[actix_web::test]
async fn a_look_up_goes_to_the_services_with_its_fields_and_without_a_token() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let libera = offering(&stage, "libera", json!(["irc"])).await;
    let oftc = offering(&stage, "oftc", json!(["irc"])).await;
    let other = offering(&stage, "other", json!(["xmpp"])).await;
    let user =
        |id: &str| json!({"userid": id, "protocol": "irc", "fields": {"nick": "bob"}, "more": 1});
    answers(&libera, 200, json!([user("@libera_bob:test")]));
    answers(&oftc, 200, json!([user("@oftc_bob:test")]));
    stage.step("who is that?").await;
    let users = alice
        .get("/thirdparty/user/irc?nick=bob%26co&network=a/b")
        .await
        .ok();
    assert_eq!(
        users,
        json!([user("@libera_bob:test"), user("@oftc_bob:test")])
    );
    let location =
        json!([{"alias": "#libera_rust:test", "protocol": "irc", "fields": {"channel": "#rust"}}]);
    answers(&libera, 200, location.clone());
    answers(&oftc, 404, json!({"errcode": "M_NOT_FOUND"}));
    stage.step("which room is that?").await;
    let rooms = alice
        .get("/thirdparty/location/irc?channel=%23rust")
        .await
        .ok();
    assert_eq!(rooms, location);
    stage
        .step("and the other way round: only the service whose alias it is")
        .await;
    let rooms = alice
        .get("/thirdparty/location?alias=%23libera_rust:test")
        .await
        .ok();
    assert_eq!(rooms, location);
    answers(&libera, 200, json!([user("@libera_bob:test")]));
    let users = alice
        .get("/thirdparty/user?userid=@libera_bob:test")
        .await
        .ok();
    assert_eq!(users, json!([user("@libera_bob:test")]));
    stage
        .transcript("a_look_up_goes_to_the_services_with_its_fields_and_without_a_token")
        .await;

    let asked = libera.receiver.questions().len();
    // Appservices are not told the requesting user: an access token or a `user_id` in the query string is not passed on as a field.
    let token = alice.anonymous();
    let in_query =
        "/thirdparty/user/irc?nick=bob&access_token=libera-as-token&user_id=@libera_bob:test";
    libera.ghost("bob").await;
    token.get(in_query).await.ok();
    assert_eq!(
        libera.receiver.questions()[asked..],
        ["/_matrix/app/v1/thirdparty/user/irc?nick=bob"]
    );
    assert_eq!(other.receiver.questions(), [""; 0]);
}

#[actix_web::test]
async fn a_service_with_an_invalid_answer_is_left_out() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let good = offering(&stage, "good", json!(["irc"])).await;
    let bad = offering(&stage, "bad", json!(["irc"])).await;
    let one = json!([{"userid": "@good_bob:test", "protocol": "irc", "fields": {}}]);
    answers(&good, 200, one.clone());
    let nonsense = [
        json!({}),
        json!([1]),
        json!([{"userid": "bob", "protocol": "irc", "fields": {}}]),
        json!([{"userid": "@bad_bob:test"}]),
        json!("<html>"),
        json!("x".repeat(2 << 20)),
    ];
    for (i, body) in nonsense.into_iter().enumerate() {
        answers(&bad, 200, body);
        let path = format!("/thirdparty/user/irc?nick={i}");
        assert_eq!(alice.get(&path).await.ok(), one, "{i}");
    }
    answers(&good, 200, network("good"));
    let mut incomplete = network("bad");
    incomplete["instances"] = json!("many");
    answers(&bad, 200, incomplete);
    let all = alice.get("/thirdparty/protocols").await.ok();
    assert_eq!(all, json!({"irc": network("good")}));
}

#[actix_web::test]
async fn a_service_that_hangs_is_left_out_after_five_seconds() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let good = offering(&stage, "good", json!(["irc"])).await;
    let hangs = offering(&stage, "hangs", json!(["irc"])).await;
    answers(&good, 200, network("good"));
    hangs.receiver.to_questions(None);
    let (all, ()) = tokio::join!(alice.get("/thirdparty/protocols"), async {
        hangs.receiver.holds(1).await;
        stage.advance(Duration::from_secs(5)).await;
    });
    assert_eq!(all.ok(), json!({"irc": network("good")}));
}
