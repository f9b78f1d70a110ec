//! Valid inputs to begin with, and the words of each language.

use umbel_core::{
    message::{Message, Qos},
    shadow::{StoredDocument, StoredSection, StoredShadow},
    time::Timestamp,
};
use umbel_storage::{Table, Write, codec};

pub(crate) const MQTT_WORDS: &[&[u8]] = &[
    b"\x00\x04MQTT\x04",
    b"\x00\x04MQTT\x05",
    b"\x00\x06MQIsdp\x03",
    b"$share/g/",
    b"\x80\x80\x80\x00",
    b"\xff\xff\xff\x7f",
    b"\x01\x01",
    b"\x0b\x01",
    b"\x23\x00\x01",
    b"\x26\x00\x01a\x00\x01b",
    b"\x02\x00\x00\x00\x09",
    b"\x08\x00\x01r",
    b"\xc0\x00",
];

/// CONNECT of 3.1.1 and of 5, each with packets behind it.
pub(crate) fn mqtt() -> Vec<Vec<u8>> {
    let connect_4 = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
    let connect_will =
        b"\x10\x1b\x00\x04MQTT\x04\xee\x00\x3c\x00\x01a\x00\x01w\x00\x03bye\x00\x01u\x00\x01p";
    let connect_5 = b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3c\x05\x11\x00\x00\x00\x0a\x00\x01a";
    let rest_4: [&[u8]; 8] = [
        b"\x30\x05\x00\x01tab",
        b"\x32\x07\x00\x01t\x00\x01ab",
        b"\x3c\x05\x00\x01t\x00\x02",
        b"\x62\x02\x00\x02",
        b"\x82\x0b\x00\x03\x00\x01#\x01\x00\x02/+\x00",
        b"\xa2\x05\x00\x04\x00\x01#",
        b"\xc0\x00",
        b"\xe0\x00",
    ];
    let rest_5: [&[u8]; 6] = [
        b"\x32\x0f\x00\x01t\x00\x01\x07\x01\x01\x02\x00\x00\x00\x09ab",
        b"\x30\x0a\x00\x01t\x03\x23\x00\x01abc",
        b"\x40\x03\x00\x01\x10",
        b"\x82\x09\x00\x03\x02\x0b\x01\x00\x01#\x2c",
        b"\xa2\x06\x00\x04\x00\x00\x01#",
        b"\xe0\x02\x04\x00",
    ];
    let follow = |connect: &[u8], rest: &[&[u8]]| {
        rest.iter()
            .map(|packet| [connect, packet].concat())
            .collect::<Vec<_>>()
    };
    let mut seeds = follow(connect_4, &rest_4);
    seeds.extend(follow(connect_5, &rest_5));
    seeds.push([connect_4.as_slice(), &rest_4.concat()].concat());
    seeds.push([connect_5.as_slice(), &rest_5.concat()].concat());
    seeds.push(connect_will.to_vec());
    seeds
}

pub(crate) const SHADOW_WORDS: &[&[u8]] = &[
    br#"{"state":{"desired":{"#,
    br#"{"state":{"reported":{"#,
    br#""version":1,"#,
    br#""clientToken":"t""#,
    b"null",
    b"{}",
    b"[[[[",
    b"{\"a\":",
    b"1e999",
    b"-0.0",
    b"18446744073709551616",
    b"\\ud800",
    b"\\u0000",
    b"\n",
    b"\ng",
    b"\nd",
];

pub(crate) fn shadow() -> Vec<Vec<u8>> {
    [
        r#"{"state":{"desired":{"a":1,"b":{"c":[1,2.5,"x"]}},"reported":{"a":2}},"clientToken":"t"}"#,
        "{\"state\":{\"desired\":{\"a\":1}}}\n{\"state\":{\"reported\":{\"a\":1}},\"version\":1}\ng\nd{}",
        "{\"state\":{\"desired\":{\"a\":{\"b\":1}}}}\n{\"state\":{\"desired\":{\"a\":null}}}\n{\"state\":null}",
        "g\n{\"state\":{}}\nd\n{\"state\":{\"reported\":{\"\u{e9}\":true,\"timestamp\":0}}}\ng{\"clientToken\":\"x\"}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) const RECORD_WORDS: &[&[u8]] = &[
    b"\x00",
    b"\x01",
    b"\xfb\xff\xff",
    b"\xfc\xff\xff\xff\xff",
    b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff",
    b"{\"a\":1}",
];

/// A stored shadow, a message, writes, a plain tuple and a sealed value. The device record joins from its neighbours'
/// pieces: its fields are private to core.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let section = |state: &str, stamps: &[u64]| StoredSection {
        state: state.to_owned(),
        stamps: stamps.to_vec(),
    };
    let shadow = StoredShadow {
        version: 7,
        updated_at: Timestamp::from_millis(1_000_000),
        document: Some(StoredDocument {
            desired: Some(section(r#"{"a":1,"b":{"c":[true]}}"#, &[10, 11])),
            reported: None,
        }),
    };
    let message = Message::from_cluster(
        "a/b".to_owned(),
        bytes::Bytes::from_static(b"payload"),
        Qos::AtLeastOnce,
        Timestamp::from_millis(5),
    );
    let writes = vec![
        Write::put(Table::Device, "d", b"value".to_vec()),
        Write::delete(Table::Shadow, "d"),
        Write::delete_prefix(Table::Queue, "d"),
    ];
    let tuple = ("text".to_owned(), vec![1_u8, 2, 3], Some(70_000_u64));
    let kinds = [
        (1, codec::encode(1, &shadow)),
        (2, codec::encode(1, &message)),
        (3, codec::encode(1, &writes)),
        (4, codec::encode(1, &tuple)),
        (5, Ok(codec::seal(b"device-1", b"some value"))),
    ];
    kinds
        .into_iter()
        .map(|(kind, record)| {
            let mut bytes = vec![kind];
            bytes.extend(record.expect("a small value"));
            bytes
        })
        .collect()
}

pub(crate) const TOPIC_WORDS: &[&[u8]] = &[
    b"+",
    b"#",
    b"/",
    b"/+",
    b"/#",
    b"\n",
    b"$share/g/",
    b"$SYS/",
    b"$aws/things/",
    b"a/",
    b"\n#\n",
    b"/shadow/name/",
    b"/update/accepted",
];

pub(crate) fn topics() -> Vec<Vec<u8>> {
    [
        "a/b\na/+\n#\n$share/g/a/#\na/b",
        "$aws/things/+/shadow/update\n$aws/#\n$aws/things/t/shadow/update",
        "a/b/c/d\na/b/x\na/b\n+/+\n/\n//\n+//\na/b",
        "+/b/#\na/#\n+\n\u{e4}/+\n\u{e4}/b",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) const POLICY_WORDS: &[&[u8]] = &[
    b"*",
    b"?",
    b"${iot:ClientId}",
    b"${",
    b"}",
    b"topic/",
    b"topicfilter/",
    b"client/",
    b"thing/",
    b"arn:aws:iot:*:*:",
    b"iot:*",
    b"Deny",
    b"Allow",
    b"\"",
    b",",
];

pub(crate) fn policy() -> Vec<Vec<u8>> {
    [
        (r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:r:1:topic/a/*/b?"}"#, "a/x/bc"),
        (r#"{"Effect":"Allow","Action":["iot:*"],"Resource":["client/${iot:ClientId}","*a*a"]}"#, "me"),
        (r#"{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"iot:Get*","Resource":"thing/x"}"#, "x"),
    ]
    .map(|(statements, name)| {
        format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{statements}]}}\n{name}").into_bytes()
    })
    .to_vec()
}
