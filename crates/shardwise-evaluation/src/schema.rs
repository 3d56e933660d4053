//! Writes the JSON Schema of `report.json` from the types that are written.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use shardwise_types::CostTerms;

use crate::report::ReportJson;

/// The schema of `report.json`, draft 2020-12; no object has fields that it does not name.
///
/// # Errors
/// Never, as long as the types can be described.
pub fn report_schema() -> Result<String, serde_json::Error> {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<ReportJson<'_>>().to_value();
    close(&mut schema);
    schema["title"] = "report.json of shardwise".into();
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

/// Lets objects have no other fields than those that are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object)
                && fields.get("type").is_some_and(|kind| kind == "object")
            {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// The terms of a cost, which another crate defines: an object of numbers, one for each of its fields.
pub(crate) fn cost_terms(_: &mut SchemaGenerator) -> Schema {
    let terms = serde_json::to_value(CostTerms::default()).expect("terms are plain numbers");
    let names: Vec<&String> = terms.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let number = json_schema!({ "type": "number" });
    let properties: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).clone(), number.clone().to_value())).collect();
    json_schema!({
        "description": "The additive terms of a candidate's cost, in ms.",
        "type": "object",
        "properties": properties,
        "required": names,
    })
}

/// The same where it may be missing.
pub(crate) fn optional_cost_terms(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [cost_terms(generator), { "type": "null" }] })
}
