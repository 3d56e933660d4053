//! What differs between two reports, or any two JSON documents of the same kind: figure by figure, by names and not by places.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Fields that name an element of a list; those that it has, together, are its name.
const NAMES: [&str; 10] =
    ["name", "policy", "rival", "versus", "predictor", "estimator", "feature", "shard", "metric", "seed"];
/// Lists of plain values or points that are longer than this are compared as one.
const LONGEST_LISTED: usize = 20;

/// A figure or a text that is not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where it stands, as `closed_loop.policies[sed_tab].pooled.mean_ms`.
    pub path: String,
    /// In the first document.
    pub a: Value,
    /// In the second.
    pub b: Value,
    /// Second over first, of numbers that are not 0.
    pub ratio: Option<f64>,
}

/// All that differs.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Differences {
    /// Values that are equal.
    pub same: usize,
    /// Values that are not, in the order of their paths.
    pub changed: Vec<Change>,
    /// Paths that only the first has.
    pub only_a: Vec<String>,
    /// Paths that only the second has.
    pub only_b: Vec<String>,
}

/// Compares two documents.
pub fn differences(a: &Value, b: &Value) -> Differences {
    let [a, b] = [a, b].map(|document| {
        let mut leaves = BTreeMap::new();
        flatten("", document, &mut leaves);
        leaves
    });
    let mut found = Differences::default();
    for (path, value) in &a {
        match b.get(path) {
            None => found.only_a.push(path.clone()),
            Some(other) if other == value => found.same += 1,
            Some(other) => found.changed.push(Change {
                path: path.clone(),
                ratio: ratio(value, other),
                a: value.clone(),
                b: other.clone(),
            }),
        }
    }
    found.only_b.extend(b.keys().filter(|path| !a.contains_key(*path)).cloned());
    found
}

fn ratio(a: &Value, b: &Value) -> Option<f64> {
    let (a, b) = (a.as_f64()?, b.as_f64()?);
    (a != 0.0).then_some(b / a).filter(|ratio| ratio.is_finite())
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, leaves);
            }
        }
        Value::Array(elements) => match names_of(elements) {
            Some(names) => {
                for (name, element) in names.iter().zip(elements) {
                    flatten(&format!("{path}[{name}]"), element, leaves);
                }
            }
            None if elements.len() > LONGEST_LISTED => {
                leaves.insert(path.to_owned(), value.clone());
            }
            None => {
                for (place, element) in elements.iter().enumerate() {
                    flatten(&format!("{path}[{place}]"), element, leaves);
                }
            }
        },
        plain => {
            leaves.insert(path.to_owned(), plain.clone());
        }
    }
}

/// The names of a list's elements; `None` when some have none or share one.
fn names_of(elements: &[Value]) -> Option<Vec<String>> {
    let name = |element: &Value| {
        let fields = element.as_object()?;
        let words: Vec<String> = NAMES
            .iter()
            .filter_map(|key| match fields.get(*key)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    };
    let names: Vec<String> = elements.iter().map(name).collect::<Option<_>>()?;
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    (!names.is_empty() && sorted.windows(2).all(|pair| pair[0] != pair[1])).then_some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_known_by_name_and_not_by_place() {
        let a =
            json!({ "policies": [{ "name": "x", "mean_ms": 10.0 }, { "name": "y", "mean_ms": 20.0 }], "kept": true });
        let b = json!({ "policies": [{ "name": "y", "mean_ms": 15.0 }, { "name": "z", "mean_ms": 1 }], "kept": true });
        let found = differences(&a, &b);
        let change =
            Change { path: "policies[y].mean_ms".to_owned(), a: json!(20.0), b: json!(15.0), ratio: Some(0.75) };
        assert_eq!(found.changed, [change]);
        assert_eq!(found.same, 2, "its name and what was kept");
        assert_eq!(found.only_a, ["policies[x].mean_ms", "policies[x].name"]);
        assert_eq!(found.only_b, ["policies[z].mean_ms", "policies[z].name"]);
        assert_eq!(differences(&a, &a), Differences { same: 5, ..Differences::default() });
    }

    #[test]
    fn what_has_no_name_is_known_by_its_place_and_long_lists_are_one() {
        let twice = [json!({ "seed": 1, "x": 1 }), json!({ "seed": 1, "x": 2 })];
        let found = differences(&json!({ "l": twice }), &json!({ "l": [twice[1], twice[0]] }));
        let paths: Vec<&str> = found.changed.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["l[0].x", "l[1].x"]);
        let points: Vec<Value> = (0..100).map(|x| json!([x, 2 * x])).collect();
        let mut moved = points.clone();
        moved[7] = json!([7, 0]);
        let found = differences(&json!({ "cdf": points }), &json!({ "cdf": moved }));
        assert_eq!((found.changed.len(), found.changed[0].path.as_str(), found.changed[0].ratio), (1, "cdf", None));
    }

    #[test]
    fn a_ratio_is_of_numbers_only() {
        let of = |a: Value, b: Value| differences(&json!({ "v": a }), &json!({ "v": b })).changed[0].ratio;
        assert_eq!(of(json!(0), json!(3)), None);
        assert_eq!(of(json!("a"), json!("b")), None);
        assert_eq!(of(json!(null), json!(3)), None);
        assert_eq!(of(json!(-2), json!(3)), Some(-1.5));
    }
}
