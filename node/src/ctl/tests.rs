//! Commands against a server of canned answers.

use std::sync::{Arc, Mutex};

use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    ctl: CtlArgs,
}

/// Answers each connection with the next of `answers` (status, body) and keeps what was asked.
async fn server(answers: Vec<(u16, &'static str)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = String::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                let read = stream.read(&mut buffer).await.expect("a request");
                request.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
            kept.lock().expect("not poisoned").push(request);
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.expect("answered");
        }
    });
    (format!("http://{address}"), asked)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().expect("a number"))
}

async fn ctl(server: &str, command: &[&str]) -> Result<Printed, Failure> {
    let arguments = ["ctl", "--server", server]
        .into_iter()
        .chain(command.iter().copied());
    let args = Cli::try_parse_from(arguments).expect("valid arguments").ctl;
    let style = Style {
        is_json: args.output == Output::Json,
        is_colored: false,
    };
    execute(&args, style).await
}

#[tokio::test]
async fn devices_are_listed_as_a_table_or_as_json() {
    let body =
        r#"{"items":[{"id":"a","state":"online","since":"2026-11-20T17:14:33.042Z","type":null}]}"#;
    let (url, asked) = server(vec![(200, body), (200, body)]).await;
    let filters = [
        "devices", "--state", "online", "--type", "camera", "--tag", "a=b c",
    ];
    let table = ctl(&url, &filters).await.expect("listed").out;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("ID  STATE   SINCE"), "{table}");
    assert!(
        lines[1].starts_with("a   online  2026-11-20T17:14:33.042Z"),
        "{table}"
    );
    let first = asked.lock().expect("not poisoned")[0].clone();
    let query = "GET /api/v1/devices?state=online&tag=a%3Db%20c&type=camera&limit=100 HTTP/1.1";
    assert!(first.starts_with(query), "{first}");
    let json = ctl(&url, &["devices", "-o", "json"])
        .await
        .expect("listed")
        .out;
    let value: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["items"][0]["id"], "a");
}

