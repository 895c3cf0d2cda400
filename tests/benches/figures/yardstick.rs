//! The yardstick: a program that does the least durable work needed to deliver a message, with the same SQLite and HTTP crates.
//!
//! It authenticates the sender by a query, inserts the messages in a group commit with a full fsync, responds, sends what waits
//! in transactions of at most 100 messages, and deletes the messages after the 200. It freezes and decides nothing, and knows
//! no devices, rooms or appservices. The difference to understudy's cost is the cost of these.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::web::{self, Bytes, Data, Path};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc, oneshot};

diesel::table! {
    tokens (token) { token -> Text, user_id -> Text, }
}

diesel::table! {
    inbox (position) {
        position -> BigInt, sender -> Text, kind -> Text, user_id -> Text, device_id -> Text, content -> Text,
    }
}

/// The most messages in a transaction, the same as in understudy.
const ITEMS: i64 = 100;

/// The largest request, in bytes.
const LARGEST: usize = 8 << 20;

/// The most writes in a commit, the same as in understudy.
const BATCH: usize = 512;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = inbox)]
struct Row {
    position: i64,
    sender: String,
    kind: String,
    user_id: String,
    device_id: String,
    content: String,
}

enum Work {
    /// The writer assigns the positions of these rows.
    Insert(Vec<Row>),
    DeleteUpTo(i64),
}

type Job = (Work, oneshot::Sender<()>);

#[derive(Clone)]
struct Shared {
    jobs: mpsc::UnboundedSender<Job>,
    reader: Arc<Mutex<SqliteConnection>>,
    news: Arc<Notify>,
}

#[derive(serde::Deserialize)]
struct Request {
    messages: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
}

fn connect(path: &str) -> SqliteConnection {
    let mut db = SqliteConnection::establish(path).expect("a database");
    let set_up = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                  PRAGMA cache_size = -2048; PRAGMA wal_autocheckpoint = 2000;";
    db.batch_execute(set_up).expect("a database");
    db
}

/// Runs until the process is ended. The arguments are the address to listen at, the database, the URL of the bridge, and the
/// number of users.
pub(crate) fn run(arguments: &[String]) {
    let [listen, database, bridge, people] = arguments else {
        panic!("the yardstick takes four arguments");
    };
    let mut db = connect(database);
    let tables = "CREATE TABLE tokens (token TEXT PRIMARY KEY NOT NULL, user_id TEXT NOT NULL) WITHOUT ROWID;
                  CREATE TABLE inbox (position INTEGER PRIMARY KEY NOT NULL, sender TEXT NOT NULL, kind TEXT NOT NULL,
                                      user_id TEXT NOT NULL, device_id TEXT NOT NULL, content TEXT NOT NULL);";
    db.batch_execute(tables).expect("tables");
    let people: usize = people.parse().expect("a number");
    let all: Vec<_> = (0..people)
        .map(|i| {
            let (token, user) = (crate::world::person_token(i), crate::world::person_id(i));
            (tokens::token.eq(token), tokens::user_id.eq(user))
        })
        .collect();
    let filled = diesel::insert_into(tokens::table)
        .values(all)
        .execute(&mut db);
    filled.expect("people");
    let (jobs, queue) = mpsc::unbounded_channel();
    let shared = Shared {
        jobs,
        reader: Arc::new(Mutex::new(connect(database))),
        news: Arc::default(),
    };
    std::thread::spawn(move || write(db, queue));
    let (url, listener) = (
        bridge.clone(),
        TcpListener::bind(listen).expect("an address"),
    );
    actix_rt::System::new().block_on(async move {
        let push = actix_rt::spawn(push(shared.clone(), connect(database), url));
        actix_rt::spawn(async move {
            // Without the sender of transactions the benchmark would wait without end.
            let ended = push.await;
            eprintln!("the yardstick delivers no more: {ended:?}");
            std::process::exit(1);
        });
        let data = Data::new(shared);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::clone(&data))
                // A request to 500 recipients is larger than the default limit.
                .app_data(web::PayloadConfig::new(LARGEST))
                .route("/_matrix/client/versions", web::get().to(HttpResponse::Ok))
                .route(
                    "/_matrix/client/v3/sendToDevice/{kind}/{txn}",
                    web::put().to(send),
                )
        });
        let server = server.workers(1).listen(listener).expect("a socket");
        server.run().await.expect("it serves");
    });
}

