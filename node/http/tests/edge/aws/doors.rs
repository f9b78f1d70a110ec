//! Who may do what, and what the edge refuses before anybody is asked.

use super::*;

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
