//! Publishing, and retained messages.

use super::*;

#[tokio::test]
async fn a_publish_carries_topic_qos_retain_and_properties() {
    let aws = Aws::open();
    let uri = "/topics/a%2Fb%20c%2F%C3%BC?qos=1&retain=true&contentType=t%2Fx&responseTopic=r%2Fs&messageExpiry=5";
    let headers = [
        ("x-amz-mqtt5-user-properties", "Ilt7XCJhXCI6XCJiXCJ9XSI="),
        ("x-amz-mqtt5-payload-format-indicator", "UTF8_DATA"),
        ("x-amz-mqtt5-correlation-data", "YQ=="),
    ];
    let answer = aws.post(uri, &headers, "hello").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["message"], "OK");
    let message = aws.memory.with(|tables| tables.published.remove(0));
    assert_eq!(message.topic, "a/b c/ü");
    assert_eq!((message.qos, message.retain), (Qos::AtLeastOnce, true));
    assert_eq!(message.payload, "hello");
    assert_eq!(message.expires_at, Some(NOW + Duration::from_secs(5)));
    let expected = Properties {
        payload_is_utf8: Some(true),
        content_type: Some("t/x".to_owned()),
        response_topic: Some("r/s".to_owned()),
        correlation_data: Some("a".into()),
        user: vec![("a".to_owned(), "b".to_owned())],
    };
    assert_eq!(message.properties.as_deref(), Some(&expected));
}

#[tokio::test]
async fn a_topic_may_be_sent_without_escapes() {
    let aws = Aws::open();
    assert_eq!(aws.post("/topics/a/b/c", &[], "").await.status, 200);
    let message = aws.memory.with(|tables| tables.published.remove(0));
    assert_eq!(message.topic, "a/b/c");
    assert_eq!((message.qos, message.retain), (Qos::AtMostOnce, false));
    assert_eq!(message.properties, None);
}

#[tokio::test]
async fn a_publish_that_makes_no_sense_is_refused() {
    let aws = Aws::open();
    for uri in [
        "/topics/a%2F%23",
        "/topics/a%2F%2B",
        "/topics/%00",
        "/topics/a?qos=2",
        "/topics/a?retain=1",
        "/topics/a?messageExpiry=0",
        "/topics/a?messageExpiry=x",
        "/topics/a?responseTopic=a%2F%2B",
    ] {
        is_error(
            &aws.post(uri, &[], "").await,
            400,
            "InvalidRequestException",
        );
    }
    for (name, value) in [
        ("x-amz-mqtt5-user-properties", "e30="),
        ("x-amz-mqtt5-payload-format-indicator", "TEXT"),
        ("x-amz-mqtt5-correlation-data", "?"),
    ] {
        is_error(
            &aws.post("/topics/a", &[(name, value)], "").await,
            400,
            "InvalidRequestException",
        );
    }
    let large = "x".repeat(128 * 1024 + 1);
    is_error(
        &aws.post("/topics/a", &[], &large).await,
        413,
        "RequestEntityTooLargeException",
    );
    is_error(
        &aws.post("/topics/", &[], "").await,
        404,
        "ResourceNotFoundException",
    );
    assert!(aws.memory.with(|tables| tables.published.is_empty()));
}

#[tokio::test]
async fn retained_messages_are_read_and_listed() {
    let aws = Aws::open();
    aws.memory.with(|tables| {
        for topic in ["a/b", "a/c", "b"] {
            tables
                .retained
                .insert(topic.to_owned(), retained(topic, "payload"));
        }
    });
    let one = aws.get("/retainedMessage/a%2Fb").await.json();
    let expected = json!({
        "topic": "a/b", "payload": "cGF5bG9hZA==", "qos": 1,
        "lastModifiedTime": NOW.millis(), "userProperties": null
    });
    assert_eq!(one, expected);
    is_error(
        &aws.get("/retainedMessage/x").await,
        404,
        "ResourceNotFoundException",
    );
    is_error(
        &aws.get("/retainedMessage/%23").await,
        400,
        "InvalidRequestException",
    );
    let first = aws.get("/retainedMessage?maxResults=2").await.json();
    let summary =
        json!({"topic": "a/b", "payloadSize": 7, "qos": 1, "lastModifiedTime": NOW.millis()});
    assert_eq!(first["retainedTopics"][0], summary);
    let token = first["nextToken"].as_str().expect("more");
    let second = aws
        .get(&format!("/retainedMessage?nextToken={token}"))
        .await
        .json();
    assert_eq!(second["retainedTopics"][0]["topic"], "b");
    assert_eq!(second.get("nextToken"), None::<&Value>);
    is_error(
        &aws.get("/retainedMessage?maxResults=201").await,
        400,
        "InvalidRequestException",
    );
}
