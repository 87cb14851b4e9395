//! The rules of the architecture as a test: who may import whom, no cycle, a doc on every file,
//! and every configuration that we ship or print compiles.
//!
//! Reads source text; a macro that builds paths would escape it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// Every module and what it may import, in an order in which each imports only what stands above
/// it: so the table has no cycle.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("measure", &[]),
    ("judge", &[]),
    ("shutdown", &[]),
    ("plot", &[]),
    ("tls", &[]),
    ("routing", &["measure"]),
    ("proxy", &["routing", "measure", "tls", "shutdown"]),
    ("rollout", &["routing", "measure", "judge", "plot", "shutdown"]),
    ("admin", &["rollout", "routing", "measure", "shutdown"]),
    ("lab", &["judge", "rollout", "measure", "routing", "plot"]),
    ("config", &["routing", "proxy", "rollout", "admin", "lab", "tls"]),
    (
        "app",
        &[
            "measure", "judge", "shutdown", "plot", "tls", "routing", "proxy", "rollout", "admin",
            "config", "lab",
        ],
    ),
    (
        "cli",
        &[
            "measure", "judge", "shutdown", "plot", "routing", "proxy", "rollout", "admin",
            "config", "lab", "app",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Where `config` finds the settings that it fills in; of these modules it may name nothing else.
const SETTINGS: &[(&str, &str)] = &[
    ("proxy", "src/proxy/settings.rs"),
    ("rollout", "src/rollout/plan.rs"),
    ("admin", "src/admin/settings.rs"),
    ("lab", "src/lab/scenario.rs"),
];

/// Deeper than any file: nothing is reached through `super`.
const DEEP: usize = 64;

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        let module = module(&path);
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is not in the table of modules"));
        for import in imports(&text, depth(&path)) {
            if import != module && !allowed.contains(&import.as_str()) {
                broken.push(format!("{}: {module} may not import {import}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_table_of_modules_has_no_cycle() {
    let mut above = BTreeSet::new();
    for (module, imports) in MAY_IMPORT {
        for import in *imports {
            assert!(above.contains(import), "{module} imports {import}, which stands below it");
        }
        above.insert(*module);
    }
}

#[test]
fn config_names_only_settings_of_the_parts() {
    for (part, file) in SETTINGS {
        let settings = declared(&fs::read_to_string(root().join(file)).unwrap());
        assert!(!settings.is_empty(), "{file} declares nothing");
        for (path, text) in sources("src/config") {
            for name in named(&text, part) {
                assert!(
                    settings.contains(&name),
                    "{}: {part}::{name} is not declared in {file}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(folder) {
            assert!(text.starts_with("//! "), "{} has no module doc", path.display());
        }
    }
}

#[test]
fn every_shipped_configuration_compiles() {
    let mut compiled = 0;
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            compile(&fs::read_to_string(&path).unwrap(), &path);
            compiled += 1;
        }
    }
    assert!(compiled >= 3, "minimal, reference and demo are shipped");
}

#[test]
fn every_whole_configuration_in_the_documentation_compiles() {
    let block = Regex::new(r"(?s)```yaml\n(.*?)```").unwrap();
    let mut compiled = 0;
    for file in ["README.md", "ARCHITECTURE.md"] {
        let path = root().join(file);
        let text = fs::read_to_string(&path).unwrap();
        for block in block.captures_iter(&text).map(|found| found[1].to_owned()) {
            if block.starts_with("version:") {
                compile(&block, &path);
                compiled += 1;
            }
        }
    }
    assert!(compiled >= 1, "the README shows the least configuration that runs");
}

#[test]
fn imports_are_found_in_every_notation() {
    let check = |text: &str, depth: usize, expected: &[&str]| {
        let found = imports(text, depth);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{text}");
    };
    check("use crate::measure::Event;", 1, &["measure"]);
    check(
        "use crate::{\n    admin::Settings,\n    proxy::{self, Limits},\n};",
        1,
        &["admin", "proxy"],
    );
    check("fn f() -> crate::judge::Odds { crate::rollout::now() }", 1, &["judge", "rollout"]);
    check("use super::super::lab::X;", 2, &["lab"]);
    check("use super::plan::X;", 2, &[]);
    check("use super::{lab, judge::X};", 1, &["judge", "lab"]);
    check("// use crate::lab;\n/// [`crate::lab`]\nlet x = $crate::lab;", 1, &[]);
    check("pub(crate) fn f() {}", 1, &[]);
}

#[test]
fn names_of_a_part_are_found_in_every_notation() {
    let text = "use crate::{proxy::{Limits, Listen}, rollout};\nfn f(x: rollout::Plan) {}\n";
    assert_eq!(named(text, "proxy"), ["Limits", "Listen"]);
    assert_eq!(named(text, "rollout"), ["Plan"]);
    let own = "mod rollout;\nuse super::proxy::X;\nuse rollout::Judge;";
    assert_eq!(named(own, "rollout"), Vec::<String>::new());
    assert_eq!(named(own, "proxy"), Vec::<String>::new());
}

fn compile(text: &str, path: &Path) {
    if let Err(problems) = haldane::config::compile_text(text, path, &|_| None) {
        panic!("{problems}");
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// The top-level module that a file of `src` belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// How many `super` lead from a file of `src` to the root of the crate.
fn depth(path: &Path) -> usize {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let parts = inside.components().count();
    if inside.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// The top-level modules that a text names, through `crate` or through enough `super`, sorted.
/// Tests inside a file stand one module deeper; their `super` is the file itself.
fn imports(text: &str, depth: usize) -> Vec<String> {
    let code = without_comments(text);
    let production = code.split("#[cfg(test)]").next().unwrap_or_default();
    let up = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for (code, prefix) in [(code.as_str(), "crate::"), (production, up.as_str())] {
        for (place, _) in code.match_indices(prefix) {
            let before = code[..place].chars().next_back().unwrap_or(' ');
            if !(before.is_alphanumeric() || "_$:".contains(before)) {
                found.extend(heads(&code[place + prefix.len()..]));
            }
        }
    }
    found.remove("super");
    found.into_iter().collect()
}

/// What a path after `prefix::` names first: one name, or those of a group.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return identifier(rest).into_iter().collect() };
    let mut names = Vec::new();
    let mut level = 0_usize;
    let mut at_start = true;
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => at_start = true,
            letter if at_start && !letter.is_whitespace() => {
                names.extend(identifier(&group[place..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

/// The identifier that a text begins with; types and functions of the crate's root are none of
/// ours, so only lower case counts.
fn identifier(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    name.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
}

/// The names of `part` that a text uses: `part::Name`, `part::{Name, …}`. Without a prefix the word
/// means the part only where the text imports it, and else a module of its own.
fn named(text: &str, part: &str) -> Vec<String> {
    let code = without_comments(text);
    let module = part.split("::").next().unwrap();
    let imported = imports(text, DEEP).iter().any(|name| name == module);
    let path = Regex::new(&format!(r"((?:\w+::)*)\b{part}::(\{{[^}}]*\}}|\w+)")).unwrap();
    let name = Regex::new(r"\w+").unwrap();
    let mut names: Vec<String> = path
        .captures_iter(&code)
        .filter(|found| &found[1] == "crate::" || found[1].is_empty() && imported)
        .flat_map(|found| {
            name.find_iter(&found[2]).map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
        })
        .filter(|name| name != "self")
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The public types that a text declares.
fn declared(text: &str) -> Vec<String> {
    let declaration = Regex::new(r"(?m)^pub (?:struct|enum) (\w+)").unwrap();
    declaration.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .fold(String::new(), |code, line| code + line + "\n")
}
