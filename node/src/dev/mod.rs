//! `umbel dev`: everything a newcomer needs, made on the spot.
//!
//! It writes an ordinary configuration file and starts an ordinary node from it, so that what is tried out is what
//! will run.

mod many;
pub mod simulate;
mod watch;

use std::{
    fs,
    future::Future,
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
    /// The authority's folder.
    authority: PathBuf,
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
    let ports = (!args.any_port).then_some(0);
    let text = configuration(&folder.join("state"), &authority_folder, ports, "");
    fs::write(&config, text).with_context(|| config.display().to_string())?;
    Ok(Files {
        config,
        ca: authority_folder.join(CERTIFICATE_FILE),
        authority: authority_folder,
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

/// An ordinary configuration. `ports` is added to the usual port numbers; none lets the system choose.
fn configuration(data: &Path, authority: &Path, ports: Option<u16>, cluster: &str) -> String {
    let port = |usual: u16| ports.map_or(0, |offset| usual + offset);
    let text = |path: PathBuf| toml::Value::String(path.display().to_string());
    format!(
        "# Written by `umbel dev`, every time it starts.\n\
         [node]\ndata_dir = {data}\n\n\
         {cluster}\
         [tls]\nca = {ca}\ncertificate = {certificate}\nkey = {key}\n\n\
         [http]\nbind = \"127.0.0.1:{http}\"\n\n\
         [aws]\nbind = \"127.0.0.1:{aws}\"\n\n\
         [[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:{mqtt}\"\nidentity = \"anonymous\"\n\n\
         [[listener]]\nname = \"mqtts\"\nkind = \"tls\"\nbind = \"127.0.0.1:{mqtts}\"\nidentity = \"certificate\"\n\n\
         [[listener]]\nname = \"ws\"\nkind = \"ws\"\nbind = \"127.0.0.1:{ws}\"\nidentity = \"anonymous\"\norigins = [\"localhost\"]\n",
        data = text(data.to_owned()),
        ca = text(authority.join("ca.pem")),
        certificate = text(authority.join("server.pem")),
        key = text(authority.join("server.key")),
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

/// Starts a cluster, plays devices on it, and tells what happens to it until it is asked to end.
pub async fn cluster(
    args: &DevArgs,
    files: &Files,
    ended: impl Future<Output = ()>,
    mut tell: impl FnMut(&str),
) -> Result<()> {
    let mut members = many::start(args, files).await?;
    if let Some(path) = &args.ports_file {
        crate::run::write_json(path, &many::ports_json(&members, &files.ca))?;
    }
    tell(&many_welcome(&members, args.devices).await);
    let brokers: Vec<_> = members.iter().map(|member| member.at.mqtt).collect();
    let devices = simulate::start(args.devices, &brokers);
    tokio::select! {
        () = ended => {},
        () = watch::watch(&mut members, &mut tell) => {},
    }
    drop(devices);
    many::end(members).await;
    Ok(())
}

/// Where the nodes are, and which one to kill to see the others go on.
async fn many_welcome(members: &[many::Member], devices: usize) -> String {
    let line = |member: &many::Member| {
        format!(
            "  node {}   MQTT {}   API http://{}   pid {}   {}",
            member.id,
            member.at.mqtt,
            member.at.http,
            member.pid(),
            member.log.display()
        )
    };
    let lines: Vec<_> = members.iter().map(line).collect();
    let (count, lines) = (members.len(), lines.join("\n"));
    let Some((first, last)) = members.first().zip(members.last()) else {
        return lines;
    };
    let nodes = match first.client() {
        Ok(client) => client
            .get(&["api", "v1", "cluster", "nodes"], &[])
            .await
            .ok(),
        Err(_) => None,
    };
    let owners = nodes.map(|nodes| watch::owners(&nodes)).unwrap_or_default();
    let more = if owners.contains(',') {
        ""
    } else {
        " shards and gives the others their part within seconds"
    };
    let thing = if devices > 0 {
        simulate::name(1)
    } else {
        "kettle".to_owned()
    };
    format!(
        "\nUmbel is ready: {count} nodes are one broker.\n\n{lines}\n\n\
         \x20 {owners}{more}\n\n\
         See it:\n\
         \x20 umbel ctl --server http://{http} nodes --watch\n\
         \x20 mosquitto_sub -h 127.0.0.1 -p {one} -t '$aws/things/{thing}/shadow/update/#' -v\n\
         \x20 mosquitto_pub -h 127.0.0.1 -p {other} -t '$aws/things/{thing}/shadow/update' -m '{{\"state\":{{\"desired\":{{\"interval\":5}}}}}}'\n\n\
         See it survive: kill node {id}, and look here.\n\
         \x20 kill -9 {pid}\n",
        http = first.at.http,
        one = first.at.mqtt.port(),
        other = last.at.mqtt.port(),
        id = last.id,
        pid = last.pid(),
    )
}
