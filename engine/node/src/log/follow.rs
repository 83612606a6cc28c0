//! One reading of a log, followed while the container runs: inotify on the log's folder tells of growth and of rotation;
//! nothing is asked in between.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;

use super::Query;
use super::files::{open_all, replaced};
use super::line::Renderer;
use super::read::{Lines, tail_start};

type Chunks = Sender<io::Result<Bytes>>;

/// Sends what `query` asks for; returns when all is sent, the reader is gone, or `ended` resolved and the rest was sent.
pub(super) async fn run(
    path: &Path,
    query: &Query,
    ended: impl Future<Output = ()>,
    chunks: &Chunks,
) -> io::Result<()> {
    // The watch stands before the first reading, so no growth after that reading goes unnoticed.
    let watch = if query.follow { Some(Watch::of_folder(path)?) } else { None };
    let mut reading = Reading { renderer: Renderer::new(query), lines: None };
    if !reading.start(path, query, chunks).await? {
        return Ok(());
    }
    let Some(mut watch) = watch else { return Ok(()) };
    tokio::pin!(ended);
    loop {
        let over = tokio::select! {
            changed = watch.changed() => { changed?; false }
            () = &mut ended => true,
            () = chunks.closed() => return Ok(()),
        };
        if !reading.go_on(path, chunks).await? || over {
            return Ok(());
        }
    }
}

struct Reading {
    renderer: Renderer,
    lines: Option<Lines>,
}

impl Reading {
    /// What is there already; `false` when the reader wants no more.
    async fn start(&mut self, path: &Path, query: &Query, chunks: &Chunks) -> io::Result<bool> {
        let files = open_all(path)?;
        let (first, offset) = query.tail.map_or(Ok((0, 0)), |lines| tail_start(&files, lines))?;
        for (number, file) in files.into_iter().enumerate().skip(first) {
            self.lines = Some(Lines::from(file, if number == first { offset } else { 0 })?);
            if !self.drain(chunks).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What has come since, across rotations.
    async fn go_on(&mut self, path: &Path, chunks: &Chunks) -> io::Result<bool> {
        loop {
            if !self.drain(chunks).await? {
                return Ok(false);
            }
            let fresh = match &self.lines {
                Some(lines) => replaced(path, lines.file())?,
                None => path.exists(),
            };
            if !fresh {
                return Ok(true);
            }
            // What was written to the old file between the reading and the rotation.
            if !self.drain(chunks).await? {
                return Ok(false);
            }
            self.lines = Some(Lines::from(std::fs::File::open(path)?, 0)?);
        }
    }

    async fn drain(&mut self, chunks: &Chunks) -> io::Result<bool> {
        let Some(lines) = &mut self.lines else { return Ok(true) };
        loop {
            let mut out = Vec::new();
            let renderer = &mut self.renderer;
            let more = lines.block(|line| renderer.render(line, &mut out))?;
            if !out.is_empty() && chunks.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(false);
            }
            if self.renderer.full() {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
        }
    }
}

/// Events of one folder.
struct Watch {
    events: AsyncFd<OwnedFd>,
}

impl Watch {
    fn of_folder(path: &Path) -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&descriptor, folder, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        #[expect(
            deprecated,
            reason = "the descriptor is owned here and never replaced, so the safe constructor is sound"
        )]
        let events = AsyncFd::new(descriptor)?;
        Ok(Self { events })
    }

    /// Resolves when something happened; all that is known by then counts as one.
    async fn changed(&mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = self.events.readable().await?;
            match rustix::io::read(self.events.get_ref(), &mut space[..]) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
