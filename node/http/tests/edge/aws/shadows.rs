//! Shadows over HTTP.

use super::*;

#[tokio::test]
async fn a_shadow_is_updated_read_and_deleted() {
    let aws = Aws::open();
    let body = r#"{"state":{"desired":{"a":1}},"clientToken":"t"}"#;
    let updated = aws.post(SHADOW, &[], body).await;
    assert_eq!(updated.status, 200);
    assert_eq!(updated.header("content-type"), "application/json");
    assert_eq!(updated.json()["version"], 1);
    assert_eq!(updated.json()["clientToken"], "t");
    let read = aws.get(SHADOW).await.json();
    assert_eq!(
        read["state"],
        json!({"desired": {"a": 1}, "delta": {"a": 1}})
    );
    assert_eq!(read["timestamp"], NOW.seconds());
    let deleted = aws.delete(SHADOW).await;
    assert_eq!(
        (deleted.status, &deleted.json()["version"]),
        (200, &json!(1))
    );
}

#[tokio::test]
async fn shadow_errors_have_awss_exceptions_and_words() {
    let aws = Aws::open();
    let message = is_error(&aws.get(SHADOW).await, 404, "ResourceNotFoundException");
    assert_eq!(message, "No shadow exists with name: 'thing-1'");
    let message = is_error(
        &aws.get(&format!("{SHADOW}?name=n")).await,
        404,
        "ResourceNotFoundException",
    );
    assert_eq!(message, "No shadow exists with name: 'n'");
    let message = is_error(
        &aws.post(SHADOW, &[], "{}").await,
        400,
        "InvalidRequestException",
    );
    assert_eq!(message, "Missing required node: state");
    let conflict = aws.post(SHADOW, &[], r#"{"state":{},"version":5}"#).await;
    assert_eq!(
        is_error(&conflict, 409, "ConflictException"),
        "Version conflict"
    );
    let large = format!(
        r#"{{"state":{{"desired":{{"a":"{}"}}}}}}"#,
        "x".repeat(9000)
    );
    is_error(
        &aws.post(SHADOW, &[], &large).await,
        413,
        "RequestEntityTooLargeException",
    );
    let latin1 = call(&aws.router, "POST", SHADOW, &[], vec![b'"', 0xe4, b'"']).await;
    is_error(&latin1, 415, "UnsupportedDocumentEncodingException");
}

#[tokio::test]
async fn names_are_checked_because_boto3_does_not() {
    let aws = Aws::open();
    for uri in [
        "/things/a%20b/shadow",
        "/things/%FF/shadow",
        &format!("/things/{}/shadow", "x".repeat(129)),
        "/things/a/shadow?name=",
        "/things/a/shadow?name=a%2Fb",
        "/connections/%24x",
    ] {
        is_error(&aws.get(uri).await, 400, "InvalidRequestException");
    }
    // AWS's own named shadows have a dollar sign, and boto3 escapes it.
    is_error(
        &aws.get(&format!("{SHADOW}?name=%24package")).await,
        404,
        "ResourceNotFoundException",
    );
}

#[tokio::test]
async fn refusals_of_the_fleet_have_exceptions() {
    let aws = Aws::open();
    for (refusal, status, exception, waits) in [
        (Refusal::TooManyInFlight, 429, "ThrottlingException", true),
        (
            Refusal::Overloaded,
            503,
            "ServiceUnavailableException",
            true,
        ),
        (Refusal::NotOwner, 503, "ServiceUnavailableException", true),
        (
            Refusal::StorageFull,
            503,
            "ServiceUnavailableException",
            true,
        ),
        (
            Refusal::TooLarge,
            413,
            "RequestEntityTooLargeException",
            false,
        ),
        (
            Refusal::Internal("x".to_owned()),
            500,
            "InternalFailureException",
            false,
        ),
    ] {
        aws.memory.with(|tables| tables.refusal = Some(refusal));
        let answer = aws.get(SHADOW).await;
        is_error(&answer, status, exception);
        assert_eq!(!answer.header("retry-after").is_empty(), waits);
    }
}

#[tokio::test]
async fn named_shadows_are_listed_in_pages() {
    let aws = Aws::open();
    for name in ["c", "a", "b"] {
        aws.post(&format!("{SHADOW}?name={name}"), &[], r#"{"state":{}}"#)
            .await;
    }
    aws.post(SHADOW, &[], r#"{"state":{}}"#).await;
    let list = "/api/things/shadow/ListNamedShadowsForThing";
    let first = aws.get(&format!("{list}/thing-1?pageSize=2")).await.json();
    assert_eq!(first["results"], json!(["a", "b"]));
    assert_eq!(first["timestamp"], NOW.seconds());
    let token = first["nextToken"].as_str().expect("more");
    let second = aws
        .get(&format!("{list}/thing-1?nextToken={token}"))
        .await
        .json();
    assert_eq!(
        second,
        json!({"results": ["c"], "timestamp": NOW.seconds()})
    );
    assert_eq!(
        aws.get(&format!("{list}/nobody")).await.json()["results"],
        json!([])
    );
    for bad in ["pageSize=0", "pageSize=101", "nextToken=x"] {
        is_error(
            &aws.get(&format!("{list}/thing-1?{bad}")).await,
            400,
            "InvalidRequestException",
        );
    }
}
