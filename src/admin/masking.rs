//! The configuration as it may be shown: the document as data, without what it keeps secret.
//!
//! Works on the text before `${…}` is filled in, so values of the environment are never in it; what
//! is left to hide are defaults behind `:-`, values under keys that hold secrets, and header values
//! that a service sets. Comments are dropped with the text: they may hold anything.

use serde_json::Value;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Keys whose values are secrets wherever they stand. `key` is a file name in `tls` and the key of
/// nothing else, so it is not among them.
const SECRET_KEYS: [&str; 4] = ["salt", "token", "password", "secret"];

/// Maps from header names to values.
const HEADER_MAPS: [&str; 2] = ["set", "add"];

/// The document with its secrets masked.
///
/// # Errors
/// When the text is not YAML.
pub(crate) fn mask(text: &str) -> Result<Value, serde_yaml::Error> {
    let mut document = serde_yaml::from_str(text)?;
    hide(&mut document, false);
    Ok(document)
}

fn hide(value: &mut Value, secret: bool) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let key = key.to_ascii_lowercase();
                let inner = SECRET_KEYS.contains(&key.as_str()) || HEADER_MAPS.contains(&&*key);
                hide(value, secret || inner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secret)),
        Value::String(text) => *text = hide_text(text, secret),
        Value::Number(_) | Value::Bool(_) if secret => *value = MASK.into(),
        Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// A reference to the environment stays readable, its default does not.
fn hide_text(text: &str, secret: bool) -> String {
    if secret && !text.starts_with("${") {
        return MASK.to_owned();
    }
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        shown.push_str(if secret && !before.is_empty() { MASK } else { before });
        let (reference, after) = match reference.find('}') {
            Some(end) => reference.split_at(end),
            None => (reference, ""),
        };
        match reference.split_once(":-") {
            Some((name, _)) => shown.extend([name, ":-", MASK]),
            None => shown.push_str(reference),
        }
        rest = after;
        if let Some(after) = rest.strip_prefix('}') {
            shown.push('}');
            rest = after;
        }
    }
    shown.push_str(if secret && !rest.is_empty() { MASK } else { rest });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(mask(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn what_is_no_secret_is_shown_as_it_is() {
        check(
            "version: 1\nadmin: { token_file: /run/token }\nupstreams: { a: [\"h:1\"] }",
            r#"{"version":1,"admin":{"token_file":"/run/token"},"upstreams":{"a":["h:1"]}}"#,
        );
    }

    #[test]
    fn salts_are_masked_in_every_notation() {
        check("salt: abc # abc", r#"{"salt":"***"}"#);
        check("{ a: { \"salt\": 123 } }", r#"{"a":{"salt":"***"}}"#);
        check("salt: |\n  abc\n  def\n", r#"{"salt":"***"}"#);
    }

    #[test]
    fn references_stay_readable_and_their_defaults_do_not() {
        check("salt: \"${SALT:-checkout}\"", r#"{"salt":"${SALT:-***}"}"#);
        check("salt: \"${SALT}x\"", r#"{"salt":"${SALT}***"}"#);
        check("a: \"b-${X:-1}-${Y}-c\"", r#"{"a":"b-${X:-***}-${Y}-c"}"#);
    }

    #[test]
    fn header_values_are_masked_and_their_names_are_not() {
        check(
            "request_headers: { set: { authorization: Bearer x }, remove: [x-a] }",
            r#"{"request_headers":{"set":{"authorization":"***"},"remove":["x-a"]}}"#,
        );
    }

    #[test]
    fn a_default_with_braces_does_not_leak_its_tail() {
        let shown = mask("salt: \"${A:-x}yz\"").unwrap().to_string();
        assert!(!shown.contains("yz"), "{shown}");
    }
}
