//! Lists, attributes and deletion.

use umbel_core::{device::Presence, ids::DeviceId};

use super::{World, client, device, hello, quick};
use crate::{EditError, Filter};

async fn ids(world: &World, filter: Filter, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after: Option<DeviceId> = None;
    loop {
        let page = world
            .fleet
            .devices(filter.clone(), after, limit)
            .await
            .expect("readable");
        assert!(page.devices.len() <= limit);
        ids.extend(page.devices.iter().map(|view| view.id.as_str().to_owned()));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

#[tokio::test]
async fn devices_are_listed_in_id_order_over_all_shards_each_once() {
    let world = World::new(quick()).await;
    for number in 0..100 {
        world
            .fleet
            .create_device(&device(&format!("d{number:03}")), "{}".into())
            .await
            .expect("created");
    }
    let app = umbel_core::device::Connect {
        kind: umbel_core::device::Kind::App,
        ..hello(None)
    };
    world
        .fleet
        .connect(&client("app"), app)
        .await
        .expect("admitted");
    let expected: Vec<_> = (0..100).map(|number| format!("d{number:03}")).collect();
    for limit in [1, 7, 50, 100, 1000] {
        assert_eq!(
            ids(&world, Filter::default(), limit).await,
            expected,
            "pages of {limit}"
        );
    }
    let whole = world.fleet.devices(Filter::default(), None, 1000).await;
    assert_eq!(whole.map(|page| page.next), Ok(None), "nothing is left");
}

#[tokio::test]
async fn filters_combine() {
    let world = World::new(quick()).await;
    let patches = [
        ("a", r#"{"type":"camera","site":"s1","tags":{"floor":"1"}}"#),
        ("b", r#"{"type":"camera","site":"s2"}"#),
        ("c", r#"{"type":"controller","site":"s1","region":"eu"}"#),
    ];
    for (id, patch) in patches {
        world
            .fleet
            .create_device(&device(id), patch.into())
            .await
            .expect("created");
    }
    world
        .fleet
        .connect(&client("b"), hello(None))
        .await
        .expect("admitted");
    let cameras = Filter {
        device_type: Some("camera".to_owned()),
        ..Filter::default()
    };
    assert_eq!(ids(&world, cameras.clone(), 10).await, ["a", "b"]);
    let online = Filter {
        presences: vec![Presence::Online],
        ..cameras.clone()
    };
    assert_eq!(ids(&world, online, 10).await, ["b"]);
    let floor = Filter {
        tags: vec![("floor".to_owned(), "1".to_owned())],
        ..cameras
    };
    assert_eq!(ids(&world, floor, 10).await, ["a"]);
    let eu = Filter {
        region: Some("eu".to_owned()),
        ..Filter::default()
    };
    assert_eq!(ids(&world, eu, 10).await, ["c"]);
}

#[tokio::test]
async fn attributes_change_only_at_the_revision_the_caller_has_seen() {
    let world = World::new(quick()).await;
    let id = device("d");
    let missing = world.fleet.set_attributes(&id, "{}".into(), None).await;
    assert_eq!(missing.map(|_| ()), Err(EditError::NotFound));
    let view = world
        .fleet
        .create_device(&id, r#"{"site":"s1"}"#.into())
        .await
        .expect("created");
    let first = view.record.revision;
    let again = world.fleet.create_device(&id, "{}".into()).await;
    assert_eq!(again.map(|_| ()), Err(EditError::Exists));
    let view = world
        .fleet
        .set_attributes(&id, r#"{"site":"s2"}"#.into(), Some(first))
        .await
        .expect("changed");
    assert_eq!(
        (view.record.revision, view.record.attributes.site.as_deref()),
        (first + 1, Some("s2"))
    );
    let late = world
        .fleet
        .set_attributes(&id, "{}".into(), Some(first))
        .await;
    assert_eq!(
        late.map(|_| ()),
        Err(EditError::PreconditionFailed {
            revision: first + 1
        })
    );
    let wrong = world
        .fleet
        .set_attributes(&id, r#"{"tags":7}"#.into(), None)
        .await;
    assert!(matches!(wrong, Err(EditError::Invalid(_))));
}

#[tokio::test]
async fn a_deleted_device_is_gone_evicted_and_its_next_epoch_is_higher() {
    let world = World::new(quick()).await;
    let before = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    world
        .fleet
        .delete_device(&device("d"), None)
        .await
        .expect("deleted");
    assert_eq!(world.fleet.device(&device("d")), Ok(None));
    assert_eq!(world.fleet.counts().devices, crate::ByPresence::default());
    assert_eq!(
        world.fleet.delete_device(&device("d"), None).await,
        Err(EditError::NotFound)
    );
    world.clock.advance(std::time::Duration::from_millis(10));
    let after = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    assert!(after.epoch > before.epoch);
}
