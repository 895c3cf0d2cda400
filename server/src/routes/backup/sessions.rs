//! The session keys in a key backup as an answer, read page by page and streamed.

use std::fmt::Write as _;

use actix_web::web::Bytes;
use actors::Env;
use actors::key_store::queries::{self, SessionPage};
use futures_util::{StreamExt, stream};
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use crate::http::answer::Pieces;
use crate::http::error::Result;
use crate::state::App;

/// The session keys of all rooms or of one. An answer that fits into one page is sent in one piece; a longer one is streamed
/// page by page.
pub(super) async fn answer(
    app: &App,
    user: &UserId,
    version: String,
    room: Option<OwnedRoomId>,
) -> Result<Pieces> {
    let env = app.actors.env.clone();
    let page = queries::page(&env, user, version.clone(), room.clone(), None).await?;
    let mut writer = PageWriter::new(room.is_some());
    let begin = writer.write(&page)?;
    if page.is_last {
        return Ok(Pieces::Whole(begin));
    }
    let rest = RemainingSessions {
        env,
        user: user.to_owned(),
        version,
        room,
        after: last(&page),
        writer,
    };
    let begin = stream::iter([Ok(Bytes::from(begin))]);
    let rest = stream::try_unfold(Some(rest), |rest| async move {
        match rest {
            Some(rest) => Ok(Some(rest.next().await?)),
            None => Ok(None),
        }
    });
    Ok(Pieces::Stream(begin.chain(rest).boxed_local()))
}

/// The room and id of the last session of a page.
fn last(page: &SessionPage) -> Option<(String, String)> {
    let (room, session, _) = page.sessions.last()?;
    Some((room.clone(), session.clone()))
}

/// The part of a key backup that is not read yet.
struct RemainingSessions {
    env: Env,
    user: OwnedUserId,
    version: String,
    room: Option<OwnedRoomId>,
    after: Option<(String, String)>,
    writer: PageWriter,
}

impl RemainingSessions {
    /// The next piece of the answer, and the rest after it.
    async fn next(mut self) -> actors::Result<(Bytes, Option<RemainingSessions>)> {
        let (version, room, after) = (self.version.clone(), self.room.clone(), self.after.take());
        let page = queries::page(&self.env, &self.user, version, room, after).await?;
        let text = self.writer.write(&page)?;
        self.after = last(&page);
        Ok((Bytes::from(text), (!page.is_last).then_some(self)))
    }
}

/// Joins pages of session keys into one JSON object.
struct PageWriter {
    of_one_room: bool,
    /// Whether the start of the object has been written, and the room whose object is not closed yet.
    begun: bool,
    room: Option<String>,
}

impl PageWriter {
    fn new(of_one_room: bool) -> PageWriter {
        PageWriter {
            of_one_room,
            begun: false,
            room: None,
        }
    }

    fn write(&mut self, page: &SessionPage) -> actors::Result<String> {
        let mut text = String::new();
        if !self.begun {
            self.begun = true;
            text.push_str(if self.of_one_room {
                r#"{"sessions":{"#
            } else {
                r#"{"rooms":{"#
            });
        }
        for (room, session, json) in &page.sessions {
            let is_next = self.room.as_ref() == Some(room);
            if is_next {
                text.push(',');
            } else {
                self.open(&mut text, room)?;
            }
            text.push_str(&serde_json::to_string(session)?);
            // Writing to a `String` cannot fail.
            let _ = write!(text, ":{json}");
        }
        if page.is_last {
            let open = self.room.is_some() && !self.of_one_room;
            text.push_str(if open { "}}}}" } else { "}}" });
        }
        Ok(text)
    }

    fn open(&mut self, text: &mut String, room: &str) -> actors::Result<()> {
        if !self.of_one_room {
            if self.room.is_some() {
                text.push_str("}},");
            }
            text.push_str(&serde_json::to_string(room)?);
            text.push_str(r#":{"sessions":{"#);
        }
        self.room = Some(room.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_make_one_object() {
        let row = |room: &str, session: &str| {
            (room.to_owned(), session.to_owned(), r#"{"a":1}"#.to_owned())
        };
        let page = |sessions: Vec<_>, is_last| SessionPage { sessions, is_last };
        let write = |of_one_room, pages: &[SessionPage]| {
            let mut writer = PageWriter::new(of_one_room);
            let pieces = pages.iter().map(|page| writer.write(page).expect("text"));
            pieces.collect::<String>()
        };
        let pages = [
            page(vec![row("!a", "1"), row("!a", "2")], false),
            page(vec![row("!a", "3"), row("!b", "1")], false),
            page(vec![], true),
        ];
        assert_eq!(
            write(false, &pages),
            r#"{"rooms":{"!a":{"sessions":{"1":{"a":1},"2":{"a":1},"3":{"a":1}}},"!b":{"sessions":{"1":{"a":1}}}}}"#
        );
        let pages = [
            page(vec![row("!a", "1")], false),
            page(vec![row("!a", "2")], true),
        ];
        assert_eq!(
            write(true, &pages),
            r#"{"sessions":{"1":{"a":1},"2":{"a":1}}}"#
        );
        assert_eq!(write(false, &[page(vec![], true)]), r#"{"rooms":{}}"#);
        assert_eq!(write(true, &[page(vec![], true)]), r#"{"sessions":{}}"#);
    }
}
