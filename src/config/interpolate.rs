//! `${NAME}`, `${NAME:-default}` and `$${` in a scalar that was already parsed, so that a value can
//! never add structure. A pure function: the environment is an argument.

use std::borrow::Cow;

/// Why a scalar could not be interpolated.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unset {
    /// What is wrong.
    pub(super) name: String,
    /// What to write instead.
    pub(super) help: String,
}

/// Replaces every `${…}` of `text`. A default is taken as it stands when the variable is unset or
/// empty, as in a shell, and is not interpolated itself.
pub(super) fn interpolate<'t>(
    text: &'t str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'t, str>, Unset> {
    let Some(first) = text.find("${") else { return Ok(Cow::Borrowed(text)) };
    let start = if text[..first].ends_with('$') { first - 1 } else { first };
    let mut out = text[..start].to_owned();
    let mut rest = &text[start..];
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some((inside, after)) = after.split_once('}') else {
                return Err(Unset {
                    name: "`${` without its `}`".to_owned(),
                    help: "write `$${` where `${` itself is meant".to_owned(),
                });
            };
            out.push_str(&value_of(inside, env)?);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn value_of(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Unset> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let first_is_digit = name.starts_with(|first: char| first.is_ascii_digit());
    let is_name = !name.is_empty()
        && !first_is_digit
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(Unset {
            name: format!("`${{{inside}}}` does not name a variable"),
            help: "write `${NAME}` or `${NAME:-default}`, and `$${` where `${` itself is meant"
                .to_owned(),
        });
    }
    match (env(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unset {
            name: format!("the variable `{name}` is not set"),
            help: format!("set it, or write `${{{name}:-default}}`"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "PORT" => Some("9001".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("a: [b], ${PORT}".to_owned()),
            _ => None,
        };
        interpolate(text, &env).map(Cow::into_owned).map_err(|unset| unset.name)
    }

    #[test]
    fn variables_and_defaults_are_put_in() {
        assert_eq!(check("127.0.0.1:${PORT}").unwrap(), "127.0.0.1:9001");
        assert_eq!(check("${NONE:-127.0.0.1:9002}").unwrap(), "127.0.0.1:9002");
        assert_eq!(check("${PORT:-1}${PORT}").unwrap(), "90019001");
        assert_eq!(check("${EMPTY:-x}|${EMPTY}").unwrap(), "x|");
        assert_eq!(check("${NONE:-}").unwrap(), "");
    }

    #[test]
    fn a_doubled_dollar_is_taken_literally() {
        assert_eq!(check("$${PORT} $5 $$ ${PORT}").unwrap(), "${PORT} $5 $$ 9001");
        assert_eq!(check("cost: $5").unwrap(), "cost: $5");
    }

    #[test]
    fn a_value_is_not_interpolated_again() {
        assert_eq!(check("${TRICKY}").unwrap(), "a: [b], ${PORT}");
    }

    #[test]
    fn what_is_unset_or_malformed_is_refused() {
        assert_eq!(check("${NONE}").unwrap_err(), "the variable `NONE` is not set");
        assert_eq!(check("${PORT").unwrap_err(), "`${` without its `}`");
        assert_eq!(check("${a b}").unwrap_err(), "`${a b}` does not name a variable");
        assert_eq!(check("${}").unwrap_err(), "`${}` does not name a variable");
    }
}
