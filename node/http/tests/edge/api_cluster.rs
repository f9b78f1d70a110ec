//! A cluster of three on paper, and the API over it.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use umbel_http::{
    operator::{
        Alone, BackupStream, Cluster, Denied, Node, NodeState, Operator, Shard, ShardState, Token,
    },
    port::BoxFuture,
    time::Moment,
};

use crate::{
    memory::NOW,
    support::{Api, JSON},
};

/// What was asked of a cluster that carries everything out, except what it is told not to.
#[derive(Default)]
pub struct Paper {
    pub asked: Mutex<Vec<String>>,
    pub denied: Mutex<Option<Denied>>,
}

impl Paper {
    fn note(&self, what: String) -> Result<(), Denied> {
        self.asked
            .lock()
            .expect("no test panics in here")
            .push(what);
        let denied = self.denied.lock().expect("no test panics in here").clone();
        denied.map_or(Ok(()), Err)
    }
}

fn node(id: u64, state: NodeState) -> Node {
    Node {
        id,
        state,
        why: Vec::new(),
        is_me: id == 1,
        draining: false,
        address: None,
        zone: String::new(),
        roles: Vec::new(),
        version: None,
        meta: None,
        owned: 0,
        copies: 0,
        lag: 0,
        connections: 0,
        started_at: None,
    }
}

fn shard(id: u16, state: ShardState) -> Shard {
    Shard {
        id,
        state,
        why: Vec::new(),
        owner: None,
        preferred: None,
        term: None,
        copies: Vec::new(),
        planned: Vec::new(),
    }
}

impl Operator for Paper {
    fn cluster(&self) -> BoxFuture<'_, Cluster> {
        static ALONE: Alone = Alone;
        ALONE.cluster()
    }

    fn nodes(&self) -> BoxFuture<'_, Vec<Node>> {
        let nodes = vec![
            node(1, NodeState::Up),
            node(3, NodeState::Up),
            node(2, NodeState::Down),
        ];
        std::future::ready(nodes).boxed()
    }

    fn shards(&self) -> BoxFuture<'_, Vec<Shard>> {
        let shards = vec![
            shard(0, ShardState::Ok),
            shard(1, ShardState::Degraded),
            shard(2, ShardState::NoQuorum),
        ];
        std::future::ready(shards).boxed()
    }

    fn set_draining(&self, node: u64, draining: bool) -> BoxFuture<'_, Result<(), Denied>> {
        std::future::ready(self.note(format!("draining {node} {draining}"))).boxed()
    }

    fn remove(&self, node: u64, force: bool) -> BoxFuture<'_, Result<(), Denied>> {
        std::future::ready(self.note(format!("remove {node} {force}"))).boxed()
    }

    fn transfer(&self, shard: u16, node: u64) -> BoxFuture<'_, Result<(), Denied>> {
        std::future::ready(self.note(format!("transfer {shard} {node}"))).boxed()
    }

    fn create_token(&self, ttl: Duration) -> BoxFuture<'_, Result<Token, Denied>> {
        let made = self.note(format!("token {}", ttl.as_secs()));
        let token = made.map(|()| Token {
            token: "secret".to_owned(),
            expires_at: Moment(NOW),
        });
        std::future::ready(token).boxed()
    }

    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, Denied>> {
        let parts = ["one", "two"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
        let parts: BackupStream = Box::pin(stream::iter(parts));
        std::future::ready(self.note("backup".to_owned()).map(|()| parts)).boxed()
    }
}

#[tokio::test]
async fn what_is_in_trouble_comes_first() {
    let api = Api::new();
    let ids = |body: serde_json::Value| -> Vec<u64> {
        let items = body["items"].as_array().expect("a list").clone();
        items
            .iter()
            .map(|item| item["id"].as_u64().expect("a number"))
            .collect()
    };
    let nodes = api.get("/api/v1/cluster/nodes").await.json();
    assert_eq!(nodes["items"][0]["state"], "down");
    assert_eq!(ids(nodes), [2, 1, 3]);
    let shards = api.get("/api/v1/cluster/shards").await.json();
    assert_eq!(shards["items"][0]["state"], "no-quorum");
    assert_eq!(ids(shards), [2, 1, 0]);
    assert_eq!(api.get("/api/v1/cluster").await.json()["me"], 1);
}

#[tokio::test]
async fn operators_change_the_cluster_with_json_and_nothing_else() {
    let api = Api::new();
    for (path, body, status, asked) in [
        ("nodes/2/drain", "{}", 204, "draining 2 true"),
        ("nodes/2/undrain", "{}", 204, "draining 2 false"),
        ("nodes/3/remove", "{\"force\":true}", 204, "remove 3 true"),
        ("nodes/3/remove", "{}", 204, "remove 3 false"),
        ("shards/5/transfer", "{\"to\":2}", 204, "transfer 5 2"),
        ("tokens", "{\"ttl_seconds\":60}", 201, "token 60"),
        ("tokens", "{}", 201, "token 3600"),
    ] {
        let path = format!("/api/v1/cluster/{path}");
        // What a form of a foreign page could send.
        let foreign = [("content-type", "text/plain")];
        assert_eq!(api.send("POST", &path, &foreign, body).await.status, 415);
        let answer = api.send("POST", &path, &[JSON], body).await;
        assert_eq!(answer.status, status, "{path}");
        let last = api.memory.paper.asked.lock().expect("unharmed").pop();
        assert_eq!(last.as_deref(), Some(asked), "{path}");
    }
    let wrong = [
        ("shards/5/transfer", "{}"),
        ("nodes/x/drain", "{}"),
        ("tokens", "{\"ttl_seconds\":0}"),
        ("nodes/3/remove", "{\"farce\":true}"),
    ];
    for (path, body) in wrong {
        let path = format!("/api/v1/cluster/{path}");
        assert_eq!(
            api.send("POST", &path, &[JSON], body).await.status,
            400,
            "{path}"
        );
    }
    assert!(api.memory.paper.asked.lock().expect("unharmed").is_empty());
}

#[tokio::test]
async fn a_cluster_that_cannot_decide_says_so_and_when_to_ask_again() {
    let api = Api::new();
    for (denied, status, slug) in [
        (Denied::NoQuorum("2 of 3".to_owned()), 503, "no-quorum"),
        (
            Denied::Conflict("it owns shards".to_owned()),
            409,
            "conflict",
        ),
        (Denied::NotFound("no node 9".to_owned()), 404, "not-found"),
    ] {
        *api.memory.paper.denied.lock().expect("unharmed") = Some(denied);
        let path = "/api/v1/cluster/nodes/9/remove";
        let answer = api.send("POST", path, &[JSON], "{}").await;
        answer.is_problem(status, slug);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    }
}

#[tokio::test]
async fn a_backup_comes_part_by_part() {
    let answer = Api::new().get("/api/v1/cluster/backup").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.body, "onetwo");
}
