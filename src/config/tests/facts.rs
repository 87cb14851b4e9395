//! Countries and claims: what is read, and what is said about files of no use.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::config::{Compiled, Problems, compile_text};

/// A public key of P-256 for signatures.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// A directory with `country.mmdb` and `keys.json`.
pub(super) fn add_to(directory: &Path) {
    let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/country-de.mmdb");
    fs::copy(database, directory.join("country.mmdb")).unwrap();
    fs::write(directory.join("keys.json"), KEYS).unwrap();
}

fn scene() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    add_to(directory.path());
    directory
}

fn compile(directory: &TempDir, sections: &str) -> Result<Compiled, Problems> {
    let text = format!("version: 1\nlisteners: [{{ address: 127.0.0.1:0 }}]\n{sections}\n");
    compile_text(&text, &directory.path().join("haldane.yaml"), &|_| None)
}

/// Problems as `line:column path: message (help)`, the directory left out.
fn problems(directory: &TempDir, sections: &str) -> Vec<String> {
    let problems = compile(directory, sections).expect_err("it was accepted");
    let here = format!("{}/", directory.path().display());
    let show = |problem: &crate::config::Problem| {
        let help = problem.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
        let crate::config::Problem { line, column, path, message, .. } = problem;
        format!("{line}:{column} {path}: {message}{help}").replace(&here, "")
    };
    problems.list().iter().map(show).collect()
}

#[test]
fn databases_and_keys_are_read_with_the_configuration() {
    let directory = scene();
    let both = "geo: { database: country.mmdb }
jwt: { jwks: keys.json, issuer: https://id.example, audience: shop }";
    let compiled = compile(&directory, both).unwrap();
    let facts = compiled.routes.facts();
    let country = |address: [u8; 4]| facts.countries.as_ref().unwrap().country(address.into());
    assert_eq!(country([203, 0, 113, 7]).unwrap().to_string(), "DE");
    assert_eq!(country([192, 0, 2, 7]), None);
    assert_eq!(facts.tokens.as_ref().unwrap().keys(), 1);
    let paths: Vec<_> = compiled.facts.sources().map(|source| source.path.clone()).collect();
    assert_eq!(paths, ["country.mmdb", "keys.json"].map(|name| directory.path().join(name)));
}

#[test]
fn files_of_no_use_are_named_where_they_are_written() {
    let directory = scene();
    fs::write(directory.path().join("secret.json"), r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#)
        .unwrap();
    assert_eq!(
        problems(&directory, "geo: { database: none.mmdb }"),
        ["3:18 geo.database: none.mmdb: No such file or directory (os error 2)"]
    );
    let wrong = problems(&directory, "geo: { database: keys.json }");
    assert!(
        wrong[0].starts_with("3:18 geo.database: keys.json is no database in MaxMind's format: "),
        "{wrong:?}"
    );
    assert_eq!(
        problems(&directory, "jwt: { jwks: secret.json, issuer: i }"),
        ["3:14 jwt.jwks: secret.json none of its 1 keys can be used: RSA of 2048 to 8192 bits, \
          P-256, P-384 and Ed25519 can, if they are public and for signatures"]
    );
    let wrong = problems(&directory, "jwt: { jwks: country.mmdb, issuer: i }");
    assert!(
        wrong[0].starts_with("3:14 jwt.jwks: country.mmdb is no JSON Web Key Set: "),
        "{wrong:?}"
    );
}

#[test]
fn what_is_missing_is_asked_for() {
    let directory = scene();
    assert_eq!(
        problems(&directory, "geo: {}\njwt: { audience: shop }"),
        [
            "3:6 geo: `database` is missing (write `geo: { database: country.mmdb }`)",
            "4:6 jwt: `jwks` is missing (write `jwt: { jwks: keys.json, issuer: \
             https://id.example.com }`)",
            "4:6 jwt: `issuer` is missing (say who must have issued a token, as its `iss` does)",
        ]
    );
    let matching =
        "cohorts: [{ name: a, match: { country: DE, jwt_claim: { name: b, exact: c } } }]";
    let path = "cohorts[0].match";
    assert_eq!(
        problems(&directory, matching),
        [
            format!(
                "3:40 {path}.country: no request has a country (write `geo: {{ database: \
                 country.mmdb }}` at the top of the file)"
            ),
            format!(
                "3:55 {path}.jwt_claim: no request has a claim (write `jwt: {{ jwks: keys.json, \
                 issuer: … }}` at the top of the file)"
            ),
        ]
    );
}

#[test]
fn a_file_that_went_bad_leaves_what_it_held_before_and_the_other_is_renewed() {
    let directory = scene();
    let both = "geo: { database: country.mmdb }\njwt: { jwks: keys.json, issuer: i }";
    let compiled = compile(&directory, both).unwrap();
    let (mut files, mut facts) = (compiled.facts.clone(), compiled.routes.facts().clone());
    assert!(files.renew(&mut facts).is_empty());
    assert!(facts == *compiled.routes.facts(), "the same content is the same");
    fs::write(directory.path().join("keys.json"), "{").unwrap();
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/country-fr.mmdb");
    fs::copy(other, directory.path().join("country.mmdb")).unwrap();
    let problems = files.renew(&mut facts);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().contains("keys.json is no JSON Web Key Set"));
    let country = facts.countries.as_ref().unwrap().country([203, 0, 113, 7].into());
    assert_eq!(country.unwrap().to_string(), "FR");
    assert_eq!(facts.tokens.as_ref().unwrap().keys(), 1);
    assert!(facts != *compiled.routes.facts());
}
