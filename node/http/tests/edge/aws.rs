use std::{sync::Arc, time::Duration};

use axum::Router;
use serde_json::{Value, json};
use umbel_core::{
    ids::ClientId,
    message::{Properties, Qos},
    policy::{Context, Policy},
};
use umbel_http::{
    Access, Caller, Limits, aws_router,
    model::State,
    port::{Refusal, Subscription},
    time::Moment,
};

use crate::{
    memory::{Memory, NOW, retained},
    support::{Answer, call},
};

struct Aws {
    memory: Arc<Memory>,
    router: Router,
}

impl Aws {
    fn open() -> Self {
        Self::with(&Policy::open())
    }

    fn with(policy: &Policy) -> Self {
        let memory = Memory::new();
        let client = ClientId::parse("thing-1").expect("an id");
        let mut context = Context::new(client.clone());
        context.thing = client.as_device();
        let caller = Caller {
            principal: "test".to_owned(),
            policy: policy.compile(&context),
        };
        let router = aws_router(
            Arc::<Memory>::clone(&memory),
            Access::Open(caller),
            &Limits::default(),
        );
        Self { memory, router }
    }

    async fn get(&self, uri: &str) -> Answer {
        call(&self.router, "GET", uri, &[], "").await
    }

    async fn post(&self, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        call(&self.router, "POST", uri, headers, body.to_owned()).await
    }

    async fn delete(&self, uri: &str) -> Answer {
        call(&self.router, "DELETE", uri, &[], "").await
    }
}

#[track_caller]
fn is_error(answer: &Answer, status: u16, exception: &str) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("x-amzn-errortype"), exception);
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(body["traceId"], answer.header("x-amzn-requestid"));
    body["message"].as_str().expect("a message").to_owned()
}

const SHADOW: &str = "/things/thing-1/shadow";

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
async fn what_the_edge_refuses_is_told_in_awss_words_too() {
    let aws = Aws::open();
    is_error(&aws.get("/nothing").await, 404, "ResourceNotFoundException");
    let answer = call(&aws.router, "PUT", SHADOW, &[], "").await;
    is_error(&answer, 405, "MethodNotAllowedException");
    let body = "x".repeat(300 * 1024);
    is_error(
        &aws.post(SHADOW, &[], &body).await,
        413,
        "RequestEntityTooLargeException",
    );
}

