//! A bounded cache of recent answers of appservices.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::services::Interests;

use schema::ServiceId;

use super::messages::{Answer, Question};
use super::rules;
use crate::runtime::bounded::Bounded;

/// An appservice and a [`Question`] to it.
pub(super) type AskedService = Arc<(ServiceId, Question)>;

/// The most bytes of questions and answers in the cache.
const BYTES: usize = 8 << 20;

/// The cache. Times are those of [`Clock::monotonic`](crate::Clock::monotonic).
pub(super) struct AnswerCache {
    /// The answers, each with the time until which it is valid.
    answers: Bounded<AskedService, (Answer, i64)>,
    /// Endpoints that an appservice does not know, with the time until which that is assumed.
    unsupported: BTreeMap<(ServiceId, &'static str), i64>,
    registrations: Option<Arc<Interests>>,
}

impl Default for AnswerCache {
    fn default() -> AnswerCache {
        AnswerCache {
            answers: Bounded::new(BYTES, |asked, (answer, _)| size(asked, answer)),
            unsupported: BTreeMap::new(),
            registrations: None,
        }
    }
}

impl AnswerCache {
    /// Whether the cached answers were given under these registrations.
    pub(super) fn belongs_to(&self, interests: &Arc<Interests>) -> bool {
        let known = self.registrations.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(known, interests))
    }

    /// Called when new registrations are in force, perhaps with other URLs: clears the cache.
    pub(super) fn begin_with(&mut self, interests: &Arc<Interests>) {
        if !self.belongs_to(interests) {
            *self = AnswerCache {
                registrations: Some(Arc::clone(interests)),
                ..AnswerCache::default()
            };
        }
    }

    /// The cached answer, if it is still valid.
    pub(super) fn answer(&mut self, asked: &AskedService, now: i64) -> Option<Answer> {
        let (service, question) = &**asked;
        let unsupported = self
            .unsupported
            .get(&(service.clone(), question.endpoint))
            .is_some_and(|until| now < *until);
        if unsupported {
            return Some(Answer::Unsupported);
        }
        let (answer, until) = self.answers.get(asked)?;
        (now < until).then_some(answer)
    }

    /// Cache an answer for the time that the rules set.
    pub(super) fn learn(&mut self, asked: &AskedService, answer: &Answer, now: i64) {
        let (service, question) = &**asked;
        let Some(time) = rules::remembered_for(question.sharing, answer) else {
            return;
        };
        let until = now.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        if *answer == Answer::Unsupported {
            let endpoint = (service.clone(), question.endpoint);
            self.unsupported.insert(endpoint, until);
            return;
        }
        self.answers.put(Arc::clone(asked), (answer.clone(), until));
    }
}

fn size(asked: &AskedService, answer: &Answer) -> usize {
    let Question { rest, body, .. } = &asked.1;
    let text_length = match answer {
        Answer::Yes(text) | Answer::Failed(text) => text.len(),
        Answer::No | Answer::Unsupported => 0,
    };
    rest.len() + body.as_ref().map_or(0, String::len) + text_length
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn asked(user: usize) -> AskedService {
        let mut question = Question::user(user_id!("@irc_bob:test"));
        question.rest.push_str(&user.to_string());
        Arc::new(("irc".into(), question))
    }

    #[test]
    fn an_answer_is_valid_for_its_time() {
        let mut memory = AnswerCache::default();
        memory.learn(&asked(1), &Answer::No, 1_000);
        assert_eq!(memory.answer(&asked(1), 60_999), Some(Answer::No));
        assert_eq!(memory.answer(&asked(1), 61_000), None);
        assert_eq!(memory.answer(&asked(2), 1_000), None);
        // Cached again: the later end is valid, and the earlier one has no effect.
        memory.learn(&asked(1), &Answer::No, 50_000);
        memory.learn(&asked(3), &Answer::No, 61_000);
        assert_eq!(memory.answer(&asked(1), 61_000), Some(Answer::No));
    }

    #[test]
    fn an_unsupported_endpoint_is_unsupported_for_every_question() {
        let mut memory = AnswerCache::default();
        memory.learn(&asked(1), &Answer::Unsupported, 0);
        assert_eq!(memory.answer(&asked(2), 599_999), Some(Answer::Unsupported));
        assert_eq!(memory.answer(&asked(2), 600_000), None);
    }

    #[test]
    fn it_is_bounded_in_bytes() {
        let mut memory = AnswerCache::default();
        let long = Answer::Yes("x".repeat(BYTES / 3).into());
        for user in 0..4 {
            memory.learn(&asked(user), &long, 1);
            assert!(memory.answers.bytes() <= BYTES);
        }
        assert_eq!(memory.answer(&asked(0), 2), None);
        assert_eq!(memory.answer(&asked(3), 2), Some(long));
    }

    #[test]
    fn new_registrations_clear_the_cache() {
        let mut memory = AnswerCache::default();
        let (first, second) = (Arc::default(), Arc::default());
        memory.begin_with(&first);
        memory.learn(&asked(1), &Answer::No, 0);
        memory.begin_with(&first);
        assert_eq!(memory.answer(&asked(1), 1), Some(Answer::No));
        memory.begin_with(&second);
        assert!(!memory.belongs_to(&first));
        assert_eq!(memory.answer(&asked(1), 1), None);
    }
}
