//! One file of the spool.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::frame::{self, Ending, Frame, HEADER_BYTES};

/// What a segment is written to: a file, or in tests a disk that fails.
pub(super) trait Medium: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back what is behind `length`.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

pub(super) type Create = Box<dyn Fn(&Path) -> io::Result<Box<dyn Medium>> + Send>;

/// A file that is not there yet, opened to append.
pub(super) fn create(path: &Path) -> io::Result<Box<dyn Medium>> {
    Ok(Box::new(File::options().append(true).create_new(true).open(path)?))
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u64,
    offset: u32,
    /// Of the payload.
    length: u32,
}

impl Place {
    pub(super) fn new(segment: u64, offset: usize, length: usize) -> Self {
        // Segments are far smaller than 4 GiB.
        Self { segment, offset: offset as u32, length: length as u32 }
    }

    pub(super) fn payload_bytes(self) -> usize {
        self.length as usize
    }
}

pub(super) struct Segment {
    path: PathBuf,
    file: File,
    pub(super) bytes: u64,
    /// Frames that are not in Kafka yet.
    pub(super) pending: usize,
    /// Something in it could not be delivered: it is kept aside, not deleted.
    pub(super) flawed: bool,
}

impl Segment {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes, pending: 0, flawed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells every whole frame to `each`, and how the segment ends.
    pub(super) fn scan(&self, mut each: impl FnMut(Frame<'_>)) -> io::Result<Ending> {
        let bytes = fs::read(&self.path)?;
        let mut frames = frame::frames(&bytes);
        frames.by_ref().for_each(&mut each);
        Ok(frames.ending().unwrap_or(Ending::Whole))
    }

    pub(super) fn cut(&mut self, at: usize) -> io::Result<()> {
        File::options().write(true).open(&self.path)?.set_len(at as u64)?;
        self.bytes = at as u64;
        Ok(())
    }

    /// The payload of a frame; `InvalidData` when it is not what was written.
    pub(super) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; HEADER_BYTES + place.payload_bytes()];
        self.file.read_exact_at(&mut bytes, place.offset.into())?;
        if frame::parse_one(&bytes).is_none() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.drain(..HEADER_BYTES);
        Ok(bytes)
    }

    /// Everything in it is in Kafka, or is kept aside with it. Gives the bytes that are free again.
    pub(super) fn retire(self) -> io::Result<u64> {
        if self.flawed {
            fs::rename(&self.path, self.path.with_extension("bad"))?;
            return Ok(0);
        }
        fs::remove_file(&self.path)?;
        Ok(self.bytes)
    }
}
