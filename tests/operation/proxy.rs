//! Behind a balancer: haproxy passes TLS through and says with PROXY protocol v2 who it is for. And browsers' way in.

use std::{fs, net::TcpListener, process::Command};

use umbel_tests::{Authority, Node, Running, Served, eventually, outcome, python};

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
    // haproxy cannot say which port it was given: one that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
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
