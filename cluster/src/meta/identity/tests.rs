use std::os::unix::fs::PermissionsExt;

use umbel_core::cluster::{ClusterMap, Identity};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

#[test]
fn an_identity_is_written_once_and_read_by_its_owner_only() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(ClusterIdentity::load(data.path()).unwrap(), None);
    let identity = ClusterIdentity::init(data.path(), NodeId(4), 16, NOW).unwrap();
    assert_eq!(
        ClusterIdentity::load(data.path()).unwrap().as_ref(),
        Some(&identity)
    );
    let mode = fs::metadata(path(data.path()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = ClusterIdentity::init(data.path(), NodeId(1), 16, NOW);
    assert!(matches!(again, Err(IdentityError::Exists { .. })));
    assert!(format!("{identity:?}").contains("Secret(..)"));
}

#[test]
fn a_made_cluster_is_not_made_again_from_its_file() {
    let data = tempfile::tempdir().unwrap();
    let mut identity = ClusterIdentity::init(data.path(), NodeId(1), 16, NOW).unwrap();
    let mut map = ClusterMap::default();
    assert!(!identity.renew(&map, NOW), "it is not made yet");
    map.identity = Some(Identity {
        cluster: identity.cluster,
        shards: 16,
        created_at: NOW,
    });
    assert!(identity.renew(&map, NOW));
    assert_eq!(identity.founding, None);
    assert!(!identity.renew(&map, NOW));
}

#[test]
fn a_newer_file_and_rubbish_are_errors_that_name_the_file() {
    let data = tempfile::tempdir().unwrap();
    ClusterIdentity::init(data.path(), NodeId(1), 16, NOW).unwrap();
    let path = path(data.path());
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2");
    for content in [newer.as_str(), "rubbish"] {
        fs::write(&path, content).unwrap();
        let error = ClusterIdentity::load(data.path()).unwrap_err().to_string();
        assert!(error.contains("identity.json"), "{error}");
    }
}

#[test]
fn a_newcomer_asks_again_with_the_key_it_asked_with() {
    let data = tempfile::tempdir().unwrap();
    let first = draft_key(data.path(), &[1; 32]).unwrap();
    assert_eq!(draft_key(data.path(), &[1; 32]).unwrap(), first);
    assert_ne!(draft_key(data.path(), &[2; 32]).unwrap(), first);
    forget_draft(data.path()).unwrap();
}
