//! Reads cookies and query parameters out of a request's head, without allocating where nothing is
//! escaped. Of several cookies, parameters or fields of one name the first counts, everywhere.
//! Deliberately lenient: what is malformed is read as far as it goes, never refused.

use std::borrow::Cow;

use http::{HeaderMap, header::COOKIE};
use memchr::memchr;

/// The cookies of a request by name and raw value, over all its `Cookie` fields.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields(headers).map(|cookie| {
        let (name, value) = split_at_equals(cookie);
        (name.trim_ascii(), value)
    })
}

/// The value of a cookie without the space and the quotes around it.
pub(super) fn cookie_value(raw: &[u8]) -> &[u8] {
    match raw.trim_ascii() {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    }
}

/// The value of the first cookie of this name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    fields(headers).find_map(|cookie| {
        let rest = cookie.trim_ascii_start().strip_prefix(name.as_bytes())?.trim_ascii_start();
        let raw = if rest.is_empty() { rest } else { rest.strip_prefix(b"=")? };
        Some(cookie_value(raw))
    })
}

fn fields(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(COOKIE).iter().flat_map(|field| Parts { rest: field.as_bytes(), by: b';' })
}

/// The parameters of a query by name, decoded, and raw value.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
    Parts { rest: query.as_bytes(), by: b'&' }.map(|parameter| {
        let (name, value) = split_at_equals(parameter);
        (form_decoded(name), value)
    })
}

/// The value of the first parameter of this name.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    parameters(query?)
        .find(|(found, _)| **found == *name.as_bytes())
        .map(|(_, raw)| form_decoded(raw))
}

/// What lies between separators, empty parts left out.
struct Parts<'a> {
    rest: &'a [u8],
    by: u8,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = memchr(self.by, self.rest).unwrap_or(self.rest.len());
            let (part, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..).unwrap_or_default();
            if !part.is_empty() {
                return Some(part);
            }
        }
        None
    }
}

fn split_at_equals(pair: &[u8]) -> (&[u8], &[u8]) {
    match position_near(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[]),
    }
}

/// Where a byte is that is expected within the first few: eight at a time, which is there before a
/// search for long texts has begun.
fn position_near(byte: u8, text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, rest) = text.as_chunks();
    for (index, word) in words.iter().enumerate() {
        // The lowest top bit that is set is that of the first byte that became 0.
        let zero_where_equal = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        let found = zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & TOPS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let in_rest = rest.iter().position(|found| *found == byte)?;
    Some(words.len() * 8 + in_rest)
}

/// Text decoded as in forms: `+` is a space, `%XX` a byte, and an escape that is none stays as it
/// stands.
pub(super) fn form_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let escape = if first == b'%' { escaped_byte(tail) } else { None };
        match (first, escape) {
            (_, Some(byte)) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            (b'+', None) => {
                decoded.push(b' ');
                rest = tail;
            }
            (_, None) => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    Cow::Owned(decoded)
}

/// The byte that the two hexadecimal digits at the beginning of `digits` stand for.
pub(super) fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let high = char::from(*digits.first()?).to_digit(16)?;
    let low = char::from(*digits.get(1)?).to_digit(16)?;
    Some((high << 4 | low) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie_in(fields: &[&str], name: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, field.parse().unwrap());
        }
        cookie(&headers, name).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_cookie_is_found_in_any_of_several_fields() {
        assert_eq!(cookie_in(&["a=1; b=2", "c=3"], "c").as_deref(), Some("3"));
        assert_eq!(cookie_in(&["a=1;b=2", "c=3"], "b").as_deref(), Some("2"));
        assert_eq!(cookie_in(&["a=1"], "b"), None);
        assert_eq!(cookie_in(&[], "b"), None);
    }

    #[test]
    fn the_first_cookie_of_a_name_counts() {
        assert_eq!(cookie_in(&["a=1; a=2", "a=3"], "a").as_deref(), Some("1"));
    }

    #[test]
    fn quotes_and_spaces_around_a_cookie_are_not_its_value() {
        assert_eq!(cookie_in(&["a=\"x y\" ; b = z"], "a").as_deref(), Some("x y"));
        assert_eq!(cookie_in(&["a=\"x y\" ; b = z"], "b").as_deref(), Some("z"));
        assert_eq!(cookie_in(&["a=\""], "a").as_deref(), Some("\""));
        assert_eq!(cookie_in(&["a=x=y"], "a").as_deref(), Some("x=y"));
        assert_eq!(cookie_in(&["a; b=1"], "a").as_deref(), Some(""));
        assert_eq!(cookie_in(&["A=1"], "a"), None, "names of cookies are case-sensitive");
    }

    fn parameter_in(query: &str, name: &str) -> Option<String> {
        parameter(Some(query), name).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_parameter_is_decoded_as_forms_are() {
        assert_eq!(parameter_in("a=1&b=x%20y+z", "b").as_deref(), Some("x y z"));
        assert_eq!(parameter_in("na%6De=1", "name").as_deref(), Some("1"));
        assert_eq!(parameter_in("a=100%&b=%zz&c=%4", "a").as_deref(), Some("100%"));
        assert_eq!(parameter_in("a=100%&b=%zz&c=%4", "b").as_deref(), Some("%zz"));
        assert_eq!(parameter_in("a=100%&b=%zz&c=%4", "c").as_deref(), Some("%4"));
        assert_eq!(parameter_in("&&a&b=", "a").as_deref(), Some(""));
        assert_eq!(parameter_in("a=1&a=2", "a").as_deref(), Some("1"));
        assert_eq!(parameter(None, "a"), None);
    }

    #[test]
    fn the_first_of_several_separators_is_found_anywhere() {
        for before in 0..20 {
            let text = [&vec![0xbd; before][..], b"=<==>="].concat();
            assert_eq!(position_near(b'=', &text), Some(before));
            assert_eq!(position_near(b'=', &text[..before]), None);
        }
    }

    #[test]
    fn a_plain_parameter_is_borrowed() {
        assert!(matches!(parameter(Some("a=1&b=2"), "b"), Some(Cow::Borrowed(b"2"))));
    }
}
