use serde_json::Value;

use crate::support::Api;

async fn document() -> Value {
    let answer = Api::new().get("/api/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

#[tokio::test]
async fn the_api_describes_itself_in_openapi_3_1() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["license"]["identifier"], "Apache-2.0");
    let paths: Vec<_> = document["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        paths,
        [
            "/api/v1/clients",
            "/api/v1/clients/{id}",
            "/api/v1/cluster",
            "/api/v1/cluster/backup",
            "/api/v1/cluster/nodes",
            "/api/v1/cluster/nodes/{node}/drain",
            "/api/v1/cluster/nodes/{node}/remove",
            "/api/v1/cluster/nodes/{node}/undrain",
            "/api/v1/cluster/shards",
            "/api/v1/cluster/shards/{shard}/transfer",
            "/api/v1/cluster/tokens",
            "/api/v1/devices",
            "/api/v1/devices/{id}",
            "/api/v1/devices/{id}/shadows",
            "/api/v1/devices/{id}/shadows/{name}",
            "/api/v1/events",
            "/api/v1/quarantine",
            "/api/v1/quarantine/{id}",
            "/livez",
            "/metrics",
            "/readyz",
        ]
    );
}

#[tokio::test]
async fn every_operation_has_a_name_and_declares_its_failures() {
    let document = document().await;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let responses = operation["responses"].as_object().expect("responses");
            assert!(operation["operationId"].is_string(), "{method} {path}");
            for status in ["400", "408", "413", "431", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path}: {status}");
            }
            if matches!(method.as_str(), "put" | "patch") {
                for status in ["404", "409", "412", "415", "429"] {
                    assert!(responses.contains_key(status), "{method} {path}: {status}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_schema_that_is_referred_to_is_there() {
    let document = document().await;
    let mut missing = Vec::new();
    visit(&document, &mut |reference| {
        let pointer = reference.trim_start_matches('#');
        if document.pointer(pointer).is_none() {
            missing.push(reference.to_owned());
        }
    });
    assert!(missing.is_empty(), "{missing:?}");
}

fn visit(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found(reference);
            }
            members.values().for_each(|value| visit(value, found));
        },
        Value::Array(items) => items.iter().for_each(|value| visit(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {},
    }
}
