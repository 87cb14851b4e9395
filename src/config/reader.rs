//! Reads the typed mirror of the file out of the YAML tree, by serde, without stopping at the
//! first problem: each is noted with its place and path, and what could not be read is left empty.
//!
//! Three names tell this deserializer apart from others, and only the types of `given` use them:
//! [`GIVEN`] hands out the spot of a value before the value, [`MANY`] takes one value for a list
//! of one, [`SHAPE`] picks a variant by what the node is. Unknown and repeated keys are noted here,
//! by the field names that serde passes in. Every scalar is interpolated on its way out.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
        Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    interpolate::{Unset, interpolate},
    problem::suggest,
    reading::{Reading, Spot, Step},
    yaml::{Kind, Node},
};

/// A tuple struct of this name is read as the spot of the node, then the node; nothing follows the
/// spot where the node is null or could not be read.
pub(super) const GIVEN: &str = "\0given";
/// A newtype struct of this name is read as a list; a single value is a list of one.
pub(super) const MANY: &str = "\0many";
/// An enum of this name has the variants `scalar`, `list` and `map`, or some of them.
pub(super) const SHAPE: &str = "\0shape";

/// A deserializer of one node.
#[derive(Clone, Copy)]
pub(super) struct At<'r, 't> {
    reading: &'r Reading<'t>,
    node: &'r Node<'t>,
    spot: Spot,
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It was noted where it was found.
    Noted,
    /// Not noted yet: the words of the value's own type.
    Because(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted => formatter.write_str("noted"),
            Self::Because(message) => formatter.write_str(message),
        }
    }
}

impl de::Error for Unread {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Because(message.to_string())
    }
}

impl de::StdError for Unread {}

impl<'r, 't> At<'r, 't> {
    /// A deserializer of the whole tree.
    pub(super) fn root(reading: &'r Reading<'t>, node: &'r Node<'t>) -> Self {
        Self { reading, node, spot: Spot::default() }
    }

    fn note<T>(self, message: impl Into<String>, help: Option<String>) -> Result<T, Unread> {
        self.reading.problem(self.spot, message, help);
        Err(Unread::Noted)
    }

    /// Notes what the value's own type said. Its words may carry the help behind a newline.
    fn settle<T>(self, result: Result<T, Unread>) -> Result<T, Unread> {
        match result {
            Err(Unread::Because(message)) => match message.split_once('\n') {
                Some((message, help)) => self.note(message, Some(help.to_owned())),
                None => self.note(message, None),
            },
            Ok(_) | Err(Unread::Noted) => result,
        }
    }

    fn wrong_shape<T>(self, expected: &str) -> Result<T, Unread> {
        let found = match &self.node.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Text(text) => format!("`{text}`"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        };
        self.note(format!("expected {expected}, found {found}"), None)
    }

    fn text(self) -> Result<Cow<'r, str>, Unread> {
        let Kind::Text(text) = &self.node.kind else { return self.wrong_shape("a single value") };
        match interpolate(text, self.reading.env) {
            Ok(Cow::Borrowed(same)) => Ok(Cow::Borrowed(same)),
            Ok(Cow::Owned(text)) => {
                self.reading.interpolate(&text);
                Ok(Cow::Owned(text))
            }
            Err(Unset { name, help }) => self.note(name, Some(help)),
        }
    }

    fn visit_text<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        let text = self.text()?;
        self.settle(visitor.visit_str(&text))
    }

    fn items(self, nodes: &'r [Node<'t>]) -> Items<'r, 't> {
        Items { at: self, nodes, index: 0 }
    }

    fn child(self, step: Step<'t>, node: &'r Node<'t>) -> Self {
        let spot = self.reading.spot(self.spot, step, node.place);
        Self { reading: self.reading, node, spot }
    }
}

