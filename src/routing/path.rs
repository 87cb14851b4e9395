//! Normalises the path of a request: the one form that routes are matched on and that is forwarded,
//! so that the proxy and the upstream never disagree about what was asked for (RFC 3986, section
//! 6.2.2). Deliberately keeps empty segments (`/a//b`), which some upstreams give a meaning.

use std::borrow::Cow;

use super::read::escaped_byte;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It does not begin with `/`.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a '%' without two hexadecimal digits")]
    MalformedEscape,
    /// `%00`: text ends there for some upstreams.
    #[error("the path holds %00")]
    NulByte,
    /// A control character, a space, `?` or `#`, which no path holds unescaped.
    #[error("the path holds a character that must be escaped")]
    ForbiddenCharacter,
    /// `%2F` or `%5C`, where they are not wanted.
    #[error("the path holds %2F or %5C")]
    EncodedSlash,
}

/// The normal form of a path: escapes of unreserved characters decoded, all other escapes in upper
/// case, non-ASCII characters and `\` escaped, then `.` and `..` segments removed without ever
/// climbing above `/`. Empty segments stay; an empty path is `/`; `*` (of `OPTIONS`) stays as it is.
/// A path in normal form is borrowed.
///
/// # Errors
/// A [`PathProblem`] other than [`PathProblem::EncodedSlash`]; such a request is answered with 400.
pub fn normalise_path(path: &str) -> Result<Cow<'_, str>, PathProblem> {
    match path.as_bytes() {
        b"*" => Ok(Cow::Borrowed(path)),
        b"" => Ok(Cow::Owned("/".to_owned())),
        [b'/', rest @ ..] if is_normal(rest) => Ok(Cow::Borrowed(path)),
        [b'/', ..] => rewritten(&path[1..]).map(Cow::Owned),
        _ => Err(PathProblem::NotAbsolute),
    }
}

/// Refuses escaped slashes and backslashes in a path in normal form: some upstreams decode them
/// before they look for `..`.
///
/// # Errors
/// [`PathProblem::EncodedSlash`].
pub fn refuse_encoded_slashes(normal_path: &str) -> Result<(), PathProblem> {
    let mut escapes = memchr::memchr_iter(b'%', normal_path.as_bytes());
    let encoded = escapes.any(|at| {
        matches!(&normal_path.as_bytes()[at..], [_, b'2', b'F', ..] | [_, b'5', b'C', ..])
    });
    if encoded { Err(PathProblem::EncodedSlash) } else { Ok(()) }
}

/// Whether what follows the first `/` can be seen to be normal; where in doubt, `false`.
fn is_normal(rest: &[u8]) -> bool {
    let mut before = b'/';
    for (at, &byte) in rest.iter().enumerate() {
        let normal = match byte {
            b'.' => before != b'/' || !is_dot_segment(&rest[at..]),
            b'%' => is_normal_escape(&rest[at + 1..]),
            _ => is_literal(byte),
        };
        if !normal {
            return false;
        }
        before = byte;
    }
    true
}

