//! The `since` and `next_batch` tokens of `/sync`.

use schema::Position;

use crate::{Refusal, Result};

/// How far a client has synced: `s<position>`, and `_<position>` if the answer held only a part of its to-device messages.
///
/// It is also a valid pagination token of a room: it points just after the event at its position. Clause: cs.sync.next
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Everything up to here was sent, except perhaps to-device messages.
    pub position: Position,
    /// To-device messages up to here were sent. At most `position` in a token from this server.
    pub to_device: Position,
}

impl Token {
    /// A token with one position for everything.
    pub fn at(position: Position) -> Token {
        Token {
            position,
            to_device: position,
        }
    }

    /// Parse a token. Clause: cs.sync.invalid-token
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an invalid token.
    pub fn parse(text: &str) -> Result<Token> {
        let number = |digits: &str| -> Option<Position> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok().map(Position)).flatten()
        };
        let parts = || {
            let text = text.strip_prefix('s')?;
            match text.split_once('_') {
                Some((position, to_device)) => Some(Token {
                    position: number(position)?,
                    to_device: number(to_device)?,
                }),
                None => number(text).map(Token::at),
            }
        };
        parts().ok_or_else(|| {
            Refusal::InvalidParam("this is not a `since` token of this server".into()).into()
        })
    }

    /// The token, limited to a head: a token can be above it after a backup was restored.
    pub fn below(self, head: Position) -> Token {
        Token {
            position: self.position.min(head),
            to_device: self.to_device.min(head),
        }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s{}", self.position)?;
        if self.to_device != self.position {
            write!(f, "_{}", self.to_device)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let cases = [
            (Token::at(Position(0)), "s0"),
            (Token::at(Position(42)), "s42"),
            (
                Token {
                    position: Position(42),
                    to_device: Position(7),
                },
                "s42_7",
            ),
        ];
        for (token, text) in cases {
            assert_eq!(token.to_string(), text);
            assert_eq!(Token::parse(text).expect("a token"), token);
        }
    }

    #[test]
    fn invalid_tokens_are_refused() {
        for text in [
            "",
            "s",
            "42",
            "s-1",
            "s+1",
            "s4_",
            "s_4",
            "s4_x",
            "s4_5_6",
            "t4",
            "s 4",
            "s99999999999999999999",
        ] {
            assert!(Token::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_above_the_head_counts_as_the_head() {
        let token = Token::parse("s90_50").expect("a token");
        assert_eq!(token.below(Position(60)).to_string(), "s60_50");
        assert_eq!(token.below(Position(40)).to_string(), "s40");
    }
}
