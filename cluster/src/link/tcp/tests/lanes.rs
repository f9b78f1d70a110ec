//! Which runtime serves which lane.

use std::thread;

use bytes::Bytes;
use tokio::runtime::Builder;
use umbel_storage::nodes::Reach;

use super::{
    super::super::{
        BoxFuture, Handler, Service, Transport,
        suite::{A, B, reach},
    },
    *,
};

const WORKSHOP: &str = "workshop";

/// Answers with the name of the thread it is asked on, and of the one its future runs on.
struct WhereAmI;

fn here() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

impl Handler for WhereAmI {
    fn request(&self, _from: NodeId, _body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let asked = here();
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(Bytes::from(format!("{asked} {}", here())))
        })
    }

    fn notice(&self, _from: NodeId, _body: Bytes) {}
}

#[tokio::test]
async fn f22_what_devices_ask_is_served_in_the_runtime_for_work_and_what_groups_say_is_not() {
    let authority = Authority::new();
    let workshop = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(WORKSHOP)
        .enable_all()
        .build()
        .unwrap();
    let mut settings = config(&authority, B, Boot(1));
    settings.work = Some(workshop.handle().clone());
    let b = TcpTransport::start(settings).await.unwrap();
    let a = start(&authority, A, Boot(1)).await;
    for service in [Service::Fleet, Service::Control] {
        b.serve(service, Arc::new(WhereAmI));
    }
    introduce(&a, &b);
    reach(&*a, B, Reach::Connected).await;
    let patience = Duration::from_secs(10);
    let ask = |service| a.request(B, service, Bytes::new(), patience);
    let answer = ask(Service::Fleet).await.unwrap();
    assert_eq!(answer, format!("{WORKSHOP} {WORKSHOP}"));
    let answer = ask(Service::Control).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(!answer.contains(WORKSHOP), "{answer}");
    // Both ends of what is served there are gone before the runtime is.
    a.shutdown().await;
    b.shutdown().await;
    workshop.shutdown_background();
}
