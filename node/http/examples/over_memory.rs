//! The HTTP edge over a real fleet and broker that keep everything in memory: something to point `schemathesis` and
//! boto3 at. Prints the URLs of our API and of the AWS data plane.
//!
//! `cargo run -p umbel-http --example over_memory`, then
//! `st --config-file node/http/schemathesis.toml run http://127.0.0.1:PORT/api/openapi.json`.

use std::{io::Write as _, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use umbel_actors::{Fleet, Realm, ports::Clock};
use umbel_core::{
    ids::ClientId,
    policy::{Context, Policy},
    time::{Tick, Timestamp},
};
use umbel_http::{
    Access, Api, Caller, Instruments, Limits, aws_router,
    port::Backend,
    router,
    serve::{Role, Server},
};
use umbel_mqtt::broker::{Broker, Config};
use umbel_storage::memory::MemoryLedger;

/// Time since the start, on both scales.
struct Uptime(tokio::time::Instant);

impl Clock for Uptime {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_795_000_000_000) + self.0.elapsed()
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(0) + self.0.elapsed()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock: Arc<dyn Clock> = Arc::new(Uptime(tokio::time::Instant::now()));
    let ledger = Arc::new(MemoryLedger::new(4));
    let broker = Broker::alone(
        Config::default(),
        Arc::<MemoryLedger>::clone(&ledger),
        Arc::clone(&clock),
    );
    let outbox = Arc::<Broker>::clone(&broker);
    let (fleet, running) = Fleet::start(
        umbel_actors::Config::default(),
        ledger,
        outbox,
        Arc::clone(&clock),
    )
    .await?;
    let peers = Arc::new(umbel_actors::ports::NoPeers);
    let (realm, rounds) = Realm::start(fleet, peers, umbel_actors::Timing::default());
    broker.attach(Arc::new(realm.clone()));
    realm.local().recover().await;
    let instruments = Instruments {
        checks: Box::new(Vec::new),
        metrics: Box::new(String::new),
        operator: Arc::new(umbel_http::operator::Alone),
        elsewhere: Arc::new(umbel_http::Nowhere),
    };
    let backend: Arc<dyn Backend> = Arc::new(Api::new(realm, broker, clock, instruments));
    let (stop, stopped) = watch::channel(false);
    let limits = Limits::default();
    let anybody = ClientId::parse("anybody")?;
    let caller = Caller {
        principal: "anybody".to_owned(),
        policy: Policy::open().compile(&Context::new(anybody)),
    };
    let aws = aws_router(Arc::clone(&backend), Access::Open(caller), &limits);
    let api = router(backend, &limits, stopped);
    let api = Server::start(bind().await?, api, Role::Api, None, &limits)?;
    let aws = Server::start(bind().await?, aws, Role::Aws, None, &limits)?;
    writeln!(
        std::io::stdout(),
        "http://{}\nhttp://{}",
        api.local_addr(),
        aws.local_addr()
    )?;
    tokio::signal::ctrl_c().await?;
    stop.send_replace(true);
    api.shutdown(Duration::from_secs(5)).await;
    aws.shutdown(Duration::from_secs(5)).await;
    rounds.shutdown().await;
    running.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

async fn bind() -> std::io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}