/// Whether a segment that begins here is `.` or `..`.
fn is_dot_segment(segment: &[u8]) -> bool {
    matches!(segment, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

/// Whether the two digits behind a `%` are upper case and stand for a byte that stays escaped.
fn is_normal_escape(digits: &[u8]) -> bool {
    let upper_case = |digit: Option<&u8>| matches!(digit, Some(b'0'..=b'9' | b'A'..=b'F'));
    upper_case(digits.first())
        && upper_case(digits.get(1))
        && escaped_byte(digits).is_some_and(|byte| byte != 0 && !is_unreserved(byte))
}

fn rewritten(rest: &str) -> Result<String, PathProblem> {
    let mut out = String::with_capacity(rest.len() + 1);
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        push_segment(&mut out, segment.as_bytes())?;
        let keep = match &out[start..] {
            "/." => start,
            "/.." => out[..start].rfind('/').unwrap_or(0),
            _ => continue,
        };
        out.truncate(keep);
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

fn push_segment(out: &mut String, segment: &[u8]) -> Result<(), PathProblem> {
    let mut rest = segment;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let byte = escaped_byte(tail).ok_or(PathProblem::MalformedEscape)?;
            rest = &tail[2..];
            match byte {
                0 => return Err(PathProblem::NulByte),
                _ if is_unreserved(byte) => out.push(char::from(byte)),
                _ => push_escaped(out, byte),
            }
        } else if is_literal(first) {
            out.push(char::from(first));
        } else if first == b'\\' || !first.is_ascii() {
            push_escaped(out, first);
        } else {
            return Err(PathProblem::ForbiddenCharacter);
        }
    }
    Ok(())
}

fn push_escaped(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte is left as it stands: every visible ASCII character but the delimiters of a URI,
/// `%`, and the backslash, which browsers take for a slash.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#' | b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(path: &str, expected: &str) {
        assert_eq!(normalise_path(path).as_deref(), Ok(expected), "{path}");
    }

    #[test]
    fn dot_segments_are_removed_also_where_they_are_escaped() {
        check("/a/./b", "/a/b");
        check("/a/../b", "/b");
        check("/a/%2e%2E/b", "/b");
        check("/a/.%2e", "/");
        check("/a/b/..", "/a/");
        check("/a/b/.", "/a/b/");
        check("/..", "/");
        check("/../../etc/passwd", "/etc/passwd");
        check("/a/.../b", "/a/.../b");
        check("/a/..b", "/a/..b");
        check("/a/.b./c.", "/a/.b./c.");
    }

    #[test]
    fn empty_segments_are_kept() {
        check("/a//b/", "/a//b/");
        check("//", "//");
        check("/a//..", "/a/");
        check("/a//../b", "/a/b");
    }

    #[test]
    fn escapes_have_one_spelling() {
        check("/%7Euser", "/~user");
        check("/%7euser/%41", "/~user/A");
        check("/a%2fb", "/a%2Fb");
        check("/a%2Fb", "/a%2Fb");
        check("/%252e%252e/", "/%252e%252e/");
        check("/caf\u{e9}", "/caf%C3%A9");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/a\\..\\b", "/a%5C..%5Cb");
    }

    #[test]
    fn other_forms_of_targets() {
        check("", "/");
        check("*", "*");
        assert_eq!(normalise_path("a/b"), Err(PathProblem::NotAbsolute));
        assert_eq!(normalise_path("%2fa"), Err(PathProblem::NotAbsolute));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(normalise_path("/a%00b"), Err(PathProblem::NulByte));
        for malformed in ["/%", "/%4", "/%zz", "/%4/1", "/%+1", "/a%\u{e9}"] {
            assert_eq!(normalise_path(malformed), Err(PathProblem::MalformedEscape), "{malformed}");
        }
        for forbidden in ["/a b", "/a?b", "/a#b", "/a\0", "/a\x7f"] {
            assert_eq!(normalise_path(forbidden), Err(PathProblem::ForbiddenCharacter));
        }
    }

    #[test]
    fn encoded_slashes_can_be_refused() {
        assert_eq!(refuse_encoded_slashes("/a%2Fb"), Err(PathProblem::EncodedSlash));
        assert_eq!(refuse_encoded_slashes("/a%5C"), Err(PathProblem::EncodedSlash));
        assert_eq!(refuse_encoded_slashes("/a%C3%A9%"), Ok(()));
    }

    #[test]
    fn ordinary_paths_are_borrowed() {
        for ordinary in ["/", "/a/b.html", "/.well-known/x", "/a%20b/", "/v1/..hidden", "/a;b=c"] {
            assert!(matches!(normalise_path(ordinary), Ok(Cow::Borrowed(_))), "{ordinary}");
        }
    }

    fn any_path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just("/".to_owned()),
            Just(".".to_owned()),
            Just("%2e".to_owned()),
            Just("%2F".to_owned()),
            Just("%5c".to_owned()),
            Just("\\".to_owned()),
            Just("%25".to_owned()),
            "%[0-9a-fA-F]{2}",
            "[a-z.~é]{1,3}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn a_normal_path_is_its_own_normal_form(path in any_path()) {
            if let Ok(normal) = normalise_path(&path) {
                prop_assert_eq!(normalise_path(&normal), Ok(Cow::Borrowed(&*normal)));
            }
        }

        #[test]
        fn no_path_climbs_above_the_root(path in any_path()) {
            if let Ok(normal) = normalise_path(&path) {
                prop_assert!(normal.starts_with('/'));
                prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn what_is_borrowed_is_unchanged(path in any_path()) {
            if let Ok(Cow::Borrowed(normal)) = normalise_path(&path) {
                prop_assert_eq!(normal, &path);
            }
        }

        #[test]
        fn any_text_is_normalised_or_refused(path in "\\PC*") {
            if let Ok(normal) = normalise_path(&path) {
                prop_assert!(normal.is_ascii());
            }
        }
    }
}
