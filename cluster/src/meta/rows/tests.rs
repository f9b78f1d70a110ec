use std::time::Duration;

use umbel_core::{
    cluster::{
        Addresses, Assignment, Authority, ClusterId, GossipKey, Identity, Node, NodeState, Outcome,
        Profile, Remembered, RequestId, Roles, Secret, Settings, Token, TokenUse,
    },
    time::Timestamp,
};
use umbel_storage::Operation;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Rows as the first release wrote them, key and value. They stay as they are: a new format gets a new sample.
const IDENTITY: &str = "01=010740fd006c50c4a0010000";
const COUNTERS: &str = "02=0103020709";
const SETTINGS: &str = "03=01013c00";
const AUTHORITY: &str = "04=010201020103";
const NODE: &str = "050000000000000001=01000a000001fb581b000a000001fb591b0103613a31017a010101013101fd006c50c4a0010000";
const SHARD: &str = "060003=0102010201030104";
const TOKEN: &str = "070808080808080808080808080808080808080808080808080808080808080808=01fd006c50c4a001000001050505050505050505050505050505050505050505050505050505050505050502";
const GOSSIP_KEY: &str = "0800000001=01020102fd006c50c4a0010000";
const REQUEST: &str = "090000000000000007=01060102";

fn node() -> Node {
    let profile = Profile {
        addresses: Addresses {
            link: ([10, 0, 0, 1], 7000).into(),
            gossip: ([10, 0, 0, 1], 7001).into(),
            client: Some("a:1".to_owned()),
        },
        zone: "z".to_owned(),
        roles: Roles::default(),
        version: "1".to_owned(),
    };
    Node {
        profile,
        state: NodeState::Active,
        admitted_at: NOW,
    }
}

fn assignment() -> Assignment {
    Assignment {
        replicas: vec![NodeId(1), NodeId(2)],
        learners: vec![NodeId(3)],
        pinned: true,
        epoch: 4,
    }
}

fn token() -> Token {
    let used = TokenUse {
        key: [5; 32],
        node: NodeId(2),
    };
    Token {
        expires: NOW,
        used: Some(used),
    }
}

fn samples() -> Vec<(Row, &'static str)> {
    let identity = Identity {
        cluster: ClusterId(7),
        shards: 64,
        created_at: NOW,
    };
    let counters = Counters {
        next_node: 3,
        next_key: 2,
        next_request: 7,
        revision: 9,
    };
    let settings = Settings {
        replace_after: Some(Duration::from_mins(1)),
    };
    let authority = Authority {
        certificate: vec![1, 2],
        key: Secret::new(vec![3]),
    };
    let key = GossipKey {
        key: Secret::new(vec![1, 2]),
        created_at: NOW,
    };
    let request = Remembered {
        id: RequestId(6),
        outcome: Outcome::Admitted(NodeId(2)),
    };
    vec![
        (Row::Identity(identity), IDENTITY),
        (Row::Counters(counters), COUNTERS),
        (Row::Settings(settings), SETTINGS),
        (Row::Authority(authority), AUTHORITY),
        (Row::Node(NodeId(1), node()), NODE),
        (Row::Shard(ShardId(3), assignment()), SHARD),
        (Row::Token([8; 32], Some(token())), TOKEN),
        (Row::GossipKey(1, Some(key)), GOSSIP_KEY),
        (Row::Request(7, Some(request)), REQUEST),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

#[test]
fn rows_are_written_and_read_as_the_first_release_did() {
    for (sample, golden) in samples() {
        let written = write(&sample).unwrap();
        let Operation::Put(value) = &written.operation else {
            panic!("a row is stored");
        };
        assert_eq!(format!("{}={}", hex(&written.key), hex(value)), golden);
        assert_eq!(row(&written.key, value).unwrap(), sample);
    }
}

#[test]
fn what_this_release_does_not_know_is_an_error_by_name() {
    assert!(matches!(row(&[99], &[1]), Err(RowError::Kind(99))));
    assert!(matches!(row(&[5, 1], &[1]), Err(RowError::Name(5))));
    let newer = row(&[2], &[2, 3, 2, 7, 9]).unwrap_err().to_string();
    assert!(newer.contains("format 2"), "{newer}");
    assert!(row(&[2], &[1, 3, 2, 7, 9, 0]).is_err());
    assert!(row(&[2], &[]).is_err());
}
