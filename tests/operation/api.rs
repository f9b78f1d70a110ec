//! The API over a running node: filters, pages, and a stream that is taken up where it was lost.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use serde_json::{Value, json};
use umbel_tests::{Node, PATIENCE, Wire};

fn register(node: &Node, id: &str, body: &Value) {
    let json = [("content-type", "application/json")];
    let answer = node.http(
        "PUT",
        &format!("/api/v1/devices/{id}"),
        &json,
        body.to_string().as_bytes(),
    );
    assert_eq!(answer.status, 201, "{id}: {}", answer.text());
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_list_is_filtered_and_paged_without_gap_or_repetition() {
    let node = Node::start();
    for n in 0..25 {
        let site = if n % 5 == 0 { "north" } else { "south" };
        let body = json!({"type": "pump", "site": site, "tags": {"rack": (n % 2).to_string()}});
        register(&node, &format!("pump-{n:02}"), &body);
    }
    register(&node, "lamp", &json!({"type": "lamp"}));
    let _online = Wire::connected(node.at.mqtt, "pump-03", 60);

    let (mut path, mut seen, mut pages) = (
        "/api/v1/devices?type=pump&limit=10".to_owned(),
        Vec::new(),
        0,
    );
    loop {
        let page = node.get(&path);
        seen.extend(ids(&page));
        pages += 1;
        assert!(pages < 20, "the pages do not end");
        let Some(cursor) = page["next"].as_str() else {
            break;
        };
        path = format!("/api/v1/devices?type=pump&limit=10&cursor={cursor}");
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(
        seen.iter().collect::<BTreeSet<_>>().len(),
        25,
        "an id came twice"
    );
    assert!(seen.is_sorted());

    assert_eq!(ids(&node.get("/api/v1/devices?site=north")).len(), 5);
    assert_eq!(
        ids(&node.get("/api/v1/devices?site=south&tag=rack%3D1")).len(),
        10
    );
    assert_eq!(ids(&node.get("/api/v1/devices?state=online")), ["pump-03"]);
    assert_eq!(
        ids(&node.get("/api/v1/devices?state=never&type=lamp")),
        ["lamp"]
    );
    for bad in ["state=asleep", "limit=0", "cursor=rubbish", "colour=red"] {
        let answer = node.http("GET", &format!("/api/v1/devices?{bad}"), &[], b"");
        assert_eq!(answer.status, 400, "{bad}");
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .contains("problem+json"),
            "{bad}"
        );
    }
    assert_eq!(node.get("/api/v1/quarantine"), json!({"items": []}));
    let nobody = node.http("DELETE", "/api/v1/quarantine/pump-03", &[], b"");
    assert_eq!(nobody.status, 404, "{}", nobody.text());
}

/// An open event stream.
struct Events(BufReader<TcpStream>);

impl Events {
    fn after(node: &Node, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(node.at.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let resume = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(
            stream,
            "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n"
        )
        .unwrap();
        let mut events = Self(BufReader::new(stream));
        let status = events.line();
        assert!(status.contains(" 200 "), "{status}");
        // The stream says its name when it is there: what happens later is in it.
        while !events.line().starts_with(": umbel") {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// Id and text of the next event about a device.
    fn about(&mut self, device: &str) -> (String, String) {
        let mut id = String::new();
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if line.starts_with("data: ") && line.contains(device) {
                return (id, line);
            }
        }
    }
}

#[test]
fn an_event_stream_is_taken_up_where_it_was_lost() {
    let node = Node::start();
    let mut events = Events::after(&node, None);
    let _first = Wire::connected(node.at.mqtt, "door-1", 60);
    let (last, text) = events.about("door-1");
    assert!(text.contains("online"), "{text}");
    drop(events);
    let _second = Wire::connected(node.at.mqtt, "door-2", 60);
    let _third = Wire::connected(node.at.mqtt, "door-3", 60);
    let mut events = Events::after(&node, Some(&last));
    let (second, text) = events.about("door-");
    assert!(text.contains("door-2"), "{text}");
    let (third, text) = events.about("door-");
    assert!(text.contains("door-3"), "{text}");
    assert!(last < second && second < third);
}
