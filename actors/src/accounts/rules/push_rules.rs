//! Push rules: the server's defaults and a user's changes, as a pure function over ruma's rule set. ([spec])
//!
//! This server sends no push notifications: clients evaluate the rules themselves.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use ruma::UserId;
use ruma::push::{
    Action, InsertPushRuleError, NewPushRule, RemovePushRuleError, RuleKind, RuleNotFoundError,
    Ruleset,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::{Refusal, Result};

/// The account data type that holds a user's rules.
pub const KIND: &str = "m.push_rules";

/// The largest set of rules, in bytes of JSON.
const RULES_BYTES: usize = 65_536;

/// One change of a user's push rules.
#[derive(Debug, Clone, Serialize)]
pub enum PushRuleChange {
    /// Add or replace a rule, at a place given by `before` and `after`.
    Put {
        /// The rule.
        #[serde(serialize_with = "name_of")]
        rule: NewPushRule,
        /// The id of the rule to place it before.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<String>,
        /// The id of the rule to place it after.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Delete a rule; the server's default rules cannot be deleted.
    Delete {
        /// The kind of the rule.
        kind: RuleKind,
        /// The id of the rule.
        rule_id: String,
    },
    /// Enable or disable a rule.
    Enable {
        /// The kind of the rule.
        kind: RuleKind,
        /// The id of the rule.
        rule_id: String,
        /// Whether it is enabled from now on.
        enabled: bool,
    },
    /// Set the actions of a rule.
    SetActions {
        /// The kind of the rule.
        kind: RuleKind,
        /// The id of the rule.
        rule_id: String,
        /// The new actions.
        actions: Vec<Action>,
    },
}

fn name_of<S: Serializer>(rule: &NewPushRule, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}/{}", rule.kind(), rule.rule_id()))
}

/// The content of `m.push_rules`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Content {
    /// The only scope that the specification defines.
    pub global: Ruleset,
}

impl Content {
    /// The stored rules of a user, or the server's defaults.
    ///
    /// # Errors
    /// When the stored text is damaged.
    pub fn of(user: &UserId, stored: Option<&str>) -> Result<Content> {
        Ok(match stored {
            Some(json) => serde_json::from_str(json)?,
            None => Content {
                global: Ruleset::server_default(user),
            },
        })
    }

    /// The rules after a change, as JSON to store.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::InvalidParam`], [`Refusal::Unknown`], [`Refusal::TooLarge`]
    pub fn with(mut self, change: PushRuleChange) -> Result<String> {
        let rules = &mut self.global;
        match change {
            PushRuleChange::Put {
                rule,
                before,
                after,
            } => rules
                .insert(rule, after.as_deref(), before.as_deref())
                .map_err(not_placed)?,
            PushRuleChange::Delete { kind, rule_id } => {
                rules.remove(kind, rule_id).map_err(not_removed)?;
            }
            PushRuleChange::Enable {
                kind,
                rule_id,
                enabled,
            } => rules
                .set_enabled(kind, rule_id, enabled)
                .map_err(not_there)?,
            PushRuleChange::SetActions {
                kind,
                rule_id,
                actions,
            } => rules
                .set_actions(kind, rule_id, actions)
                .map_err(not_there)?,
        }
        let json = serde_json::to_string(&self)?;
        if json.len() > RULES_BYTES {
            return Err(Refusal::TooLarge("push rules have at most 64 KiB".into()).into());
        }
        Ok(json)
    }
}

fn not_placed(error: InsertPushRuleError) -> Refusal {
    let text = error.to_string().to_lowercase().into();
    match error {
        InsertPushRuleError::ServerDefaultRuleId | InsertPushRuleError::InvalidRuleId => {
            Refusal::InvalidParam(text)
        }
        _ => Refusal::Unknown(text),
    }
}

fn not_removed(error: RemovePushRuleError) -> Refusal {
    let text = error.to_string().to_lowercase().into();
    match error {
        RemovePushRuleError::NotFound => Refusal::NotFound(text),
        _ => Refusal::InvalidParam(text),
    }
}

fn not_there(_: RuleNotFoundError) -> Refusal {
    Refusal::NotFound("no such push rule".into())
}

#[cfg(test)]
mod tests {
    use ruma::push::NewPatternedPushRule;
    use ruma::user_id;

    use super::*;

    fn put(rule_id: &str, before: Option<&str>) -> PushRuleChange {
        PushRuleChange::Put {
            rule: NewPushRule::Content(NewPatternedPushRule::new(
                rule_id.to_owned(),
                "cake".to_owned(),
                vec![Action::Notify],
            )),
            before: before.map(str::to_owned),
            after: None,
        }
    }

    #[test]
    fn changes_keep_the_default_rules_and_the_order() {
        let (master, cake) = (".m.rule.master", "cake");
        let delete = |kind, id: &str| PushRuleChange::Delete {
            kind,
            rule_id: id.to_owned(),
        };
        let cases: Vec<(PushRuleChange, Result<(), Refusal>)> = vec![
            (put("tea", None), Ok(())),
            (put("tea", Some(cake)), Ok(())),
            (put(".tea", None), Err(Refusal::InvalidParam("".into()))),
            (
                put("tea", Some("nowhere")),
                Err(Refusal::Unknown("".into())),
            ),
            (delete(RuleKind::Content, cake), Ok(())),
            (
                delete(RuleKind::Content, "tea"),
                Err(Refusal::NotFound("".into())),
            ),
            (
                delete(RuleKind::Override, master),
                Err(Refusal::InvalidParam("".into())),
            ),
            (
                PushRuleChange::Enable {
                    kind: RuleKind::Override,
                    rule_id: master.to_owned(),
                    enabled: true,
                },
                Ok(()),
            ),
            (
                PushRuleChange::SetActions {
                    kind: RuleKind::Room,
                    rule_id: master.to_owned(),
                    actions: vec![],
                },
                Err(Refusal::NotFound("".into())),
            ),
        ];
        let alice = user_id!("@alice:test");
        let start = Content::of(alice, None)
            .and_then(|c| c.with(put(cake, None)))
            .expect("a first rule");
        for (change, expected) in cases {
            let shown = format!("{change:?}");
            let after = Content::of(alice, Some(&start)).and_then(|c| c.with(change));
            match (after, expected) {
                (Ok(json), Ok(())) => assert!(Content::of(alice, Some(&json)).is_ok(), "{shown}"),
                (Err(crate::Error::Refused(is)), Err(should)) => {
                    assert_eq!(
                        std::mem::discriminant(&is),
                        std::mem::discriminant(&should),
                        "{shown}"
                    );
                }
                (is, should) => panic!("{shown}: {is:?}, not {should:?}"),
            }
        }
    }
}