#[tokio::test]
async fn a_device_may_use_its_own_shadows_only() {
    let aws = Aws::with(&Policy::device_default());
    aws.post(SHADOW, &[], r#"{"state":{"reported":{"a":1}}}"#)
        .await;
    assert_eq!(aws.get(SHADOW).await.status, 200);
    // The same answer whether there is such a thing or not.
    let other = is_error(
        &aws.get("/things/thing-2/shadow").await,
        403,
        "ForbiddenException",
    );
    aws.memory.add_device("thing-2", "{}");
    let known = is_error(
        &aws.get("/things/thing-2/shadow").await,
        403,
        "ForbiddenException",
    );
    assert_eq!(other, known);
    is_error(
        &aws.delete("/connections/thing-2").await,
        403,
        "ForbiddenException",
    );
    is_error(
        &aws.post("/topics/other", &[], "x").await,
        403,
        "ForbiddenException",
    );
}

#[tokio::test]
async fn an_empty_policy_denies_every_operation() {
    let aws = Aws::with(&Policy::deny_all());
    for (method, uri) in [
        ("GET", SHADOW),
        ("POST", SHADOW),
        ("DELETE", SHADOW),
        ("GET", "/api/things/shadow/ListNamedShadowsForThing/thing-1"),
        ("POST", "/topics/a"),
        ("GET", "/retainedMessage/a"),
        ("GET", "/retainedMessage"),
        ("GET", "/connections/a"),
        ("DELETE", "/connections/a"),
        ("GET", "/connections/a/subscriptions"),
        ("POST", "/connections/a/messages?topic=b"),
    ] {
        let answer = call(&aws.router, method, uri, &[], "").await;
        is_error(&answer, 403, "ForbiddenException");
    }
}

#[tokio::test]
async fn without_a_certificate_nobody_is_let_in() {
    struct Nobody;
    impl umbel_http::Identify for Nobody {
        fn identify<'a>(
            &'a self,
            _: &'a [rustls::pki_types::CertificateDer<'static>],
        ) -> umbel_http::port::BoxFuture<'a, Option<Caller>> {
            Box::pin(async { None })
        }
    }
    let router = aws_router(
        Memory::new(),
        Access::Certificates(Arc::new(Nobody)),
        &Limits::default(),
    );
    is_error(
        &call(&router, "GET", SHADOW, &[], "").await,
        403,
        "ForbiddenException",
    );
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
async fn nobody_speaks_for_the_server() {
    let aws = Aws::open();
    for topic in [
        "$aws%2Fevents%2Fx",
        "$SYS%2Fx",
        "$aws%2Fthings%2Fa%2Fshadow%2Fget%2Faccepted",
    ] {
        let answer = aws.post(&format!("/topics/{topic}"), &[], "").await;
        is_error(&answer, 403, "ForbiddenException");
    }
    aws.memory.add_client("a");
    let answer = aws
        .post("/connections/a/messages?topic=$SYS%2Fx", &[], "")
        .await;
    is_error(&answer, 403, "ForbiddenException");
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

#[tokio::test]
async fn a_connection_is_shown_without_its_socket_unless_asked() {
    let aws = Aws::open();
    aws.memory.add_client("a");
    let plain = aws.get("/connections/a").await.json();
    let expected = json!({
        "clientId": "a", "connected": true, "thingName": "a", "cleanSession": false,
        "keepAliveDuration": 60, "connectedSince": NOW.millis(), "sessionExpiry": 3600
    });
    assert_eq!(plain, expected);
    let socket = aws
        .get("/connections/a?includeSocketInformation=true")
        .await
        .json();
    assert_eq!(
        (&socket["sourceIp"], &socket["sourcePort"]),
        (&json!("192.0.2.1"), &json!(4711))
    );
    is_error(
        &aws.get("/connections/b").await,
        404,
        "ResourceNotFoundException",
    );
}

#[tokio::test]
async fn a_past_connection_tells_when_and_why_it_ended() {
    let aws = Aws::open();
    aws.memory.add_client("a");
    aws.memory.with(|tables| {
        let client = tables.clients.get_mut("a").expect("a");
        client.connected = false;
        client.disconnected_at = Some(Moment(NOW));
        client.disconnect_reason = Some("CONNECTION_LOST".to_owned());
    });
    let gone = aws.get("/connections/a").await.json();
    assert_eq!(gone["disconnectedSince"], NOW.millis());
    assert_eq!(gone["disconnectReason"], "CONNECTION_LOST");
    assert_eq!(gone.get("connectedSince"), None);
    assert_eq!(State::ALL.len(), 4);
}

#[tokio::test]
async fn a_connection_is_ended_as_asked() {
    let aws = Aws::open();
    aws.memory.add_client("a/ü");
    let uri = "/connections/a%2F%C3%BC?cleanSession=TRUE&preventWillMessage=true";
    assert_eq!(aws.delete(uri).await.status, 200);
    let (id, how) = aws.memory.with(|tables| tables.kicked.remove(0));
    assert_eq!(
        (id.as_str(), how.clean_session, how.prevent_will),
        ("a/ü", true, true)
    );
    is_error(&aws.delete(uri).await, 404, "ResourceNotFoundException");
}

#[tokio::test]
async fn subscriptions_are_listed_in_pages() {
    let aws = Aws::open();
    let filters = ["a/#", "b/+", "c"];
    let all = filters.map(|filter| Subscription {
        filter: filter.to_owned(),
        qos: Qos::AtLeastOnce,
    });
    aws.memory
        .with(|tables| tables.subscriptions.insert("a".to_owned(), all.to_vec()));
    let first = aws
        .get("/connections/a/subscriptions?maxResults=2")
        .await
        .json();
    assert_eq!(
        first["subscriptions"][0],
        json!({"topicFilter": "a/#", "qos": 1})
    );
    let token = first["nextToken"].as_str().expect("more");
    let second = aws
        .get(&format!("/connections/a/subscriptions?nextToken={token}"))
        .await
        .json();
    assert_eq!(
        second,
        json!({"subscriptions": [{"topicFilter": "c", "qos": 1}]})
    );
    is_error(
        &aws.get("/connections/b/subscriptions").await,
        404,
        "ResourceNotFoundException",
    );
}

#[tokio::test]
async fn a_direct_message_goes_to_one_client() {
    let aws = Aws::open();
    for id in ["a", "mute", "deaf"] {
        aws.memory.add_client(id);
    }
    let sent = aws
        .post(
            "/connections/a/messages?topic=x%2Fy&contentType=t",
            &[],
            "1",
        )
        .await;
    assert_eq!(sent.status, 200);
    let (id, message, confirm) = aws.memory.with(|tables| tables.direct.remove(0));
    assert_eq!(
        (id.as_str(), message.topic.as_str(), confirm),
        ("a", "x/y", None)
    );
    let uri = "/connections/mute/messages?topic=x&confirmation=true&timeout=2";
    is_error(
        &aws.post(uri, &[], "").await,
        504,
        "GatewayTimeoutException",
    );
    let (_, _, confirm) = aws.memory.with(|tables| tables.direct.remove(0));
    assert_eq!(confirm, Some(Duration::from_secs(2)));
    is_error(
        &aws.post("/connections/deaf/messages?topic=x", &[], "")
            .await,
        403,
        "ForbiddenException",
    );
    is_error(
        &aws.post("/connections/b/messages?topic=x", &[], "").await,
        404,
        "ResourceNotFoundException",
    );
    is_error(
        &aws.post("/connections/a/messages", &[], "").await,
        400,
        "InvalidRequestException",
    );
    is_error(
        &aws.post("/connections/a/messages?topic=%23", &[], "").await,
        400,
        "InvalidRequestException",
    );
}
