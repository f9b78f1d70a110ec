//! One connection after its handshake: reading, writing, and noticing that it is dead.

use std::{
    fmt,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    super::metrics::Meters,
    frame::{Decoder, Frame, FrameError},
    outbox::Outbox,
};

/// Frames are collected up to here for one write: a few TLS records.
const WRITE_BYTES: usize = 64 << 10;
/// A body from here on is written from where it lies.
const LARGE_BYTES: usize = 32 << 10;

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The other side closed it.
    Closed,
    /// The other side said farewell, and why.
    Farewell(String),
    /// The system broke it.
    Reset(String),
    /// Nothing was heard for too long.
    Silent,
    /// What came are no frames, or not for here.
    Protocol(String),
    /// This side ended it, and why.
    Cut(&'static str),
}

impl End {
    /// A closed label for the counter.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Closed | Self::Farewell(_) => "closed",
            Self::Reset(_) => "reset",
            Self::Silent => "silent",
            Self::Protocol(_) => "protocol",
            Self::Cut(_) => "cut",
        }
    }

    /// Whether the other side's machine ended it: its process may be over.
    pub(super) fn is_reset(&self) -> bool {
        matches!(self, Self::Closed | Self::Farewell(_) | Self::Reset(_))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other side closed it"),
            Self::Farewell(why) => write!(f, "the other side is {why}"),
            Self::Reset(error) => f.write_str(error),
            Self::Silent => f.write_str("nothing was heard for too long"),
            Self::Protocol(what) => write!(f, "it does not speak as agreed: {what}"),
            Self::Cut(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Reset(error.to_string())
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// How long nothing may be heard.
#[derive(Clone, Copy, Debug)]
pub(super) enum Watch {
    /// Asks so often, and gives up when so many questions in a row had no answer. Counted, not timed: a node that was
    /// itself paused hears what waits for it before it judges.
    Ask { every: Duration, missed_max: u32 },
    /// Listens so often whether anything came since.
    Listen { every: Duration },
}

/// What is common to both directions of a connection.
pub(super) struct Wire<'a> {
    pub(super) outbox: &'a Outbox,
    pub(super) meters: &'a Meters,
    pub(super) body_bytes_max: usize,
    /// Looks without a word from the other side.
    missed: AtomicU32,
}

impl<'a> Wire<'a> {
    pub(super) fn new(outbox: &'a Outbox, meters: &'a Meters, body_bytes_max: usize) -> Self {
        Self {
            outbox,
            meters,
            body_bytes_max,
            missed: AtomicU32::new(0),
        }
    }

    /// Runs until the connection ends. `take` gets every frame that is not about the connection itself; it may await, but
    /// never for long.
    pub(super) async fn run<S, F>(
        &self,
        stream: S,
        watch: Watch,
        take: impl FnMut(Frame) -> F,
    ) -> End
    where
        S: AsyncRead + AsyncWrite,
        F: Future<Output = Result<(), End>>,
    {
        let (reader, writer) = tokio::io::split(stream);
        // Reading first: what has arrived counts before silence does.
        tokio::select! {
            biased;
            end = self.read(reader, take) => end,
            end = self.write(writer) => end,
            () = self.watch(watch) => End::Silent,
        }
    }

    async fn read<F: Future<Output = Result<(), End>>>(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut take: impl FnMut(Frame) -> F,
    ) -> End {
        let mut decoder = Decoder::new(self.body_bytes_max);
        loop {
            match decoder.fill(&mut reader).await {
                Ok(0) => return End::Closed,
                Ok(read) => self.meters.bytes_in.increment(read as u64),
                Err(error) => return error.into(),
            }
            self.missed.store(0, Ordering::Relaxed);
            let mut frames = 0;
            loop {
                let frame = match decoder.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => return error.into(),
                };
                frames += 1;
                let taken = match frame {
                    Frame::Ping(id) => {
                        self.outbox.signal(Frame::Pong(id));
                        Ok(())
                    },
                    Frame::Pong(_) => Ok(()),
                    Frame::Goaway(why) => Err(End::Farewell(why)),
                    Frame::Request { .. } | Frame::Notice { .. } | Frame::Answer { .. } => {
                        take(frame).await
                    },
                };
                if let Err(end) = taken {
                    return end;
                }
            }
            self.meters.frames_in.increment(frames);
        }
    }

    async fn write(&self, mut writer: impl AsyncWrite + Unpin) -> End {
        let mut frames = Vec::new();
        let mut buffer = Vec::new();
        loop {
            self.outbox.collect(WRITE_BYTES, &mut frames);
            if frames.is_empty() {
                self.outbox.ready().await;
                // Whoever is about to queue something gets the chance to be in the same write.
                tokio::task::yield_now().await;
                continue;
            }
            let farewell = frames.iter().any(|frame| matches!(frame, Frame::Goaway(_)));
            self.meters.frames_out.increment(frames.len() as u64);
            if let Err(error) = self.put(&mut writer, &mut frames, &mut buffer).await {
                return error.into();
            }
            if farewell {
                drop(writer.shutdown().await);
                return End::Cut("stopping");
            }
        }
    }

    async fn put(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        frames: &mut Vec<Frame>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut bytes = 0;
        for frame in frames.drain(..) {
            let body = frame.head(buffer);
            if body.len() < LARGE_BYTES {
                buffer.extend_from_slice(&body);
                continue;
            }
            bytes += buffer.len() + body.len();
            self.meters.wrote(2);
            writer.write_all(buffer).await?;
            buffer.clear();
            for piece in body.chunks(WRITE_BYTES) {
                writer.write_all(piece).await?;
                // On a slow network a ping waits long behind a large body. That the network takes the body is a sign of
                // life meanwhile: of a dead one it takes no more than the system's buffer.
                self.missed.store(0, Ordering::Relaxed);
            }
        }
        if !buffer.is_empty() {
            bytes += buffer.len();
            self.meters.wrote(1);
            writer.write_all(buffer).await?;
        }
        buffer.clear();
        buffer.shrink_to(2 * WRITE_BYTES);
        self.meters.bytes_out.increment(bytes as u64);
        writer.flush().await
    }

    /// Ends when the other side is taken for dead.
    async fn watch(&self, watch: Watch) {
        let (every, missed_max) = match watch {
            Watch::Ask { every, missed_max } => (every, missed_max),
            Watch::Listen { every } => (every, 1),
        };
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for id in 0.. {
            ticks.tick().await;
            if self.missed.fetch_add(1, Ordering::Relaxed) >= missed_max {
                return;
            }
            if matches!(watch, Watch::Ask { .. }) {
                self.outbox.signal(Frame::Ping(id));
            }
        }
    }
}

/// A connection as others hold it.
pub(super) struct Conn {
    pub(super) outbox: Outbox,
    cut: tokio::sync::watch::Sender<Option<&'static str>>,
}

impl Conn {
    pub(super) fn new(outbox: Outbox) -> Arc<Self> {
        Arc::new(Self {
            outbox,
            cut: tokio::sync::watch::Sender::new(None),
        })
    }

    /// Ends it from this side.
    pub(super) fn cut(&self, why: &'static str) {
        self.cut.send_replace(Some(why));
    }

    /// Waits until this side ends it.
    pub(super) async fn is_cut(&self) -> End {
        let mut cut = self.cut.subscribe();
        let why = match cut.wait_for(Option::is_some).await {
            Ok(why) => *why,
            Err(_) => None,
        };
        End::Cut(why.unwrap_or("it is not needed any more"))
    }
}
