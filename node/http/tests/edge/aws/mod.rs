//! The AWS data plane, as boto3 speaks to it.

mod connections;
mod doors;
mod messages;
mod shadows;

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
