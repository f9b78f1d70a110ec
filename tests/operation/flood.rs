//! Crowds that mean no good: those who come keep working, those who are honest come in.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use umbel_tests::{Node, Wire, eventually, mosquitto_pub, outcome, program};

const PING: [u8; 2] = [0xc0, 0];

fn answers(wire: &mut Wire) -> bool {
    wire.send(&PING);
    wire.packet().is_some_and(|packet| packet == [0xd0, 0])
}

#[test]
fn a_thousand_dribblers_do_not_keep_an_honest_client_out() {
    let node = Node::start();
    let mut neighbour = Wire::connected(node.at.mqtt, "neighbour", 600);
    let dribblers: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = TcpStream::connect(node.at.mqtt).unwrap();
            // The start of a CONNECT, and then nothing.
            stream.write_all(&[0x10, 0x20, 0]).unwrap();
            stream
        })
        .collect();
    for client in ["honest-1", "honest-2", "honest-3"] {
        let began = Instant::now();
        let mut honest = Wire::connected(node.at.mqtt, client, 60);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert!(answers(&mut honest));
    }
    mosquitto_pub(&node, &["-t", "a", "-m", "b", "-q", "1"]);
    assert!(answers(&mut neighbour));
    drop(dribblers);
    eventually("nothing is left of the dribblers", || {
        let page = node.http("GET", "/metrics", &[], b"").text();
        let opening = page.lines().find(|line| {
            line.starts_with("umbel_mqtt_connections")
                && line.contains("opening")
                && line.contains("\"tcp\"")
        })?;
        opening.ends_with(" 0").then_some(())
    });
    // One line for a crowd, not one each.
    assert!(node.log().lines().count() < 100, "{}", node.log().len());
}

/// Processor time of a process so far, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how much a node works in a span is what is asked"
)]
fn without_files_left_it_neither_spins_nor_drops_those_who_are_there() {
    let node = Node::start();
    let mut neighbour = Wire::connected(node.at.mqtt, "neighbour", 600);
    let open = fs::read_dir(format!("/proc/{}/fd", node.pid()))
        .unwrap()
        .count();
    let limit = format!("--nofile={}:", open + 4);
    let pid = node.pid().to_string();
    let limited = outcome(Command::new("prlimit").args(["--pid", &pid, &limit]), "");
    assert_eq!(limited.code, Some(0), "{}", limited.error);
    let crowd: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(node.at.mqtt).unwrap())
        .collect();
    assert!(answers(&mut neighbour), "who was there stays");
    let (began, before) = (Instant::now(), ticks(node.pid()));
    // Over which its processor time is measured.
    std::thread::sleep(Duration::from_secs(2));
    let spent = Duration::from_millis((ticks(node.pid()) - before) * 10);
    assert!(spent < began.elapsed() / 2, "it spins: {spent:?}");
    drop(crowd);
    let unlimited = outcome(
        Command::new("prlimit").args(["--pid", &pid, "--nofile=4096:"]),
        "",
    );
    assert_eq!(unlimited.code, Some(0), "{}", unlimited.error);
    eventually("newcomers are taken again", || {
        let mut wire = Wire::open(node.at.mqtt);
        wire.send(&umbel_tests::connect_packet(4, "late", 60, 2));
        wire.packet()
    });
    assert!(answers(&mut neighbour));
}

#[test]
fn rubbish_by_the_thousand_is_noticed_by_nobody_else() {
    let umbel = program("umbel").display().to_string();
    let mut command = Command::new(program("umbel-chaos"));
    command.args([
        "rubbish",
        "--packets",
        "10000",
        "--seed",
        "1",
        "--umbel",
        &umbel,
    ]);
    let done = outcome(&mut command, "");
    assert_eq!(done.code, Some(0), "{}\n{}", done.out, done.error);
}
