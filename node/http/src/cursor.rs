//! Keyset cursors: the last key of a page, opaque to clients so that its meaning may change.
//!
//! Not signed: a cursor names a place in an order and carries no right; what a page shows is judged by the
//! request that asks for it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// First byte of every cursor. A later format takes the next number.
const FORMAT: u8 = 1;

/// Wraps the key a page ended with.
pub(crate) fn encode(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(FORMAT);
    bytes.extend_from_slice(key.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key inside a cursor, `None` when we never made such a cursor.
pub(crate) fn decode(cursor: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (format, key) = bytes.split_first()?;
    if *format != FORMAT || key.is_empty() {
        return None;
    }
    String::from_utf8(key.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_back_the_key_it_was_made_of() {
        for key in ["a", "Camera_7:front", "ümlaut/+"] {
            assert_eq!(decode(&encode(key)).as_deref(), Some(key));
        }
    }

    #[test]
    fn a_cursor_we_never_made_is_refused() {
        for cursor in ["", "AQ", "zzz", "&&&", &URL_SAFE_NO_PAD.encode([2, 65])] {
            assert_eq!(decode(cursor), None, "{cursor}");
        }
    }
}
