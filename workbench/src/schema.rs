//! The JSON schema of scenario files, for editors. It is made of the types that read them.

use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, json};

use crate::format::{
    Answer, Asked, BridgeHead, Check, Decrypted, Event, Expected, Head, Needs, Olm, PersonHead,
    Receives, Registration, Request, Sync, SyncEnds, ToDevice, Transaction,
};
use crate::sentence::PATTERNS;

/// Notes the fields that a type asks for, and gives none.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("the fields are known"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// The names of the fields of a type.
fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // It always fails: the fields are what is wanted.
    let _ = T::deserialize(Fields(&mut found));
    found
}

/// The members of a request, of which it has exactly one.
const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// What a field of this name holds, in every type that has it.
fn of_field(name: &str) -> Value {
    let text = || json!({"type": "string"});
    let yes_or_no = || json!({"type": "boolean"});
    let number = || json!({"type": "integer", "minimum": 0});
    let list = |items: Value| json!({"type": "array", "items": items});
    match name {
        "title" | "by" | "from" | "to" | "device" | "type" | "room" | "state_key" | "bridge" => {
            text()
        }
        method if METHODS.contains(&method) => json!({"type": "string", "pattern": "^/"}),
        "within" => json!({"type": "string", "pattern": "^[0-9]+ ?[a-z]+$"}),
        "spec" | "versions" | "users" | "observes" | "aliases" => list(text()),
        "mscs" => list(number()),
        "status" | "answered" | "times" => number(),
        "late" | "later" | "repeated" | "from_start" | "in_any_order" => yes_or_no(),
        "registration" | "members" | "content" => json!({"type": "object"}),
        "events" | "ephemeral" | "changed" | "left" | "to_device" => json!({"type": "array"}),
        _ => json!({}),
    }
}

fn object(fields: &[&str], required: &[&str], special: &[(&str, Value)]) -> Value {
    let of = |name: &str| {
        let special = special.iter().find(|(of, _)| *of == name);
        special.map_or_else(|| of_field(name), |(_, schema)| schema.clone())
    };
    let properties: Map<String, Value> = fields
        .iter()
        .map(|name| ((*name).to_owned(), of(name)))
        .collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties, "required": required})
}

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let pointers =
        json!({"type": "object", "additionalProperties": {"type": "string", "pattern": "^(/|$)"}});
    let captures = [("capture", pointers.clone())];
    let request_fields = [
        ("capture", pointers.clone()),
        ("expect", object(fields::<Expected>(), &[], &[])),
    ];
    let of_request = |fields: &[&str], required: &[&str]| {
        let mut request = object(fields, required, &request_fields);
        request["oneOf"] = METHODS.map(|method| json!({"required": [method]})).into();
        request
    };
    let request = of_request(fields::<Request>(), &["by"]);
    let first = fields::<Request>().iter().copied();
    let first: Vec<&str> = first
        .filter(|name| !["expect", "capture"].contains(name))
        .collect();
    let first = of_request(&first, &[]);
    let steps = json!({
        "request": request,
        "to_device": object(fields::<ToDevice>(), &["by", "to", "device"], &[]),
        "olm": object(fields::<Olm>(), &["by", "to", "device", "type"], &[]),
        "decrypted": object(fields::<Decrypted>(), &["by", "from", "type"], &[captures[0].clone(), ("content", json!({}))]),
        "event": object(fields::<Event>(), &["by", "room", "type"], &[("capture", json!({"type": "string"}))]),
        "sync": object(fields::<Sync>(), &["by"], &captures),
        "sync_ends": object(fields::<SyncEnds>(), &["by"], &captures),
        "registration": object(fields::<Registration>(), &["bridge", "members"], &[]),
        "transaction": object(fields::<Transaction>(), &["to"], &captures),
        "receives": object(fields::<Receives>(), &["bridge"], &[]),
        "answer": object(fields::<Answer>(), &["bridge", "to"], &[("first", json!({"type": "array", "items": first}))]),
        "asked": object(fields::<Asked>(), &["bridge", "request"], &[("request", json!({"type": "string"}))]),
        "check": object(fields::<Check>(), &["value", "is"], &[]),
        "wait": of_field("within"),
        "server": {"enum": ["is killed", "is restarted"]},
    });
    let sentences: Vec<Value> = PATTERNS
        .iter()
        .map(|pattern| json!({"type": "string", "pattern": pattern.regex(), "description": pattern.text}))
        .collect();
    let step = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "properties": steps,
        "additionalProperties": {"anyOf": sentences},
    });
    let of_names = |schema: Value| {
        json!({
            "type": "object", "additionalProperties": schema,
            "propertyNames": {"pattern": "^[A-Za-z0-9._=-]+$", "not": {"enum": [".", "..", "anonymous"]}},
        })
    };
    let mut schema = object(
        fields::<Head>(),
        &["title", "steps"],
        &[
            ("needs", object(fields::<Needs>(), &["versions"], &[])),
            ("people", of_names(object(fields::<PersonHead>(), &[], &[]))),
            (
                "bridges",
                of_names(object(fields::<BridgeHead>(), &[], &[])),
            ),
            (
                "steps",
                json!({"type": "array", "minItems": 1, "items": step}),
            ),
        ],
    );
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("A scenario");
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_the_types_are_found() {
        assert_eq!(fields::<Check>(), ["value", "is"]);
        assert!(fields::<ToDevice>().contains(&"type"));
        let schema = schema();
        assert!(
            schema["properties"]["steps"]["items"]["properties"]["request"]["properties"]["get"]
                .is_object()
        );
    }
}
