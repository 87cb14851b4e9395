//! The JSON schema of the file, made from the mirror: what editors complete and check by.

use schemars::generate::SchemaSettings;

use super::file::File;

/// The schema as pretty JSON with a newline at its end; `config/haldane.schema.json` is this text.
#[must_use]
pub fn schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<File>();
    // A schema is made of maps with text keys alone, so that writing it cannot fail.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
