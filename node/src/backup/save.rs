//! `umbel backup`: from the API into a file, checked on the way. The file gets its name only when it is whole.

use std::{
    fs::{self, OpenOptions},
    io::{BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::BodyExt as _;

use super::format::{End, Frame, Reader};
use crate::{cli::BackupArgs, ctl::client::Client};

/// Writes the backup and returns what to tell the user.
pub(crate) async fn save(args: &BackupArgs) -> Result<String> {
    let out = &args.out;
    ensure!(!out.exists(), "{} exists already", out.display());
    let draft = out.with_extension("draft");
    let written = download(&args.server, &draft).await;
    let checked = written.and_then(|bytes| Ok((bytes, check(&draft)?)));
    match checked {
        Ok((bytes, end)) => {
            fs::rename(&draft, out).with_context(|| out.display().to_string())?;
            let shards = end.shards;
            Ok(format!("{}: {shards} shards, {bytes} bytes", out.display()))
        },
        Err(error) => {
            // Half a backup is none, and would be in the way of the next.
            drop(fs::remove_file(&draft));
            Err(error)
        },
    }
}

async fn download(server: &str, draft: &Path) -> Result<u64> {
    let shown = || draft.display().to_string();
    let client = Client::new(server)?;
    let mut body = client.stream(&["api", "v1", "cluster", "backup"]).await?;
    // It holds everything devices ever said: nobody else reads it.
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)
        .with_context(shown)?;
    let (mut file, mut bytes) = (BufWriter::new(file), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the node gave up; its log says why")?;
        if let Some(data) = frame.data_ref() {
            file.write_all(data).with_context(shown)?;
            bytes += data.len() as u64;
        }
    }
    file.flush().with_context(shown)?;
    file.get_ref().sync_all().with_context(shown)?;
    Ok(bytes)
}

/// Reads the file as a restore would.
fn check(draft: &Path) -> Result<End> {
    let file = fs::File::open(draft).with_context(|| draft.display().to_string())?;
    let mut reader = Reader::open(BufReader::new(file))?;
    loop {
        if let Frame::End(end) = reader.next()? {
            if reader.is_at_end()? {
                return Ok(end);
            }
            bail!("bytes follow the end");
        }
    }
}
