//! Publish and subscribe across nodes, with other people's clients.

use serde_json::{Value, json};
use umbel_tests::{Cluster, PATIENCE, Plan, Session, eventually, python};

use crate::support::NOTHING_COMES;

/// Design 6: whoever had its SUBACK gets what is published anywhere, at each quality of service.
#[test]
fn what_is_published_on_one_node_arrives_at_subscribers_of_the_others() {
    let cluster = Cluster::start();
    for qos in ["0", "1", "2"] {
        let mut readers: Vec<Session> = cluster
            .running()
            .enumerate()
            .map(|(n, node)| {
                let mut reader = node.connect(Session::new(&format!("reader-{qos}-{n}")));
                assert_eq!(reader.subscribe("site/+/door", 2), 2);
                reader
            })
            .collect();
        for (n, node) in cluster.running().enumerate() {
            let payload = format!("from {n}");
            let done =
                node.mosquitto_pub(&["-t", "site/7/door", "-m", &payload, "-q", qos, "-V", "5"]);
            assert_eq!(done.code, Some(0), "{}", done.error);
            for reader in &mut readers {
                let message = reader.message(PATIENCE).unwrap();
                assert_eq!(
                    (message.payload, message.qos.to_string().as_str()),
                    (payload.clone(), qos)
                );
            }
        }
    }
}

#[test]
fn mosquitto_receives_in_order_what_mosquitto_published_elsewhere() {
    let cluster = Cluster::start();
    for (qos, version) in [
        ("0", "311"),
        ("1", "311"),
        ("2", "311"),
        ("1", "5"),
        ("2", "5"),
    ] {
        let id = format!("sub-{qos}-{version}");
        let topic = format!("work/{qos}/{version}");
        let reader = cluster.node(0).mosquitto_sub(&[
            "-i", &id, "-t", &topic, "-q", qos, "-V", version, "-C", "20", "-W", "30",
        ]);
        eventually("the subscriber is there", || {
            let client = cluster.node(0).get(&format!("/api/v1/clients/{id}"))?;
            (client["subscriptions"].as_u64()? > 0).then_some(())
        });
        let lines: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let text = lines.join("\n") + "\n";
        let done = cluster
            .node(2)
            .mosquitto_lines(&["-t", &topic, "-q", qos, "-V", version, "-l"], &text);
        assert_eq!(done.code, Some(0), "{}", done.error);
        assert_eq!(reader.finish(), text, "qos {qos}, version {version}");
    }
}

