//! Claims as conditions compare them: texts by name. Says nothing about whether they are true; only
//! those of verified tokens are made.

/// The claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Sorted by name.
    by_name: Box<[(Box<str>, Texts)]>,
}

type Texts = Box<[Box<str>]>;

impl Claims {
    /// The claims of a JSON object. Texts, numbers and truth values have one text, lists as many as
    /// they have such members, objects none; `null` is no claim.
    #[cfg(any(feature = "jwt", test))]
    pub(super) fn of(object: &serde_json::Map<String, serde_json::Value>) -> Self {
        let claim = |(name, value): (&String, &serde_json::Value)| {
            Some((name.as_str().into(), texts(value)?))
        };
        let mut by_name: Vec<(Box<str>, _)> = object.iter().filter_map(claim).collect();
        by_name.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Self { by_name: by_name.into() }
    }

    /// The texts of a claim; `None` where there is no such claim.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[Box<str>]> {
        let found = self.by_name.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.by_name[found].1)
    }

    /// All claims with their texts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Box<str>])> {
        self.by_name.iter().map(|(name, texts)| (&**name, &**texts))
    }
}

#[cfg(any(feature = "jwt", test))]
fn texts(value: &serde_json::Value) -> Option<Texts> {
    use serde_json::Value;
    let scalar = |value: &Value| -> Option<Box<str>> {
        match value {
            Value::String(text) => Some(text.as_str().into()),
            Value::Number(number) => Some(number.to_string().into()),
            Value::Bool(flag) => Some(flag.to_string().into()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    };
    match value {
        Value::Null => None,
        Value::Array(members) => Some(members.iter().filter_map(scalar).collect()),
        Value::Object(_) => Some(Box::default()),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            Some(scalar(value).into_iter().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_has_the_texts_that_it_is_compared_by() {
        let json = r#"{ "s": "gold", "n": 7, "f": 1.5, "b": true, "l": ["a", 1, false, null, []],
            "e": [], "o": { "a": 1 }, "z": null, "": "x" }"#;
        let claims = Claims::of(&serde_json::from_str(json).unwrap());
        let texts = |name: &str| {
            claims.get(name).map(|texts| texts.iter().map(|text| &**text).collect::<Vec<_>>())
        };
        assert_eq!(texts("s"), Some(vec!["gold"]));
        assert_eq!(texts("n"), Some(vec!["7"]));
        assert_eq!(texts("f"), Some(vec!["1.5"]));
        assert_eq!(texts("b"), Some(vec!["true"]));
        assert_eq!(texts("l"), Some(vec!["a", "1", "false"]));
        assert_eq!(texts("e"), Some(vec![]));
        assert_eq!(texts("o"), Some(vec![]));
        assert_eq!(texts("z"), None);
        assert_eq!(texts("S"), None, "names are compared exactly");
        assert_eq!(texts(""), Some(vec!["x"]));
        assert!(claims.iter().map(|(name, _)| name).eq(["", "b", "e", "f", "l", "n", "o", "s"]));
    }
}
