use proptest::prelude::*;

use super::*;

fn any_write() -> impl Strategy<Value = Write> {
    let table = prop::sample::select(vec![
        Table::Device,
        Table::Shadow,
        Table::Subscription,
        Table::Queue,
        Table::Inbound,
        Table::Retained,
    ]);
    let bytes = || prop::collection::vec(any::<u8>(), 0..64);
    let operation = prop_oneof![
        bytes().prop_map(Operation::Put),
        Just(Operation::Delete),
        Just(Operation::DeletePrefix),
    ];
    (table, bytes(), operation).prop_map(|(table, key, operation)| Write {
        table,
        key,
        operation,
    })
}

fn any_commands() -> impl Strategy<Value = Vec<Vec<Write>>> {
    prop::collection::vec(prop::collection::vec(any_write(), 0..6), 0..20)
}

fn encoded(term: u64, commands: &[Vec<Write>]) -> Vec<u8> {
    Batch::encode(term, commands.iter().map(Vec::as_slice)).expect("encodes")
}

proptest! {
    #[test]
    fn a_batch_comes_back_as_it_was(term: u64, commands in any_commands()) {
        let bytes = encoded(term, &commands);
        prop_assert_eq!(Batch::decode(&bytes).expect("decodes"), Batch { term, commands });
    }

    #[test]
    fn an_entry_comes_back_as_it_was(term: u64, node: u64, index: u64, bytes: Vec<u8>) {
        let id = StoredLogId { term, node, index };
        let members = StoredMembers { voters: vec![vec![node], vec![]], nodes: vec![node, term] };
        for body in
            [StoredBody::Blank, StoredBody::Batch(bytes), StoredBody::Membership(members)]
        {
            let entry = StoredEntry { id, body };
            let stored = entry.encode().expect("encodes");
            prop_assert_eq!(StoredEntry::decode(&stored).expect("decodes"), entry);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
        drop(Batch::decode(&bytes));
        drop(StoredEntry::decode(&bytes));
        drop(decode_meta::<(u64, u64, bool)>("vote", &bytes));
    }

    #[test]
    fn a_cut_or_lengthened_batch_is_noticed(commands in any_commands(), extra: u8) {
        let mut bytes = encoded(1, &commands);
        bytes.push(extra);
        prop_assert!(Batch::decode(&bytes).is_err());
        bytes.truncate(bytes.len() - 2);
        prop_assert!(Batch::decode(&bytes).is_err());
    }
}

#[test]
fn an_unknown_format_is_named() {
    let mut bytes = encoded(1, &[]);
    bytes[0] = 2;
    let error = Batch::decode(&bytes).expect_err("newer");
    assert_eq!(
        error.to_string(),
        "the batch has format 2, this release reads up to 1"
    );
}

#[test]
fn an_unknown_table_or_operation_is_an_error() {
    let bytes = encoded(1, &[vec![Write::delete(Table::Device, "k")]]);
    let table = bytes.iter().position(|byte| *byte == b'k').expect("key") - 2;
    let mut newer = bytes.clone();
    newer[table] = 99;
    assert!(
        Batch::decode(&newer)
            .expect_err("table")
            .to_string()
            .contains("unknown table 99")
    );
    let mut newer = bytes;
    *newer.last_mut().expect("operation") = 9;
    assert!(
        Batch::decode(&newer)
            .expect_err("operation")
            .to_string()
            .contains("operation 9")
    );
}

#[test]
fn a_hostile_length_allocates_nothing() {
    // Term 1, then 2^60 commands.
    let mut bytes = vec![BATCH_FORMAT, 1, 253];
    bytes.extend((1u64 << 60).to_le_bytes());
    assert!(Batch::decode(&bytes).is_err());
}

/// The largest entry the limits allow has to be readable, however small its writes are.
#[test]
fn the_largest_batch_of_the_smallest_writes_decodes() {
    let limits = crate::config::Limits::default();
    let count = (limits.batch_bytes_max + limits.command_bytes_max) / WRITE_OVERHEAD_BYTES;
    let command = vec![Write::delete(Table::Queue, ""); count];
    let bytes = encoded(1, &[command]);
    assert_eq!(
        Batch::decode(&bytes).expect("decodes").commands[0].len(),
        count
    );
}

/// Format 1, written on 2026-11-20. This release and the next have to read it.
#[test]
fn a_batch_of_format_1_is_still_read() {
    let sample: &[u8] = &[
        1, 7, 2, 2, 1, 1, b'a', 0, 1, b'x', 5, 1, b'b', 1, 1, 6, 1, b'c', 2,
    ];
    let batch = Batch::decode(sample).expect("format 1");
    let first = vec![
        Write::put(Table::Device, "a", b"x".to_vec()),
        Write::delete(Table::Inbound, "b"),
    ];
    let second = vec![Write::delete_prefix(Table::Retained, "c")];
    assert_eq!(
        batch,
        Batch {
            term: 7,
            commands: vec![first, second]
        }
    );
    assert_eq!(encoded(7, &batch.commands), sample);
}
