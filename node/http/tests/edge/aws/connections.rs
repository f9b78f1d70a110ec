//! Connections: shown, ended, listed, and spoken to.

use super::*;

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
