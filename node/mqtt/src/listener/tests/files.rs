//! Out of files.

use std::{fs, io::Read, net::TcpStream, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Wire, run};
use crate::{
    limits::Limits,
    reason::ProtocolVersion,
    testing::{connect, eventually, greet},
};

fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").expect("Linux").count() as u64
}

/// Hundredths of a second of CPU this process has used.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let field = |index| fields.split_whitespace().nth(index).expect("a field");
    [11, 12]
        .map(|index| field(index).parse::<u64>().expect("a number"))
        .iter()
        .sum()
}

/// Changes a limit of the whole process: only where each test has its own.
#[tokio::test]
async fn without_files_the_loop_waits_refuses_and_recovers() {
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    let running = run(Wire::Tcp, false, Limits::default());
    // The loop is there, and has its reserve.
    let mut established = tokio::net::TcpStream::connect(running.address)
        .await
        .expect("open");
    greet(&mut established, ProtocolVersion::V5, 0).await;
    // They wait in the kernel's queue: nothing runs on this thread until the limit is lowered.
    let mut waiting: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(running.address).expect("queued"))
        .collect();
    for stream in &mut waiting {
        std::io::Write::write_all(stream, &connect(ProtocolVersion::V5, 0)).expect("queued");
    }
    let before = getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: Some(open_files() + 3),
        ..before
    };
    setrlimit(Resource::Nofile, lowered).expect("lowering is allowed");
    let cpu = cpu_ticks();
    // Over which its processor time is measured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let opened = running.gate.change(|script| script.peers.len());
    assert!(opened < 10, "{opened} were opened with 3 files");
    tokio::io::AsyncWriteExt::write_all(&mut established, &[0xC0, 0])
        .await
        .expect("open");
    crate::testing::expect(&mut established, &[0xD0, 0]).await;
    setrlimit(Resource::Nofile, before).expect("raising to what it was is allowed");
    let used = cpu_ticks() - cpu;
    assert!(used < 100, "{used} of 200 ticks: the loop spins");
    let mut refused = 0;
    for stream in &mut waiting {
        stream.set_nonblocking(true).expect("a socket");
        let mut bytes = [0; 8];
        refused += usize::from(!matches!(stream.read(&mut bytes), Ok(count) if count > 0));
    }
    assert!(
        refused > 30,
        "{refused} were refused while there was no file"
    );
    eventually("new clients are served", || {
        let mut fresh = TcpStream::connect(running.address).expect("queued");
        std::io::Write::write_all(&mut fresh, &connect(ProtocolVersion::V5, 0)).is_ok()
            && running.gate.change(|script| script.peers.len()) > opened
    })
    .await;
}
