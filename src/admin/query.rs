//! The part of an address behind its question mark: names and values, and which of them an
//! endpoint takes.

use http::{StatusCode, Uri};

use super::problem::Problem;

/// The values of an endpoint's parameters, in the order of their names.
///
/// # Errors
/// A parameter that the endpoint does not take, or that is no text.
pub(super) fn parameters<const N: usize>(
    uri: &Uri,
    names: [&str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    let pairs = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(place) = names.iter().position(|known| *known == name) else {
            let detail = format!("There is no parameter {name:?}, but {}.", names.join(", "));
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        };
        values[place] = Some(decoded(value).ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, format!("The value of {name} is not UTF-8 text."))
        })?);
    }
    Ok(values)
}

/// A value without its `+` and `%XX`.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_strange_names_refused() {
        let check = |query: &str, expected: Option<[Option<&str>; 2]>| {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            let found = parameters(&uri, ["service", "limit"]).ok();
            let expected = expected.map(|values| values.map(|value| value.map(str::to_owned)));
            assert_eq!(found, expected, "{query}");
        };
        check("", Some([None, None]));
        check("limit=5&service=a%20b+c%C3%A9", Some([Some("a b cé"), Some("5")]));
        check("limit", Some([None, Some("")]));
        check("servce=a", None);
        check("service=%f", None);
        check("service=%FF", None);
    }
}
