//! Load shapes as data.

use std::time::Duration;

use clap::Args;

/// Seconds of an hour.
const HOUR: f64 = 3600.0;

fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let Ok(number) = number.parse::<u64>() else {
        return Err(format!("`{text}` is no span of time"));
    };
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("write 500ms, 30s or 5m".to_owned()),
    }
}

/// What the fleet looks like and does.
#[derive(Args, Clone, Debug)]
pub(crate) struct Profile {
    /// How many devices.
    #[arg(long, default_value_t = 100)]
    pub(crate) devices: usize,
    /// Connections opened each second.
    #[arg(long, default_value_t = 500.0)]
    pub(crate) connect_rate: f64,
    /// Time between heartbeats (PINGREQ).
    #[arg(long, default_value = "30s", value_parser = span)]
    pub(crate) heartbeat: Duration,
    /// Keep-alive told to the server.
    #[arg(long, default_value = "60s", value_parser = span)]
    pub(crate) keep_alive: Duration,
    /// Shadow updates of each device in an hour.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) updates_per_hour: f64,
    /// Bytes of the reported value.
    #[arg(long, default_value_t = 200)]
    pub(crate) report_bytes: usize,
    /// How long to go on once all devices were started.
    #[arg(long, default_value = "30s", value_parser = span)]
    pub(crate) duration: Duration,
    /// Beginning of every device id.
    #[arg(long, default_value = "load-")]
    pub(crate) prefix: String,
}

impl Profile {
    /// Time between two updates of a device.
    pub(crate) fn update_every(&self) -> Option<Duration> {
        (self.updates_per_hour > 0.0).then(|| Duration::from_secs_f64(HOUR / self.updates_per_hour))
    }

    /// The `count`th report of a device.
    pub(crate) fn report(&self, count: u64) -> String {
        let filling = "x".repeat(self.report_bytes);
        format!(r#"{{"state":{{"reported":{{"count":{count},"filling":"{filling}"}}}}}}"#)
    }
}
