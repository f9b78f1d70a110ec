//! The HTTP API over a real fleet and broker that keep everything in memory: something to point `schemathesis` at.
//!
//! `cargo run -p umbel-http --example over_memory`, then
//! `st run http://127.0.0.1:PORT/api/openapi.json --exclude-operation-id streamEvents`.

use std::{io::Write as _, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use umbel_actors::{Fleet, ports::Clock};
use umbel_core::time::{Tick, Timestamp};
use umbel_http::{
    Api, Instruments, Limits,
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
    let broker = Broker::new(
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
    fleet.recover().await;
    let instruments = Instruments {
        checks: Box::new(Vec::new),
        metrics: Box::new(String::new),
    };
    let backend: Arc<dyn Backend> = Arc::new(Api::new(fleet, broker, clock, instruments));
    let (stop, stopped) = watch::channel(false);
    let limits = Limits::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = Server::start(
        listener,
        router(backend, &limits, stopped),
        Role::Api,
        None,
        &limits,
    )?;
    writeln!(std::io::stdout(), "http://{}", server.local_addr())?;
    tokio::signal::ctrl_c().await?;
    stop.send_replace(true);
    server.shutdown(Duration::from_secs(5)).await;
    running.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
