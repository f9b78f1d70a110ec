//! `umbel dev`: everything a newcomer needs, made on the spot.
//!
//! It writes an ordinary configuration file and starts an ordinary node from it, so that what is tried out is what
//! will run.

pub mod simulate;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use umbel_actors::ports::Clock;
use umbel_core::ids::DeviceId;
use umbel_pki::{Authority, CERTIFICATE_FILE};

use crate::{cli::DevArgs, clock::SystemClock, wire::Endpoints};

/// The device whose certificate the copy-paste commands use.
const SAMPLE_DEVICE: &str = "lamp";

/// Files of a development node.
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// The authority's certificate.
    pub ca: PathBuf,
    sample: (PathBuf, PathBuf),
}

/// Makes certificates and a configuration in the data folder. What is there already is kept, except the
/// configuration, which follows the arguments.
pub fn prepare(args: &DevArgs) -> Result<Files> {
    let folder = std::path::absolute(&args.data)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let now = SystemClock::start().wall();
    let authority_folder = folder.join("ca");
    let authority = Authority::open(&authority_folder, "Umbel development authority", now)?;
    let names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .chain(args.names.iter().cloned())
        .collect();
    authority
        .issue_server(&names, now)?
        .write(&authority_folder, "server")?;
    let sample = sample_certificate(&authority, &folder, now)?;
    let config = folder.join("umbel.toml");
    fs::write(&config, configuration(&folder, args.any_port))
        .with_context(|| config.display().to_string())?;
    Ok(Files {
        config,
        ca: authority_folder.join(CERTIFICATE_FILE),
        sample,
    })
}

fn sample_certificate(
    authority: &Authority,
    folder: &Path,
    now: umbel_core::time::Timestamp,
) -> Result<(PathBuf, PathBuf)> {
    let devices = folder.join("devices");
    let file = |suffix: &str| devices.join(format!("{SAMPLE_DEVICE}.{suffix}"));
    if !file("pem").exists() || !file("key").exists() {
        let device = DeviceId::parse(SAMPLE_DEVICE)?;
        authority
            .issue_device(&device, now)?
            .write(&devices, SAMPLE_DEVICE)?;
    }
    Ok((file("pem"), file("key")))
}

fn configuration(folder: &Path, any_port: bool) -> String {
    let port = |usual: u16| if any_port { 0 } else { usual };
    let path = |name: &str| toml::Value::String(folder.join(name).display().to_string());
    format!(
        "# Written by `umbel dev`, every time it starts.\n\
         [node]\ndata_dir = {data}\n\n\
         [tls]\nca = {ca}\ncertificate = {certificate}\nkey = {key}\n\n\
         [http]\nbind = \"127.0.0.1:{http}\"\n\n\
         [aws]\nbind = \"127.0.0.1:{aws}\"\n\n\
         [[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:{mqtt}\"\nidentity = \"anonymous\"\n\n\
         [[listener]]\nname = \"mqtts\"\nkind = \"tls\"\nbind = \"127.0.0.1:{mqtts}\"\nidentity = \"certificate\"\n\n\
         [[listener]]\nname = \"ws\"\nkind = \"ws\"\nbind = \"127.0.0.1:{ws}\"\nidentity = \"anonymous\"\norigins = [\"localhost\"]\n",
        data = path("state"),
        ca = path("ca/ca.pem"),
        certificate = path("ca/server.pem"),
        key = path("ca/server.key"),
        http = port(8080),
        aws = port(8443),
        mqtt = port(1883),
        mqtts = port(8883),
        ws = port(8083),
    )
}

/// Endpoints, and three commands that work when copied.
pub fn welcome(files: &Files, at: &Endpoints, devices: usize) -> String {
    let address = |name: &str| {
        at.listeners
            .get(name)
            .map_or_else(|| "off".to_owned(), ToString::to_string)
    };
    let port = |name: &str| at.listeners.get(name).map_or(0, std::net::SocketAddr::port);
    let http = at
        .http
        .map_or_else(|| "off".to_owned(), |http| format!("http://{http}"));
    let aws = at.aws.map_or_else(
        || "off".to_owned(),
        |aws| format!("https://localhost:{}", aws.port()),
    );
    let (certificate, key) = (files.sample.0.display(), files.sample.1.display());
    let thing = if devices > 0 {
        simulate::name(1)
    } else {
        "kettle".to_owned()
    };
    format!(
        "\n\
         Umbel is ready.\n\n\
         \x20 MQTT              {mqtt}   (anyone on this machine)\n\
         \x20 MQTT over TLS     {mqtts}   (device certificates)\n\
         \x20 MQTT, WebSocket   {ws}\n\
         \x20 API               {http}/api/v1/devices   /readyz   /metrics\n\
         \x20 AWS data plane    {aws}\n\n\
         Watch a device's shadow change:\n\
         \x20 mosquitto_sub -h 127.0.0.1 -p {mqtt_port} -t '$aws/things/{thing}/shadow/update/#' -v\n\n\
         Tell it what to be:\n\
         \x20 mosquitto_pub -h 127.0.0.1 -p {mqtt_port} -t '$aws/things/{thing}/shadow/update' -m '{{\"state\":{{\"desired\":{{\"interval\":5}}}}}}'\n\n\
         Be a device, with a certificate:\n\
         \x20 mosquitto_pub -h localhost -p {mqtts_port} --cafile {ca} --cert {certificate} --key {key} -i {SAMPLE_DEVICE} \
         -t '$aws/things/{SAMPLE_DEVICE}/shadow/update' -m '{{\"state\":{{\"reported\":{{\"on\":true}}}}}}'\n",
        mqtt = address("mqtt"),
        mqtts = address("mqtts"),
        ws = address("ws"),
        mqtt_port = port("mqtt"),
        mqtts_port = port("mqtts"),
        ca = files.ca.display(),
    )
}