/// Group commit: commits all waiting writes together, then answers them.
fn write(mut db: SqliteConnection, mut queue: mpsc::UnboundedReceiver<Job>) {
    let (mut taken, mut position) = (Vec::new(), 0);
    while queue.blocking_recv_many(&mut taken, BATCH) > 0 {
        db.batch_execute("BEGIN IMMEDIATE").expect("begun");
        let mut answers = Vec::with_capacity(taken.len());
        for (work, answer) in taken.drain(..) {
            match work {
                Work::Insert(rows) => {
                    for mut row in rows {
                        position += 1;
                        row.position = position;
                        diesel::insert_into(inbox::table)
                            .values(row)
                            .execute(&mut db)
                            .expect("inserted");
                    }
                }
                Work::DeleteUpTo(last) => {
                    let rows = inbox::table.filter(inbox::position.le(last));
                    diesel::delete(rows).execute(&mut db).expect("deleted");
                }
            }
            answers.push(answer);
        }
        db.batch_execute("COMMIT").expect("on the disk");
        for answer in answers {
            let _ = answer.send(());
        }
    }
}

async fn send(
    http: HttpRequest,
    path: Path<(String, String)>,
    body: Bytes,
    shared: Data<Shared>,
) -> HttpResponse {
    let header = http
        .headers()
        .get("authorization")
        .and_then(|h| h.to_str().ok());
    let token = header
        .and_then(|h| h.strip_prefix("Bearer "))
        .unwrap_or_default();
    let known = {
        let mut db = shared.reader.lock().expect("no panic");
        tokens::table
            .find(token)
            .select(tokens::user_id)
            .first::<String>(&mut *db)
    };
    let (Ok(sender), Ok(request)) = (known, serde_json::from_slice::<Request>(&body)) else {
        return HttpResponse::Unauthorized().finish();
    };
    let mut rows = Vec::new();
    for (user, devices) in request.messages {
        for (device, content) in devices {
            rows.push(Row {
                position: 0,
                sender: sender.clone(),
                kind: path.0.clone(),
                user_id: user.clone(),
                device_id: device,
                content: Box::<str>::from(content).into_string(),
            });
        }
    }
    let (answer, written) = oneshot::channel();
    shared
        .jobs
        .send((Work::Insert(rows), answer))
        .expect("the writer lives");
    written.await.expect("written");
    shared.news.notify_one();
    HttpResponse::Ok()
        .content_type("application/json")
        .body("{}")
}

/// Sends one transaction after the other, the oldest messages first.
async fn push(shared: Shared, mut db: SqliteConnection, url: String) {
    // Fails if another part of this program has installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .tls_certs_only([])
        .build();
    let client = client.expect("a client");
    for number in 1.. {
        let rows: Vec<Row> = loop {
            let waiting = inbox::table
                .order(inbox::position)
                .limit(ITEMS)
                .select(Row::as_select());
            let rows = waiting.load(&mut db).expect("read");
            if !rows.is_empty() {
                break rows;
            }
            shared.news.notified().await;
        };
        let last = rows.last().expect("not empty").position;
        let items: Vec<_> = rows
            .iter()
            .map(|row| {
                let content: &RawValue = serde_json::from_str(&row.content).expect("JSON");
                Item {
                    sender: &row.sender,
                    kind: &row.kind,
                    to_user_id: &row.user_id,
                    to_device_id: &row.device_id,
                    content,
                }
            })
            .collect();
        let body = serde_json::to_vec(&Transaction {
            events: [],
            to_device: items,
        })
        .expect("JSON");
        let request = client
            .put(format!("{url}/_matrix/app/v1/transactions/{number}"))
            .bearer_auth("hs-token")
            .header("content-type", "application/json");
        let answer = request.body(body).send().await.expect("answered");
        assert!(answer.status().is_success(), "{}", answer.status());
        let (answer, deleted) = oneshot::channel();
        shared
            .jobs
            .send((Work::DeleteUpTo(last), answer))
            .expect("the writer lives");
        deleted.await.expect("deleted");
    }
}

#[derive(serde::Serialize)]
struct Item<'a> {
    sender: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    to_user_id: &'a str,
    to_device_id: &'a str,
    content: &'a RawValue,
}

#[derive(serde::Serialize)]
struct Transaction<'a> {
    events: [(); 0],
    #[serde(rename = "de.sorunome.msc2409.to_device")]
    to_device: Vec<Item<'a>>,
}