#[tokio::test]
async fn all_pages_are_read_when_asked() {
    let (url, asked) = server(vec![
        (200, r#"{"items":[{"id":"a"}],"next":"c1"}"#),
        (200, r#"{"items":[{"id":"b"}]}"#),
        (200, r#"{"items":[{"id":"a"}],"next":"c1"}"#),
    ])
    .await;
    let all = ctl(&url, &["clients", "--all"]).await.expect("listed");
    assert_eq!((all.out.lines().count(), all.note.as_str()), (3, ""));
    assert!(asked.lock().expect("not poisoned")[1].contains("cursor=c1"));
    let some = ctl(&url, &["clients", "--limit", "1"])
        .await
        .expect("listed");
    assert!(some.note.contains("there are more"));
}

#[tokio::test]
async fn a_shadow_is_merged_or_replaced_at_a_version() {
    let written = r#"{"device":"d","name":"$classic","version":4}"#;
    let (url, asked) = server(vec![(200, written), (200, written)]).await;
    let set = [
        "shadow",
        "set",
        "d",
        "--desired",
        r#"{"a":1}"#,
        "--if-version",
        "3",
    ];
    assert_eq!(ctl(&url, &set).await.expect("set").out, "version  4\n");
    let replace = [
        "shadow",
        "set",
        "d",
        "cfg",
        "--reported",
        "null",
        "--replace",
    ];
    ctl(&url, &replace).await.expect("set");
    let asked = asked.lock().expect("not poisoned");
    assert!(asked[0].starts_with("PATCH /api/v1/devices/d/shadows/%24classic HTTP/1.1"));
    assert!(asked[0].contains("if-match: \"3\"") && asked[0].ends_with(r#"{"desired":{"a":1}}"#));
    assert!(asked[0].contains("content-type: application/merge-patch+json"));
    assert!(asked[1].starts_with("PUT /api/v1/devices/d/shadows/cfg HTTP/1.1"));
    assert!(asked[1].ends_with(r#"{"reported":null}"#));
}

#[tokio::test]
async fn a_shadow_can_come_from_a_file_and_must_be_an_object() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), r#"{"a":2}"#).expect("written");
    let (url, asked) = server(vec![(200, "{}")]).await;
    let from_file = format!("@{}", file.path().display());
    ctl(&url, &["shadow", "set", "d", "--desired", &from_file])
        .await
        .expect("set");
    assert!(asked.lock().expect("not poisoned")[0].ends_with(r#"{"desired":{"a":2}}"#));
    for bad in ["7", "{", "@/no/such/file"] {
        let failure = ctl(&url, &["shadow", "set", "d", "--desired", bad]).await;
        assert_eq!(failure.expect_err(bad).exit_code(), 2);
    }
    let nothing = Cli::try_parse_from(["ctl", "shadow", "set", "d"]);
    assert!(nothing.is_err());
}

#[tokio::test]
async fn one_device_and_one_shadow_are_shown_in_full() {
    let device = r#"{"id":"a","state":"offline","flapping":true,"tags":{"k":"v"},
        "last_error":{"at":"x","message":"boom\u001b[2J"},"session":{"protocol":"5.0"}}"#;
    let shadow = r#"{"device":"a","name":"$classic","version":2,"desired":{"x":1},"reported":{},"delta":{"x":1}}"#;
    let (url, _asked) = server(vec![(200, device), (200, shadow)]).await;
    let out = ctl(&url, &["device", "a"]).await.expect("shown").out;
    for expected in ["offline (flapping)", "k=v", "5.0", "boom\u{fffd}[2J"] {
        assert!(out.contains(expected), "{out}");
    }
    let out = ctl(&url, &["shadow", "get", "a"]).await.expect("shown").out;
    assert!(
        out.contains("version  2\n") && out.contains("\ndelta\n{\n  \"x\": 1\n}\n"),
        "{out}"
    );
}

#[tokio::test]
async fn a_kick_says_what_it_did_to_people_only() {
    let (url, asked) = server(vec![(204, "")]).await;
    let printed = ctl(&url, &["kick", "a/b", "--prevent-will"])
        .await
        .expect("kicked");
    assert_eq!(
        (printed.out.as_str(), printed.note.as_str()),
        ("", "kicked a/b\n")
    );
    let first = asked.lock().expect("not poisoned")[0].clone();
    let line = "DELETE /api/v1/clients/a%2Fb?clean_session=false&prevent_will=true HTTP/1.1";
    assert!(first.starts_with(line), "{first}");
}

#[tokio::test]
async fn a_node_that_is_not_ready_shows_its_checks_and_fails() {
    let ready = r#"{"ready":true,"checks":[{"name":"storage","ok":true,"detail":"fine"}]}"#;
    let not = r#"{"ready":false,"checks":[{"name":"storage","ok":false,"detail":"full"}]}"#;
    let (url, _asked) = server(vec![(200, ready), (503, not), (503, "{}")]).await;
    assert!(
        ctl(&url, &["status"])
            .await
            .expect("ready")
            .out
            .contains("storage  ok")
    );
    let failure = ctl(&url, &["status"]).await.expect_err("not ready");
    assert!(
        failure.shown().contains("storage  FAILS  full"),
        "{}",
        failure.shown()
    );
    assert_eq!(failure.exit_code(), 1);
    assert_eq!(
        ctl(&url, &["status"])
            .await
            .expect_err("overloaded")
            .exit_code(),
        1
    );
}

#[tokio::test]
async fn the_exit_code_tells_what_kind_of_failure_it_was() {
    let problem = r#"{"type":"x","title":"Not found","detail":"there is no device `a`"}"#;
    let codes = [
        (404, 3),
        (412, 3),
        (409, 3),
        (400, 2),
        (415, 2),
        (429, 1),
        (500, 1),
        (503, 1),
    ];
    let (url, _asked) = server(codes.iter().map(|(status, _)| (*status, problem)).collect()).await;
    for (status, code) in codes {
        let failure = ctl(&url, &["device", "a"]).await.expect_err("refused");
        assert_eq!(failure.exit_code(), code, "{status}");
        assert_eq!(
            failure.to_string(),
            format!("there is no device `a` ({status})")
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let failure = ctl(&url, &["status"]).await.expect_err("nobody there");
    assert_eq!(failure.exit_code(), 1);
    let text = failure.to_string();
    assert!(
        text.starts_with(&url) && text.to_lowercase().contains("refused"),
        "{text}"
    );
}

const NODES: &str = r#"{"items":[
    {"id":2,"state":"down","why":["the link is refused"],"address":"10.0.0.2:7400","zone":"b","roles":["shards"],
     "owned":0,"copies":0,"lag":0,"connections":0,"version":null,"meta":"voter"},
    {"id":1,"state":"up","why":[],"is_me":true,"address":"10.0.0.1:7400","zone":"a","roles":["voter","shards","gateway"],
     "owned":40,"copies":64,"lag":3,"connections":7,"version":"0.1.0","meta":"leader"}]}"#;

#[tokio::test]
async fn one_look_at_the_nodes_tells_what_is_down_and_why() {
    let (url, _) = server(vec![(200, NODES)]).await;
    let table = ctl(&url, &["nodes"]).await.expect("listed").out;
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[1].starts_with('2') && lines[1].ends_with("the link is refused"),
        "{table}"
    );
    assert!(lines[2].starts_with("1*"), "{table}");
    assert!(
        lines[0].contains("OWNS") && lines[0].contains("CLIENTS"),
        "{table}"
    );
}

#[tokio::test]
async fn a_shard_shows_its_owner_and_how_far_its_copies_are() {
    let shards = r#"{"items":[{"id":9,"state":"no-quorum","why":["1 of 3 copies answers"],"owner":null,"preferred":1,
        "term":null,"planned":[1,2,3],"copies":[{"node":1,"role":"candidate","applied":5,"lag":null,"damage":null},
        {"node":2,"role":"unknown","applied":null,"lag":null,"damage":null}]},
        {"id":1,"state":"ok","why":[],"owner":1,"preferred":1,"term":4,"planned":[1],
        "copies":[{"node":1,"role":"owner","applied":5,"lag":0,"damage":null}]}]}"#;
    let (url, _) = server(vec![(200, shards), (200, shards)]).await;
    let table = ctl(&url, &["shards"]).await.expect("listed").out;
    assert!(table.contains("1 candidate, 2 unknown"), "{table}");
    assert!(table.contains("1 of 3 copies answers"), "{table}");
    let trouble = ctl(&url, &["shards", "--trouble"])
        .await
        .expect("listed")
        .out;
    assert_eq!(trouble.lines().count(), 2, "{trouble}");
}

#[tokio::test]
async fn a_drain_waits_until_nothing_is_left() {
    let left = r#"{"items":[{"id":2,"state":"draining","owned":1,"copies":1,"connections":1}]}"#;
    let empty = r#"{"items":[{"id":2,"state":"drained","owned":0,"copies":0,"connections":0}]}"#;
    let (url, asked) = server(vec![(204, ""), (200, left), (200, empty)]).await;
    let done = ctl(&url, &["drain", "2", "--wait"]).await.expect("drained");
    assert!(done.note.contains("node 2 is empty"), "{}", done.note);
    let first = asked.lock().expect("not poisoned")[0].clone();
    assert!(
        first.starts_with("POST /api/v1/cluster/nodes/2/drain "),
        "{first}"
    );
    assert!(first.contains("content-type: application/json"), "{first}");
}

#[tokio::test]
async fn a_token_is_all_that_is_printed() {
    let token = r#"{"token":"t-1","expires_at":"2026-11-20T17:14:33.042Z"}"#;
    let (url, asked) = server(vec![(201, token)]).await;
    let done = ctl(&url, &["token", "create", "--ttl", "10m"])
        .await
        .expect("made");
    assert_eq!(done.out, "t-1\n");
    assert!(asked.lock().expect("not poisoned")[0].contains(r#"{"ttl_seconds":600}"#));
}