impl<'t> Deserializer<'t> for At<'_, 't> {
    type Error = Unread;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        match &self.node.kind {
            Kind::Null => self.settle(visitor.visit_unit()),
            Kind::Text(_) => self.visit_text(visitor),
            Kind::List(_) => self.deserialize_seq(visitor),
            Kind::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        self.visit_text(visitor)
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        let Kind::List(nodes) = &self.node.kind else { return self.wrong_shape("a list") };
        self.settle(visitor.visit_seq(self.items(nodes)))
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        if name != MANY {
            return self.settle(visitor.visit_newtype_struct(self));
        }
        match &self.node.kind {
            Kind::List(nodes) => self.settle(visitor.visit_seq(self.items(nodes))),
            Kind::Null | Kind::Text(_) | Kind::Map(_) => {
                self.settle(visitor.visit_seq(Single(Some(self))))
            }
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        // Only `GIVEN` is read as a tuple struct.
        let value = (!matches!(self.node.kind, Kind::Null)).then_some(self);
        visitor.visit_seq(SpotThen { spot: Some(self.spot), value })
    }

    fn deserialize_map<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        let Kind::Map(entries) = &self.node.kind else {
            return self.wrong_shape("a map of names");
        };
        let access = Entries::new(self, entries, Keys::Names(HashSet::new()));
        self.settle(visitor.visit_map(access))
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        let Kind::Map(entries) = &self.node.kind else {
            let keys = fields.join("`, `");
            return self.wrong_shape(&format!("a map with keys out of `{keys}`"));
        };
        let access = Entries::new(self, entries, Keys::Fields { fields, seen: 0 });
        self.settle(visitor.visit_map(access))
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        if name == SHAPE {
            let (shape, word) = match &self.node.kind {
                Kind::Null => ("null", ""),
                Kind::Text(_) => ("scalar", "a single value"),
                Kind::List(_) => ("list", "a list"),
                Kind::Map(_) => ("map", "a map"),
            };
            if !variants.contains(&shape) {
                let words = variants.iter().map(|variant| match *variant {
                    "scalar" => "a single value",
                    "list" => "a list",
                    _ => "a map",
                });
                let expected = words.collect::<Vec<_>>().join(" or ");
                debug_assert!(word != expected);
                return self.wrong_shape(&expected);
            }
            return self.settle(visitor.visit_enum(Shaped { shape, at: self }));
        }
        let word = self.text()?;
        if !variants.contains(&&*word) {
            let help = suggest(&word, variants.iter().copied());
            return self.note(format!("`{word}` is none of the accepted values"), Some(help));
        }
        let word: StrDeserializer<'_, Unread> = (&*word).into_deserializer();
        self.settle(visitor.visit_enum(word))
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char string bytes byte_buf option unit
        unit_struct tuple identifier
    }
}

/// The items of a list.
struct Items<'r, 't> {
    at: At<'r, 't>,
    nodes: &'r [Node<'t>],
    index: usize,
}

impl<'t> SeqAccess<'t> for Items<'_, 't> {
    type Error = Unread;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unread> {
        let Some(node) = self.nodes.get(self.index) else { return Ok(None) };
        let child = self.at.child(Step::Index(self.index), node);
        self.index += 1;
        if matches!(node.kind, Kind::Null) {
            child.reading.problem(child.spot, "an item with nothing in it", None);
        }
        seed.deserialize(child).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.nodes.len() - self.index)
    }
}

/// One value in place of a list.
struct Single<'r, 't>(Option<At<'r, 't>>);

impl<'t> SeqAccess<'t> for Single<'_, 't> {
    type Error = Unread;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unread> {
        self.0.take().map(|at| seed.deserialize(at)).transpose()
    }
}

/// The spot of a value, then the value.
struct SpotThen<'r, 't> {
    spot: Option<Spot>,
    value: Option<At<'r, 't>>,
}

impl<'t> SeqAccess<'t> for SpotThen<'_, 't> {
    type Error = Unread;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unread> {
        if let Some(spot) = self.spot.take() {
            return seed.deserialize(spot.0.into_deserializer()).map(Some);
        }
        let Some(at) = self.value.take() else { return Ok(None) };
        match at.settle(seed.deserialize(at)) {
            Ok(value) => Ok(Some(value)),
            // It was noted; what is empty is passed over from here on.
            Err(_) => Ok(None),
        }
    }
}

/// The entries of a map.
struct Entries<'r, 't> {
    at: At<'r, 't>,
    entries: std::slice::Iter<'r, (Node<'t>, Node<'t>)>,
    keys: Keys<'r>,
    value: Option<At<'r, 't>>,
}

/// Which keys a map may have.
enum Keys<'r> {
    /// These, each once; those seen are marked by their bits.
    Fields { fields: &'static [&'static str], seen: u64 },
    /// Any, each once.
    Names(HashSet<&'r str>),
}

