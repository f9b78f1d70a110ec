//! Behind a balancer: haproxy passes TLS through and says with PROXY protocol v2 who it is for. And browsers' way in.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use umbel_tests::{Authority, Node, Outcome, Running, Served, eventually, outcome, python};

const DOORS: &str = r#"
[tls]
ca = "@/ca/ca.pem"
certificate = "@/ca/server.pem"
key = "@/ca/server.key"

[[listener]]
name = "mqtts"
kind = "tls"
bind = "127.0.0.1:0"
identity = "certificate"
proxy_protocol = true
"#;

/// An address of this machine that is not the balancer's.
const CLIENT: &str = "127.0.0.77";

#[test]
fn behind_haproxy_the_address_of_a_device_is_its_own() {
    let node = Served::start(DOORS, |folder| Authority::create(folder).issue("lamp"));
    let port = free_port();
    let file = node.folder().join("haproxy.cfg");
    let settings = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen mqtts\n bind 127.0.0.1:{port}\n server node {} send-proxy-v2\n",
        node.at("mqtts")
    );
    fs::write(&file, settings).unwrap();
    let _balancer = Running::start(Command::new("haproxy").arg("-db").arg("-f").arg(&file));
    let port = port.to_string();
    let path = |name: &str| node.folder().join("ca").join(name);
    let client = |program: &str| {
        let mut command = Command::new(program);
        command.args(["-h", "localhost", "-p", &port, "-A", CLIENT, "-i", "lamp"]);
        command.arg("--cafile").arg(path("ca.pem"));
        command.arg("--cert").arg(path("lamp.pem"));
        command.arg("--key").arg(path("lamp.key"));
        command
    };
    eventually("haproxy answers", || {
        let mut publish = client("mosquitto_pub");
        let done = outcome(
            publish.args(["-t", "$aws/things/lamp/shadow/get", "-m", "{}", "-q", "1"]),
            "",
        );
        (done.code == Some(0)).then_some(())
    });
    let topic = "$aws/things/lamp/shadow/get/accepted";
    let _device = Running::start(client("mosquitto_sub").args(["-t", topic, "-W", "60"]));
    let session = eventually("the device is online", || {
        let device = node.http("GET", "/api/v1/devices/lamp", &[], b"").json();
        (device["state"] == "online").then(|| device["session"].clone())
    });
    assert_eq!(session["ip"], CLIENT, "{session}");
    // Without the header there is no way in.
    let mut direct = Command::new("mosquitto_pub");
    let direct_port = node.at("mqtts").port().to_string();
    direct.args([
        "-h",
        "localhost",
        "-p",
        &direct_port,
        "-i",
        "lamp",
        "-t",
        "x",
        "-m",
        "x",
    ]);
    direct.arg("--cafile").arg(path("ca.pem"));
    assert_ne!(outcome(&mut direct, "").code, Some(0));
}

/// haproxy cannot say which port it was given: one that was free a moment ago.
fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

const CLEAR: &str = r#"
[[listener]]
name = "mqtt"
kind = "tcp"
bind = "127.0.0.1:0"
identity = "anonymous"
proxy_protocol = true
"#;

/// haproxy with the configuration that we ship, in front of these nodes; where devices and where plain clients come in.
fn shipped(nodes: &[&Served]) -> (Running, u16, SocketAddr) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/deploy/haproxy/haproxy.cfg");
    let (mqtts, mqtt) = (free_port(), free_port());
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(file);
    haproxy.env("UMBEL_MQTTS_BIND", format!("127.0.0.1:{mqtts}"));
    haproxy.env("UMBEL_MQTT_BIND", format!("127.0.0.1:{mqtt}"));
    for n in 0..3 {
        haproxy.env(format!("UMBEL_NODE_{}", n + 1), "127.0.0.1");
        // A node that is not there must not be in the way.
        for door in ["mqtts", "mqtt", "http"] {
            let port = nodes.get(n).map_or(1, |node| node.at(door).port());
            let name = format!("UMBEL_{}_{}", door.to_uppercase(), n + 1);
            haproxy.env(name, port.to_string());
        }
    }
    let plain = SocketAddr::from(([127, 0, 0, 1], mqtt));
    (Running::start(&mut haproxy), mqtts, plain)
}

/// Publishes as `lamp`, with its certificate, from an address of its own.
fn publish(folder: &Path, port: u16) -> Outcome {
    let path = |name: &str| folder.join("ca").join(name);
    let mut command = Command::new("mosquitto_pub");
    let port = port.to_string();
    command.args(["-h", "localhost", "-p", &port, "-A", CLIENT, "-i", "lamp"]);
    command.args(["-t", "$aws/things/lamp/shadow/get", "-m", "{}", "-q", "1"]);
    command.arg("--cafile").arg(path("ca.pem"));
    command.arg("--cert").arg(path("lamp.pem"));
    command.arg("--key").arg(path("lamp.key"));
    outcome(&mut command, "")
}

#[test]
fn the_shipped_haproxy_configuration_balances_over_the_nodes_that_are_ready() {
    let doors = format!("{DOORS}{CLEAR}");
    let one = Served::start(&doors, |folder| Authority::create(folder).issue("lamp"));
    let ca = one.folder().join("ca");
    let mut two = Served::start(&doors, |folder| {
        fs::create_dir(folder.join("ca")).unwrap();
        for entry in fs::read_dir(&ca).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, folder.join("ca").join(from.file_name().unwrap())).unwrap();
        }
    });
    let (_balancer, port, plain) = shipped(&[&one, &two]);
    let opened = |node: &Served| {
        let page = node.http("GET", "/metrics", &[], b"").text();
        let lines = page
            .lines()
            .filter(|line| line.starts_with("umbel_mqtt_opened_total"));
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.sum::<u64>()
    };
    eventually("devices get to both nodes", || {
        let done = publish(one.folder(), port);
        (done.code == Some(0) && opened(&one) > 0 && opened(&two) > 0).then_some(())
    });

    // A client in clear goes back to the node it was at.
    let at_one = |client: &str| {
        let path = format!("/api/v1/devices/{client}");
        one.http("GET", &path, &[], b"").status == 200
    };
    let at_two = |client: &str| {
        let path = format!("/api/v1/devices/{client}");
        two.http("GET", &path, &[], b"").status == 200
    };
    for client in ["a", "b", "c", "d"] {
        for _ in 0..3 {
            let mut command = Command::new("mosquitto_pub");
            let port = plain.port().to_string();
            command.args(["-h", "127.0.0.1", "-p", &port, "-i", client]);
            command.args(["-t", "x", "-m", "x", "-q", "1"]);
            let done = outcome(&mut command, "");
            assert_eq!(done.code, Some(0), "{}", done.error);
        }
        assert!(
            at_one(client) != at_two(client),
            "{client} was at both nodes"
        );
    }

    // A node that ends is not ready first, and gets nobody any more.
    two.ask_to_end();
    two.ended();
    let mut streak = 0;
    eventually("all get to the node that is left", || {
        let done = publish(one.folder(), port);
        streak = if done.code == Some(0) { streak + 1 } else { 0 };
        (streak == 10).then_some(())
    });
}

#[test]
fn paho_comes_in_by_websocket() {
    let node = Node::start();
    let port = node.at.ws.port().to_string();
    for version in ["3", "5"] {
        let output = python(
            "paho_websocket.py",
            &["--host", "127.0.0.1", "--port", &port, "--version", version],
        );
        assert!(output.ends_with("ok\n"), "{output}");
    }
}
