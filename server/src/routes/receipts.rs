//! How far users have read.

use actors::ask;
use actors::rooms::{Mark, MarkKind, MarkRead};
use ruma::OwnedEventId;
use ruma::api::client::read_marker::set_read_marker;
use ruma::api::client::receipt::create_receipt;
use ruma::events::receipt::ReceiptThread;

use crate::app::App;
use crate::caller::Caller;
use crate::error::{Error, Result};
use crate::ruma::Routes;

/// This section's endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(receipt).on(markers)
}

/// Say that one has read up to an event.
///
/// `POST /_matrix/client/*/rooms/{roomId}/receipt/{receiptType}/{eventId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
async fn receipt(
    app: App,
    caller: Caller,
    request: create_receipt::v3::Request,
) -> Result<create_receipt::v3::Response> {
    let kind = match request.receipt_type {
        create_receipt::v3::ReceiptType::Read => MarkKind::Read,
        create_receipt::v3::ReceiptType::ReadPrivate => MarkKind::ReadPrivate,
        create_receipt::v3::ReceiptType::FullyRead => MarkKind::FullyRead,
        other => {
            return Err(Error::invalid_param(format!(
                "unknown receipt type {other}"
            )));
        }
    };
    let thread = match request.thread {
        ReceiptThread::Unthreaded => String::new(),
        // The read marker is the same in all threads.
        _ if kind == MarkKind::FullyRead => {
            return Err(Error::invalid_param("the read marker knows no threads"));
        }
        thread => thread.as_str().unwrap_or_default().to_owned(),
    };
    let mark = Mark {
        kind,
        event: request.event_id,
        thread,
    };
    let marks = MarkRead {
        by: caller.identity()?.clone(),
        room: request.room_id,
        marks: vec![mark],
    };
    ask(&app.actors.rooms, marks).await?;
    Ok(create_receipt::v3::Response::new())
}

/// Move the read marker, and receipts with it.
///
/// `POST /_matrix/client/*/rooms/{roomId}/read_markers` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers
async fn markers(
    app: App,
    caller: Caller,
    request: set_read_marker::v3::Request,
) -> Result<set_read_marker::v3::Response> {
    let mark = |kind, event: Option<OwnedEventId>| {
        event.map(|event| Mark {
            kind,
            event,
            thread: String::new(),
        })
    };
    let marks = [
        mark(MarkKind::FullyRead, request.fully_read),
        mark(MarkKind::Read, request.read_receipt),
        mark(MarkKind::ReadPrivate, request.private_read_receipt),
    ];
    let marks = MarkRead {
        by: caller.identity()?.clone(),
        room: request.room_id,
        marks: marks.into_iter().flatten().collect(),
    };
    ask(&app.actors.rooms, marks).await?;
    Ok(set_read_marker::v3::Response::new())
}