impl<'r, 't> Entries<'r, 't> {
    fn new(at: At<'r, 't>, entries: &'r [(Node<'t>, Node<'t>)], keys: Keys<'r>) -> Self {
        Self { at, entries: entries.iter(), keys, value: None }
    }

    /// Notes a problem with the key itself, under the path that it would have.
    fn note(&self, key: &Node<'t>, text: &str, message: String, help: Option<String>) {
        let parent = self.at.reading.path(self.at.spot);
        let path = if parent.is_empty() { text.to_owned() } else { format!("{parent}.{text}") };
        self.at.reading.problem_at(key.place, path, message, help);
    }

    /// Whether a key is known and new; what it is not is noted.
    fn admit(&mut self, key: &Node<'t>, text: &'r str) -> bool {
        let new = match &mut self.keys {
            Keys::Fields { fields, seen } => {
                let Some(index) = fields.iter().position(|field| *field == text) else {
                    let help = suggest(text, fields.iter().copied());
                    self.note(key, text, format!("unknown key `{text}`"), Some(help));
                    return false;
                };
                let bit = 1 << (index % 64);
                let new = *seen & bit == 0;
                *seen |= bit;
                new
            }
            Keys::Names(seen) => seen.insert(text),
        };
        if !new {
            self.note(key, text, format!("the key `{text}` is there twice"), None);
        }
        new
    }
}

impl<'r, 't> MapAccess<'t> for Entries<'r, 't> {
    type Error = Unread;

    fn next_key_seed<K: DeserializeSeed<'t>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unread> {
        while let Some((key, node)) = self.entries.next() {
            let Kind::Text(text) = &key.kind else {
                self.note(key, "?", "a key must be a single word".to_owned(), None);
                continue;
            };
            if !self.admit(key, text) {
                continue;
            }
            let child = self.at.child(Step::Key(text.clone()), node);
            if matches!((&self.keys, &node.kind), (Keys::Names(_), Kind::Null)) {
                child.reading.problem(child.spot, "nothing is said about it", None);
            }
            self.value = Some(child);
            let key_spot = child.reading.spot(self.at.spot, Step::Key(text.clone()), key.place);
            return seed.deserialize(Key { spot: key_spot, text }).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Unread> {
        match self.value.take() {
            Some(at) => seed.deserialize(at),
            None => Err(Unread::Because("a value was asked for before its key".to_owned())),
        }
    }
}

/// A key: text as it is, never interpolated; as a tuple struct, its spot and its text.
struct Key<'r> {
    spot: Spot,
    text: &'r str,
}

impl<'t> Deserializer<'t> for Key<'_> {
    type Error = Unread;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_str(self.text)
    }

    fn deserialize_tuple_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        visitor.visit_seq(KeyParts { spot: Some(self.spot), text: Some(self.text) })
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple map struct enum identifier ignored_any
    }
}

struct KeyParts<'r> {
    spot: Option<Spot>,
    text: Option<&'r str>,
}

impl<'t> SeqAccess<'t> for KeyParts<'_> {
    type Error = Unread;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unread> {
        if let Some(spot) = self.spot.take() {
            return seed.deserialize(spot.0.into_deserializer()).map(Some);
        }
        self.text.take().map(|text| seed.deserialize(text.into_deserializer())).transpose()
    }
}

/// A node that was taken for the variant of its shape.
struct Shaped<'r, 't> {
    shape: &'static str,
    at: At<'r, 't>,
}

impl<'r, 't> EnumAccess<'t> for Shaped<'r, 't> {
    type Error = Unread;
    type Variant = At<'r, 't>;

    fn variant_seed<V: DeserializeSeed<'t>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Unread> {
        let shape: StrDeserializer<'_, Unread> = self.shape.into_deserializer();
        Ok((seed.deserialize(shape)?, self.at))
    }
}

impl<'t> VariantAccess<'t> for At<'_, 't> {
    type Error = Unread;

    fn unit_variant(self) -> Result<(), Unread> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'t>>(self, seed: T) -> Result<T::Value, Unread> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'t>>(self, _len: usize, visitor: V) -> Result<V::Value, Unread> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'t>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        self.deserialize_struct("", fields, visitor)
    }
}
