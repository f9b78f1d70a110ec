//! SIGTERM: clients are told, the end is a good one, and comes in time.

use std::time::Instant;

use umbel_tests::{Served, Wire, connect_packet};

#[test]
fn a_node_that_is_asked_to_end_tells_its_clients_and_ends_well() {
    let mut node = Served::start(
        "[node]\ndata_dir = \"@/data\"\ndrain = \"4s\"\n[[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\n\
         bind = \"127.0.0.1:0\"\nidentity = \"client-id\"\n",
        |_| (),
    );
    let mut five = Wire::open(node.at("mqtt"));
    five.send(&connect_packet(5, "five", 60, 0x02));
    assert_eq!(five.packet().unwrap().get(3), Some(&0));
    let mut three = Wire::connected(node.at("mqtt"), "three", 60);
    let began = Instant::now();
    node.ask_to_end();
    let goodbye = five.packet().expect("DISCONNECT");
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{goodbye:x?}");
    assert!(five.closes() && three.closes());
    assert_eq!(node.ended(), Some(0));
    // The machine may be busy; the drain itself must not outlast its span.
    assert!(began.elapsed().as_secs() < 4 + 5, "{:?}", began.elapsed());
    let log = node.log();
    assert!(
        log.contains("draining") && log.contains("\"ended\""),
        "{log}"
    );
}
