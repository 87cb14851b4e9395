//! The building blocks of the mirror: a value with its spot, names with values, one value or many.
//! What could not be read, or was not written, is simply not there; the reader has noted why.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{
    reader::{GIVEN, MANY},
    reading::Spot,
};

/// A value that may have been given, and where.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    value: Option<T>,
    spot: Spot,
}

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self { value: None, spot: Spot::default() }
    }
}

impl<T> Given<T> {
    /// The value, where one was given and could be read.
    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The value with its spot.
    pub(super) fn located(&self) -> Option<(&T, Spot)> {
        self.value.as_ref().map(|value| (value, self.spot))
    }

    /// Where it stands; meaningless where nothing was written.
    pub(super) fn spot(&self) -> Spot {
        self.spot
    }

    /// Whether nothing was written at all. Something unreadable is neither absent nor there, so
    /// that it is complained of once.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none() && self.spot == Spot::default()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GivenVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for GivenVisitor<T> {
            type Value = Given<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Given<T>, A::Error> {
                let spot = Spot(parts.next_element()?.unwrap_or_default());
                Ok(Given { spot, value: parts.next_element()? })
            }
        }
        deserializer.deserialize_tuple_struct(GIVEN, 2, GivenVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Values by names of the operator's choice, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(Vec<(Name, Given<T>)>);

/// A name that stands as a key.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// The name.
    pub(super) text: String,
    /// Where it stands.
    pub(super) spot: Spot,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Named<T> {
    type Target = [(Name, Given<T>)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Given::<String> { value, spot } = Given::deserialize(deserializer)?;
        Ok(Self { text: value.unwrap_or_default(), spot })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": value })
    }
}

/// A list, or a single value in place of a list of one.
#[derive(Clone, Debug)]
pub(super) struct Many<T>(Vec<Given<T>>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Many<T> {
    type Target = [Given<T>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ManyVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ManyVisitor<T> {
            type Value = Many<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Many<T>, A::Error> {
                let mut list = Vec::with_capacity(items.size_hint().unwrap_or(1));
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Many(list))
            }
        }
        deserializer.deserialize_newtype_struct(MANY, ManyVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Many<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Many_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
