//! The directory of this process: everything on the topic `footfall.directory`, below what the settings file declares,
//! read from the topic's beginning and followed for ever; and the way to change it.
//!
//! [`source`] reads records, [`contents`] makes a [`Directory`](footfall_schemas::directory::Directory) of them,
//! [`reader`] keeps it for whoever asks, [`writer`] changes it, [`sweep`] removes what is over, [`copy`] is the backup, [`command`] the
//! command line.

pub mod command;
mod contents;
mod copy;
mod reader;
mod source;
mod sweep;
mod writer;

pub use copy::{Line, read_copy, write_copy};
pub use reader::Reader;
pub use sweep::sweep;
pub use writer::Writer;
