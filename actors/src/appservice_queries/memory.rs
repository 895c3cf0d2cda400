//! What services said lately, so that they are not asked the same again at once. Bounded, and forgotten by the Clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::interests::Interests;
use schema::registration::ServiceId;

use super::messages::{Answer, Question};
use super::rules;

/// A question to one service.
pub(super) type Asked = Arc<(ServiceId, Question)>;

/// How many answers are remembered: some megabytes at most. Beyond it the one that would be forgotten next goes.
const LIMIT: usize = 10_000;

/// The memory. Times are in milliseconds since the epoch.
#[derive(Default)]
pub(super) struct Memory {
    answers: BTreeMap<Asked, (Answer, i64)>,
    /// The same in the order in which they are forgotten.
    ends: BTreeSet<(i64, Asked)>,
    /// Endpoints that a service does not have, and until when that is believed.
    unsupported: BTreeMap<(ServiceId, &'static str), i64>,
    registrations: Option<Arc<Interests>>,
}

impl Memory {
    /// What was said belongs to these registrations: others may have another URL, and everything is asked anew.
    pub(super) fn belongs_to(&mut self, interests: &Arc<Interests>) {
        if !self
            .registrations
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, interests))
        {
            *self = Memory {
                registrations: Some(Arc::clone(interests)),
                ..Memory::default()
            };
        }
    }

    /// What the service said to this, if it still counts.
    pub(super) fn answer(&self, asked: &Asked, now: i64) -> Option<Answer> {
        let (service, question) = &**asked;
        let unsupported = self
            .unsupported
            .get(&(service.clone(), question.endpoint))
            .is_some_and(|until| now < *until);
        if unsupported {
            return Some(Answer::Unsupported);
        }
        let (answer, until) = self.answers.get(asked)?;
        (now < *until).then(|| answer.clone())
    }

    /// Remember an answer for as long as the rules say.
    pub(super) fn learn(&mut self, asked: &Asked, answer: &Answer, now: i64) {
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
        let before = self
            .answers
            .insert(Arc::clone(asked), (answer.clone(), until));
        if let Some((_, end)) = before {
            self.ends.remove(&(end, Arc::clone(asked)));
        }
        self.ends.insert((until, Arc::clone(asked)));
        self.forget(now);
    }

    fn forget(&mut self, now: i64) {
        while let Some((end, asked)) = self.ends.first()
            && (*end <= now || self.answers.len() > LIMIT)
        {
            self.answers.remove(asked);
            self.ends.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn asked(user: usize) -> Asked {
        let mut question = Question::user(user_id!("@irc_bob:test"));
        question.rest.push_str(&user.to_string());
        Arc::new(("irc".into(), question))
    }

    #[test]
    fn an_answer_counts_for_its_time() {
        let mut memory = Memory::default();
        memory.learn(&asked(1), &Answer::No, 1_000);
        assert_eq!(memory.answer(&asked(1), 60_999), Some(Answer::No));
        assert_eq!(memory.answer(&asked(1), 61_000), None);
        assert_eq!(memory.answer(&asked(2), 1_000), None);
        // Learned again: the later end counts, and the earlier one takes nothing away.
        memory.learn(&asked(1), &Answer::No, 50_000);
        memory.learn(&asked(3), &Answer::No, 61_000);
        assert_eq!(memory.answer(&asked(1), 61_000), Some(Answer::No));
    }

    #[test]
    fn an_endpoint_that_is_not_there_is_not_there_for_anybody() {
        let mut memory = Memory::default();
        memory.learn(&asked(1), &Answer::Unsupported, 0);
        assert_eq!(memory.answer(&asked(2), 599_999), Some(Answer::Unsupported));
        assert_eq!(memory.answer(&asked(2), 600_000), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_counts_longest() {
        let mut memory = Memory::default();
        memory.learn(&asked(0), &Answer::failed("500"), 0);
        for user in 1..=LIMIT {
            memory.learn(&asked(user), &Answer::No, 0);
        }
        assert_eq!(memory.answers.len(), LIMIT);
        assert_eq!(memory.ends.len(), LIMIT);
        assert_eq!(memory.answer(&asked(0), 1), None);
        memory.learn(&asked(0), &Answer::No, 100_000);
        assert_eq!(memory.answers.len(), 1, "the others had their time");
    }

    #[test]
    fn other_registrations_are_asked_anew() {
        let mut memory = Memory::default();
        let (first, second) = (Arc::default(), Arc::default());
        memory.belongs_to(&first);
        memory.learn(&asked(1), &Answer::No, 0);
        memory.belongs_to(&first);
        assert_eq!(memory.answer(&asked(1), 1), Some(Answer::No));
        memory.belongs_to(&second);
        assert_eq!(memory.answer(&asked(1), 1), None);
    }
}
