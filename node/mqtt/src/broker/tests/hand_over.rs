//! Where clients are sent that have to go.

use std::{collections::BTreeMap, sync::Arc};

use umbel_core::ids::ClientId;
use umbel_storage::memory::MemoryLedger;

use super::world::TestClock;
use crate::broker::{Broker, Config};

fn broker(servers: &[&str]) -> Arc<Broker> {
    let clock = Arc::new(TestClock::default());
    let ledger = Arc::new(MemoryLedger::new(1));
    let broker = Broker::alone(Config::default(), ledger, clock);
    *broker.other_servers.lock() = servers.iter().map(|s| (*s).to_owned()).collect();
    broker
}

#[tokio::test]
async fn each_other_server_gets_its_share_of_the_clients_and_a_client_the_same_each_time() {
    let broker = broker(&["a:1", "b:1", "c:1"]);
    let mut shares = BTreeMap::new();
    for number in 0..3_000 {
        let client = ClientId::parse(&format!("client-{number}")).expect("an id");
        let server = broker.server_reference(&client).expect("a server");
        assert_eq!(broker.server_reference(&client), Some(server.clone()));
        *shares.entry(server).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 3);
    assert!(
        shares.values().all(|share| (900..1_100).contains(share)),
        "{shares:?}"
    );
}

#[tokio::test]
async fn nobody_is_named_if_nobody_is_known() {
    let client = ClientId::parse("client").expect("an id");
    assert_eq!(broker(&[]).server_reference(&client), None);
}
