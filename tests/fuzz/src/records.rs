//! Bytes that come back from a disk.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use umbel_core::{
    device::DeviceRecord,
    message::Message,
    shadow::{Shadow, StoredShadow},
};
use umbel_storage::{Write, codec};

/// The key a sealed value is read under.
const KEY: &[u8] = b"device-1";

/// The first byte says what the rest is taken for. Laws: what decodes is what its own encoding decodes to; a seal lets
/// nothing through that was not sealed.
pub fn run(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else {
        return false;
    };
    match kind % 6 {
        0 => round::<DeviceRecord>(bytes).is_some(),
        1 => match round::<StoredShadow>(bytes) {
            // what is stored may be nonsense and still decode: then it is refused, not served
            Some(stored) => Shadow::from_stored(&stored).is_ok(),
            None => false,
        },
        2 => round::<Message>(bytes).is_some(),
        3 => round::<Vec<Write>>(bytes).is_some(),
        4 => round::<(String, Vec<u8>, Option<u64>)>(bytes).is_some(),
        _ => sealed(bytes),
    }
}

fn round<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let (format, body) = codec::format_of(bytes).ok()?;
    let value: T = codec::decode_body(body).ok()?;
    let again = codec::encode(format, &value).expect("it was short enough to be read");
    assert_eq!(codec::decode::<T>(format, &again).as_ref(), Ok(&value));
    Some(value)
}

fn sealed(bytes: &[u8]) -> bool {
    let Ok(value) = codec::unseal(KEY, bytes) else {
        return false;
    };
    assert_eq!(codec::seal(KEY, value), bytes);
    assert!(
        codec::unseal(b"device-2", bytes).is_err(),
        "a value under another key's name"
    );
    true
}
