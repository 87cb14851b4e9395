//! Where facts about requests come from, compiled: the files are read and checked here, so that no
//! table is put in force whose conditions could never hold.

use super::Compiling;
use crate::{
    config::{
        FactFiles, facts,
        file::{File, Geo, Jwt},
        reading::Spot,
        values::Text,
    },
    routing::{CountriesProblem, Facts, KeysProblem, TokenRules},
};

pub(super) fn compile(file: &File, compiling: &Compiling<'_, '_>) -> (Facts, FactFiles) {
    let (mut found, mut files) = (Facts::default(), FactFiles::default());
    if let Some((geo, spot)) = file.geo.located() {
        compile_geo(geo, spot, compiling, &mut found, &mut files);
    }
    if let Some((jwt, spot)) = file.jwt.located() {
        compile_jwt(jwt, spot, compiling, &mut found, &mut files);
    }
    (found, files)
}

fn compile_geo(
    geo: &Geo,
    spot: Spot,
    compiling: &Compiling<'_, '_>,
    found: &mut Facts,
    files: &mut FactFiles,
) {
    if cfg!(not(feature = "geo")) {
        compiling.problem(spot, CountriesProblem::NotInThisBuild.to_string());
        return;
    }
    if geo.database.is_absent() {
        compiling.missing(spot, "database", "write `geo: { database: country.mmdb }`");
    }
    let Some(path) = compiling.path(&geo.database) else { return };
    match facts::countries(&path) {
        Ok((source, countries)) => {
            files.database = Some(source);
            found.countries = Some(countries);
        }
        Err(problem) => compiling.problem(geo.database.spot(), problem.to_string()),
    }
}

fn compile_jwt(
    jwt: &Jwt,
    spot: Spot,
    compiling: &Compiling<'_, '_>,
    found: &mut Facts,
    files: &mut FactFiles,
) {
    if cfg!(not(feature = "jwt")) {
        compiling.problem(spot, KeysProblem::NotInThisBuild.to_string());
        return;
    }
    if jwt.jwks.is_absent() {
        compiling.missing(
            spot,
            "jwks",
            "write `jwt: { jwks: keys.json, issuer: https://id.example.com }`",
        );
    }
    if jwt.issuer.is_absent() {
        compiling.missing(spot, "issuer", "say who must have issued a token, as its `iss` does");
    }
    let issuer = jwt.issuer.get().map(|Text(issuer)| issuer.clone());
    let (Some(path), Some(issuer)) = (compiling.path(&jwt.jwks), issuer) else { return };
    let audience = jwt.audience.get().map(|Text(audience)| audience.clone());
    let rules = TokenRules { issuer, audience };
    match facts::tokens(&path, &rules) {
        Ok((source, tokens)) => {
            files.jwks = Some((source, rules));
            found.tokens = Some(tokens);
        }
        Err(problem) => compiling.problem(jwt.jwks.spot(), problem.to_string()),
    }
}
