//! Texts that no operator would write: they are refused or accepted, and nothing panics.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{LEAST, compile};

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.yaml");
    fs::read_to_string(path).unwrap()
}

/// The reference with a few pieces cut out, doubled, or replaced by what means something in YAML.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "", ":", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: *a\n", "~", "!x ", "\"", "'", "${",
        "}", "%", "5", "-1", "\n", "  ", "\t", "#", "|\n", "---\n", "default", "p99", "\u{feff}",
        "é",
    ]);
    let edit = (any::<prop::sample::Index>(), 0_usize..12, piece);
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = reference().chars().collect();
        for (index, cut, piece) in edits {
            let at = index.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = compile(&text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = compile(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_slip_in_a_real_file_makes_it_panic(text in mutated()) {
        // Rendering the problems walks the text by the places that were noted.
        if let Err(problems) = compile(&text) {
            prop_assert!(!problems.to_string().is_empty());
            prop_assert!(problems.list().iter().all(|problem| problem.line > 0));
        }
    }
}

#[test]
fn aliases_cannot_blow_the_document_up() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        let list = vec![before; 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    let problems = compile(&bomb).unwrap_err();
    assert!(problems.list()[0].message.contains("aliases stand for more than"), "{problems}");
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(10_000), "- ".repeat(10_000), "{a: ".repeat(10_000)] {
        assert!(compile(&text).is_err());
    }
    let deep = format!(
        "{LEAST}cohorts: [{{ name: x, match: {}path: /{} }}]",
        "{ not: ".repeat(40),
        " }".repeat(40)
    );
    assert!(compile(&deep).is_err());
}

#[test]
fn an_empty_file_says_what_is_needed() {
    for text in ["", "# nothing\n", "~", "{}"] {
        let problems = super::refuse(text);
        assert!(
            problems.iter().any(|problem| problem.contains("`version` is missing")),
            "{problems:?}"
        );
    }
    assert!(super::refuse("just text")[0].contains("found `just text`"));
}
