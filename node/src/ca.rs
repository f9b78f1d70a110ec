//! `umbel ca`: the local authority from the command line.

use std::path::Path;

use anyhow::{Context, Result};
use umbel_actors::ports::Clock;
use umbel_core::ids::DeviceId;
use umbel_pki::{Authority, CERTIFICATE_FILE};

use crate::{
    cli::{CaArgs, CaCommand},
    clock::SystemClock,
};

/// Runs one command and returns what to tell the user.
pub fn run(args: CaArgs) -> Result<String> {
    let now = SystemClock::start().wall();
    let folder = args.dir;
    match args.command {
        CaCommand::Init { name } => {
            Authority::create(&folder, &name, now)?;
            Ok(format!(
                "authority: {}",
                folder.join(CERTIFICATE_FILE).display()
            ))
        },
        CaCommand::Issue { device, out } => {
            let device = DeviceId::parse(&device).with_context(|| format!("`{device}`"))?;
            let out = out.unwrap_or_else(|| beside(&folder, "devices"));
            let issued = load(&folder)?.issue_device(&device, now)?;
            let (certificate, key) = issued.write(&out, device.as_str())?;
            Ok(format!(
                "certificate: {}\nkey: {}",
                certificate.display(),
                key.display()
            ))
        },
        CaCommand::Server { names, out } => {
            let issued = load(&folder)?.issue_server(&names, now)?;
            let (certificate, key) = issued.write(&out.unwrap_or(folder), "server")?;
            Ok(format!(
                "certificate: {}\nkey: {}",
                certificate.display(),
                key.display()
            ))
        },
    }
}

fn load(folder: &Path) -> Result<Authority> {
    Authority::load(folder).with_context(|| {
        format!(
            "no authority in {}; `umbel ca init` makes one",
            folder.display()
        )
    })
}

fn beside(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.parent().unwrap_or(folder).join(name)
}
