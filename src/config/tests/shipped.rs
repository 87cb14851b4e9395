//! What is shipped in `config/`: it compiles, it is complete, and the schema fits.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::config::{load, schema};

fn shipped(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn every_shipped_configuration_compiles() {
    let mut count = 0;
    for entry in fs::read_dir(shipped("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            load(&path, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} files");
}

#[test]
fn the_shipped_schema_is_the_generated_one() {
    let path = shipped("haldane.schema.json");
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == schema(), "run `haldane schema > config/haldane.schema.json`");
}

/// All property names of all objects in the schema.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| keys(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_reference_names_every_key() {
    let mut all = BTreeSet::new();
    keys(&serde_json::from_str(&schema()).unwrap(), &mut all);
    assert!(all.len() > 80, "the schema has only {} keys", all.len());
    let reference = fs::read_to_string(shipped("reference.yaml")).unwrap();
    let named = |key: &&String| {
        let needle = format!("{key}:");
        reference.match_indices(&needle).any(|(at, _)| {
            reference[..at]
                .chars()
                .next_back()
                .is_none_or(|before| !before.is_alphanumeric() && before != '_')
        })
    };
    let missing: Vec<&String> = all.iter().filter(|key| !named(key)).collect();
    assert!(missing.is_empty(), "reference.yaml does not name {missing:?}");
}

#[test]
fn what_the_reference_calls_defaults_are_the_defaults() {
    let compiled = load(&shipped("reference.yaml"), &|_| None).unwrap();
    assert_eq!(compiled.proxy.listeners[0].limits, crate::proxy::Limits::default());
    assert_eq!(compiled.rollout.journal, crate::rollout::JournalSettings::default());
    assert_eq!(compiled.admin.address, crate::admin::Settings::default().address);
    let least = crate::config::tests::accept(crate::config::tests::LEAST);
    let plan = |compiled: &crate::config::Compiled| {
        compiled.rollout.services[0].canaries[0].plan.clone().unwrap()
    };
    let (reference, built_in) = (plan(&compiled), plan(&least));
    assert_eq!(reference.judge, built_in.judge);
    assert_eq!(reference.inconclusive_after, built_in.inconclusive_after);
    let times = |plan: &crate::rollout::Plan| -> Vec<_> {
        plan.stages.iter().map(|stage| (stage.weight_bp, stage.at_least)).collect()
    };
    assert_eq!(times(&reference), times(&built_in));
    let pool = |compiled: &crate::config::Compiled| {
        let upstream = compiled.routes.upstreams()[0].clone();
        let idle = (upstream.idle_connections, upstream.idle_timeout);
        (upstream.max_connections, idle, upstream.connect_timeout, upstream.h2.clone())
    };
    assert_eq!(pool(&compiled), pool(&least));
    assert_eq!(compiled.proxy.drain, least.proxy.drain);
    assert_eq!(compiled.rollout.state_dir, least.rollout.state_dir);
}

/// Whether a value fits a schema, in as much of the standard as the generated one uses; the path of
/// what does not fit otherwise.
fn fit(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let Value::Object(rules) = schema else {
        return if schema == &Value::Bool(false) { Err(path.to_owned()) } else { Ok(()) };
    };
    for (rule, argument) in rules {
        let fits = |schema: &Value| fit(root, schema, value, path);
        let schemas = argument.as_array().map_or(&[] as &[Value], Vec::as_slice);
        let good = match rule.as_str() {
            "$ref" => {
                let pointer = argument.as_str().unwrap().trim_start_matches('#');
                fits(root.pointer(pointer).unwrap())?;
                true
            }
            "allOf" => {
                schemas.iter().try_for_each(fits)?;
                true
            }
            "anyOf" | "oneOf" => schemas.iter().any(|schema| fits(schema).is_ok()),
            "const" => value == argument,
            "enum" => schemas.contains(value),
            "type" if argument.is_array() => schemas.iter().any(|kind| is(kind, value)),
            "type" => is(argument, value),
            "pattern" => value.as_str().is_none_or(|text| {
                regex::Regex::new(argument.as_str().unwrap()).unwrap().is_match(text)
            }),
            "required" => value.as_object().is_none_or(|map| {
                schemas.iter().all(|key| map.contains_key(key.as_str().unwrap()))
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    fit(root, argument, item, &format!("{path}[{index}]"))?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    let own = rules.get("properties").and_then(|known| known.get(key));
                    let schema = own.or_else(|| rules.get("additionalProperties"));
                    fit(root, schema.unwrap_or(&Value::Null), item, &format!("{path}.{key}"))?;
                }
                true
            }
            "$schema" | "title" | "description" | "definitions" => true,
            other => panic!("the rule {other} is not known to this test"),
        };
        if !good {
            return Err(format!("{path}: {rule} {argument}"));
        }
    }
    Ok(())
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        other => panic!("the type {other} is not known to this test"),
    }
}

#[test]
fn every_shipped_configuration_fits_the_schema() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    for name in ["minimal.yaml", "reference.yaml", "demo.yaml"] {
        let value = serde_yaml::from_str(&fs::read_to_string(shipped(name)).unwrap()).unwrap();
        fit(&schema, &schema, &value, name).unwrap();
    }
    for wrong in
        ["{ version: 1 }", "{ version: 1, listeners: [], x: 1 }", "{ version: a, listeners: [] }"]
    {
        let value = serde_yaml::from_str(wrong).unwrap();
        assert!(fit(&schema, &schema, &value, "").is_err(), "{wrong}");
    }
}
