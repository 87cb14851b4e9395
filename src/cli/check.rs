//! `haldane check`: what is wrong with a configuration, and what to think about.

use std::path::Path;

use serde_json::json;

use super::{
    arguments::Output,
    exit::{Exit, Failure},
};
use crate::config::{self, Compiled, Problems};

/// Checks the file. Problems and advice are data and go to standard output.
pub(super) fn run(output: Output, file: &Path) -> Result<(), Failure> {
    let checked = config::load(file, &|name| std::env::var(name).ok());
    match output {
        Output::Text => print!("{}", text(file, &checked)),
        Output::Json => println!("{:#}", document(file, &checked)),
    }
    match checked {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::new(Exit::InvalidConfig, format!("{} is invalid", file.display()))),
    }
}

fn text(file: &Path, checked: &Result<Compiled, Problems>) -> String {
    let compiled = match checked {
        Ok(compiled) => compiled,
        Err(problems) => return format!("{problems}\n"),
    };
    let mut text = format!(
        "{}: valid (listeners: {}, services: {}, routes: {}, hash: {})\n",
        file.display(),
        compiled.proxy.listeners.len(),
        compiled.routes.services().len(),
        compiled.routes.routes().len(),
        &compiled.hash[..12],
    );
    if !compiled.advice.is_empty() {
        text.push_str("to think about:\n");
    }
    for sentence in &compiled.advice {
        text.push_str(&format!("  - {sentence}\n"));
    }
    text
}

fn document(file: &Path, checked: &Result<Compiled, Problems>) -> serde_json::Value {
    match checked {
        Ok(compiled) => json!({
            "file": file.display().to_string(),
            "valid": true,
            "hash": compiled.hash,
            "problems": [],
            "advice": compiled.advice,
        }),
        Err(problems) => {
            let mut document = problems.to_json();
            document["valid"] = false.into();
            document["advice"] = json!([]);
            document
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (String, serde_json::Value) {
        let file = Path::new("haldane.yaml");
        let checked = config::compile_text(text, file, &|_| None);
        (super::text(file, &checked), document(file, &checked))
    }

    #[test]
    fn a_valid_file_says_what_it_holds_and_what_to_think_about() {
        let (text, document) = check("version: 1\nlisteners: [{ address: 127.0.0.1:0 }]\n");
        assert!(
            text.starts_with("haldane.yaml: valid (listeners: 1, services: 0, routes: 0, hash: "),
            "{text}"
        );
        assert!(text.ends_with("  - there are no routes: every request will be answered 404\n"));
        assert_eq!(document["valid"], true);
        assert_eq!(document["advice"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_invalid_file_shows_every_problem() {
        let (text, document) = check("version: 1\n");
        assert!(text.contains("`listeners` is missing") && text.ends_with("1 problem\n"), "{text}");
        assert_eq!(document["valid"], false);
        assert_eq!(document["problems"][0]["line"], 1);
    }

    #[test]
    fn an_invalid_file_has_its_own_exit_code() {
        let failure = run(Output::Text, Path::new("/nonexistent/haldane.yaml")).unwrap_err();
        assert_eq!(failure.exit, Exit::InvalidConfig);
    }
}