/// One member of a shared group in the whole cluster gets each message.
#[test]
fn a_shared_group_over_three_nodes_gets_each_message_once() {
    let cluster = Cluster::start();
    let mut group: Vec<Session> = cluster
        .running()
        .enumerate()
        .map(|(n, node)| {
            let mut member = node.connect(Session::new(&format!("worker-{n}")));
            assert_eq!(member.subscribe("$share/crew/jobs/#", 1), 1);
            member
        })
        .collect();
    let mut seen = Vec::new();
    for n in 0..30 {
        let publisher = n % 3;
        let done = cluster.node(publisher).mosquitto_pub(&[
            "-t",
            "jobs/a",
            "-m",
            &n.to_string(),
            "-q",
            "1",
        ]);
        assert_eq!(done.code, Some(0), "{}", done.error);
    }
    let mut shares = [0; 3];
    for (member, share) in group.iter_mut().zip(&mut shares) {
        while let Some(message) = member.message(NOTHING_COMES) {
            seen.push(message.payload.parse::<usize>().unwrap());
            *share += 1;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<_>>(), "{shares:?}");
}

/// A shared group loses the node of a member: the others get the work.
#[test]
fn a_shared_group_goes_on_without_a_member_whose_node_died() {
    let mut cluster = Cluster::start();
    let mut group: Vec<Session> = [0, 1]
        .map(|n| {
            let mut member = cluster
                .node(n)
                .connect(Session::new(&format!("worker-{n}")));
            assert_eq!(member.subscribe("$share/crew/jobs/#", 1), 1);
            member
        })
        .into();
    cluster.node_mut(0).kill();
    let mut publisher = cluster.node(2).connect(Session::new("publisher"));
    let mut heard = 0;
    eventually("the one that is left gets every message", || {
        let code = publisher.publish("jobs/a", "x");
        if code == 0 && group[1].message(NOTHING_COMES).is_some() {
            heard += 1;
        } else {
            heard = 0;
        }
        (heard > 5).then_some(())
    });
}

/// G5: a device on one node gets the delta of what an app on another node wished, and the owner is a third.
#[test]
fn g5_a_delta_reaches_a_device_on_another_node() {
    let cluster = Cluster::start();
    for owner in cluster.indices() {
        let name = cluster.name_at(owner, "lamp");
        let mut device = cluster.node((owner + 1) % 3).connect(Session::new(&name));
        let topic = format!("$aws/things/{name}/shadow/update/delta");
        assert_eq!(device.subscribe(&topic, 1), 1);
        let mut app = cluster
            .node((owner + 2) % 3)
            .connect(Session::new(&format!("app-{owner}")));
        let accepted = format!("$aws/things/{name}/shadow/update/accepted");
        assert_eq!(app.subscribe(&accepted, 1), 1);
        for n in 1..=5 {
            let body = json!({ "state": { "desired": { "n": n } } }).to_string();
            assert_eq!(
                app.publish(&format!("$aws/things/{name}/shadow/update"), &body),
                0
            );
            let delta = device.message(PATIENCE).unwrap();
            let delta: Value = serde_json::from_str(&delta.payload).unwrap();
            assert_eq!(
                (&delta["version"], &delta["state"]["n"]),
                (&json!(n), &json!(n))
            );
            let accepted = app.message(PATIENCE).unwrap();
            assert!(accepted.topic.ends_with("/accepted"), "{accepted:?}");
        }
        // Through the API of the third node, too.
        cluster.node(owner).updated(&name, &json!({ "n": 6 }));
        assert!(
            device
                .message(PATIENCE)
                .unwrap()
                .payload
                .contains("\"version\":6")
        );
    }
}

/// G5 with Paho: a device's and an app's library, each on its node.
#[test]
fn g5_paho_sees_one_broker() {
    let cluster = Cluster::start();
    for (device, app) in [(0, 1), (1, 2), (2, 0)] {
        let ports = [device, app].map(|n| cluster.node(n).at("mqtt").port().to_string());
        let name = format!("lamp-{device}");
        let output = python(
            "paho_cluster.py",
            &[
                "--device-port",
                &ports[0],
                "--app-port",
                &ports[1],
                "--thing",
                &name,
            ],
        );
        assert!(output.ends_with("ok\n"), "{output}");
    }
}

/// G5 with the AWS SDK over mutual TLS, whichever node owns the thing.
#[test]
fn g5_the_aws_sdk_uses_shadows_through_a_node_that_does_not_own_them() {
    let cluster = Cluster::with(Plan {
        has_certificates: true,
        ..Plan::default()
    });
    for (owner, version) in [(1, "3"), (2, "5")] {
        let thing = cluster.name_at(owner, "sdk");
        let folder = cluster.issue(&thing);
        let path = |name: &str| folder.join(name).display().to_string();
        let port = cluster.node(0).at("mqtts").port().to_string();
        let (ca, cert) = (path("ca.pem"), path(&format!("{thing}.pem")));
        let key = path(&format!("{thing}.key"));
        let output = python(
            "aws_v2.py",
            &[
                "--host",
                "localhost",
                "--port",
                &port,
                "--ca",
                &ca,
                "--cert",
                &cert,
                "--key",
                &key,
                "--thing",
                &thing,
                "--version",
                version,
            ],
        );
        assert!(output.ends_with("ok\n"), "{output}");
    }
}

/// The views of operators are the cluster's, not one node's.
#[test]
fn every_node_shows_the_clients_of_all() {
    let cluster = Cluster::start();
    let sessions: Vec<Session> = cluster
        .running()
        .enumerate()
        .map(|(n, node)| node.connect(Session::new(&format!("client-{n}"))))
        .collect();
    for node in cluster.running() {
        let ids = eventually("all clients are listed", || {
            let page = node.get("/api/v1/clients?limit=100")?;
            let ids: Vec<String> = page["items"]
                .as_array()?
                .iter()
                .map(|client| client["id"].as_str().unwrap().to_owned())
                .collect();
            (ids.len() == sessions.len()).then_some(ids)
        });
        assert_eq!(ids, ["client-0", "client-1", "client-2"]);
    }
    // And any node ends any client's connection.
    let kicked = cluster
        .node(0)
        .http("DELETE", "/api/v1/clients/client-2", &[], b"")
        .unwrap();
    assert_eq!(kicked.status, 204, "{}", kicked.text());
    cluster.node(1).presence("client-2", "offline");
}
