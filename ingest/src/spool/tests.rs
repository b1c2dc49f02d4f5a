#![allow(clippy::unwrap_used)] // a test may panic

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const PARTITIONS: u32 = 4;

fn config(path: &Path) -> SpoolConfig {
    SpoolConfig {
        path: Some(path.to_owned()),
        max_bytes: 1024 * 1024,
        ack: SpoolAck::Spool,
        ..Default::default()
    }
}

fn open(directory: &TempDir) -> Spool {
    Spool::open(&config(directory.path()), PARTITIONS).unwrap().unwrap()
}

fn put(spool: &mut Spool, numbers: impl IntoIterator<Item = u64>) -> usize {
    let payloads: Vec<_> = numbers.into_iter().map(|number| (number, payload(number))).collect();
    let records: Vec<_> = payloads
        .iter()
        .map(|(number, payload)| Record { number: *number, partition: (number % 2) as u32, payload })
        .collect();
    spool.put(&records)
}

fn payload(number: u64) -> Vec<u8> {
    format!("{{\"number\":{number}}}\n").into_bytes()
}

/// Sends and delivers everything of a partition; the numbers as they went.
fn drain(spool: &mut Spool, partition: u32) -> Vec<u64> {
    let mut sent = Vec::new();
    while let Some((number, bytes)) = spool.first(partition) {
        if let Some(read) = spool.send_first(partition).unwrap() {
            assert_eq!((read.len(), &read), (bytes, &payload(number)));
            sent.push(number);
            spool.delivered(number);
        }
    }
    sent
}

fn files(directory: &TempDir, extension: &str) -> Vec<PathBuf> {
    let own = directory.path().join("0");
    let mut found: Vec<_> = fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    found
}

#[test]
fn a_partition_leaves_by_rising_number_and_the_disk_is_empty_afterwards() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    assert_eq!(put(&mut spool, [10, 11, 12, 13]), 4);
    // It had set out before them, and came back.
    assert_eq!(put(&mut spool, [8]), 1);
    assert!(spool.waits(0) && spool.waits(1) && !spool.waits(2));
    assert_eq!(drain(&mut spool, 0), [8, 10, 12]);
    assert_eq!(files(&directory, "spool").len(), 1);
    assert_eq!(drain(&mut spool, 1), [11, 13]);
    assert!(spool.is_empty());
    assert_eq!((spool.bytes, files(&directory, "spool").len()), (0, 0));
}

#[test]
fn what_was_not_delivered_goes_again_and_first() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 4, 6]);
    spool.send_first(0).unwrap();
    spool.send_first(0).unwrap();
    spool.back(4);
    spool.back(2);
    assert_eq!(drain(&mut spool, 0), [2, 4, 6]);
}

#[test]
fn a_new_process_finishes_what_the_last_one_had_taken() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 3, 4]);
    spool.send_first(0).unwrap();
    spool.delivered(2);
    drop(spool);
    let mut spool = open(&directory);
    assert_eq!(spool.highest(), 4);
    put(&mut spool, [6]);
    // 2 had been delivered, but its segment was still there: it goes twice, rather than not at all.
    assert_eq!(drain(&mut spool, 0), [2, 4, 6]);
    assert_eq!(drain(&mut spool, 1), [3]);
    assert_eq!(files(&directory, "spool").len(), 0);
}

#[test]
fn a_torn_tail_is_cut_and_what_is_before_it_goes() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 4]);
    drop(spool);
    let segment = &files(&directory, "spool")[0];
    let length = fs::metadata(segment).unwrap().len();
    fs::File::options().write(true).open(segment).unwrap().set_len(length - 3).unwrap();
    drop(open(&directory));
    assert_eq!(frames(&fs::read(segment).unwrap()).count(), 1);
    let mut spool = open(&directory);
    assert_eq!(drain(&mut spool, 0), [2]);
    assert_eq!((files(&directory, "spool").len(), files(&directory, "bad").len()), (0, 0));
}

#[test]
fn damage_in_the_middle_costs_the_rest_of_that_segment_and_keeps_it_aside() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 4, 6]);
    drop(spool);
    // A segment of its own.
    let mut spool = open(&directory);
    put(&mut spool, [8]);
    drop(spool);
    let segment = &files(&directory, "spool")[0];
    let mut bytes = fs::read(segment).unwrap();
    let second = frames(&bytes).nth(1).unwrap().offset;
    bytes[second + HEADER_BYTES + 2] ^= 1;
    fs::write(segment, &bytes).unwrap();
    let mut spool = open(&directory);
    assert_eq!(drain(&mut spool, 0), [2, 8]);
    assert!(spool.is_empty());
    let bad = files(&directory, "bad");
    assert_eq!((bad.len(), files(&directory, "spool").len()), (1, 0));
    assert_eq!(fs::read(&bad[0]).unwrap(), bytes, "as it was");
    // It is not read again, but counts as used.
    drop(spool);
    let spool = open(&directory);
    assert!(spool.is_empty());
    assert_eq!(spool.bytes, bytes.len() as u64);
}

#[test]
fn damage_that_comes_later_is_seen_when_the_record_is_read() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 4, 6]);
    let segment = &files(&directory, "spool")[0];
    let mut bytes = fs::read(segment).unwrap();
    let second = frames(&bytes).nth(1).unwrap().offset;
    bytes[second] ^= 1;
    fs::write(segment, &bytes).unwrap();
    assert_eq!(drain(&mut spool, 0), [2, 6]);
    assert_eq!((files(&directory, "bad").len(), files(&directory, "spool").len()), (1, 0));
}

#[test]
fn a_record_that_kafka_refuses_is_kept_aside_and_the_others_go_on() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 4]);
    spool.send_first(0).unwrap();
    spool.refused(2);
    assert_eq!(drain(&mut spool, 0), [4]);
    assert_eq!(frames(&fs::read(&files(&directory, "bad")[0]).unwrap()).count(), 2);
}

#[test]
fn a_full_spool_refuses_and_takes_again_when_it_has_drained() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    let big = vec![b'x'; 100_000];
    let record = |number| Record { number, partition: 0, payload: &big };
    let records: Vec<_> = (0..12).map(record).collect();
    assert_eq!(spool.put(&records), 10, "1 MiB holds ten, in order");
    assert_eq!(spool.put(&[record(20)]), 0);
    assert!(!spool.has_room());
    let on_disk: u64 = files(&directory, "spool").iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(on_disk <= 1024 * 1024 && on_disk == spool.bytes, "{on_disk} bytes");
    // Small ones in segments of 64 KiB give their room back as they go.
    for number in 0..10 {
        spool.send_first(0).unwrap();
        spool.delivered(number);
    }
    assert_eq!((spool.put(&[record(21)]), spool.has_room()), (1, true));
}

#[test]
fn segments_are_deleted_as_they_drain() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    let big = vec![b'x'; 40_000];
    for number in 0..20 {
        assert_eq!(spool.put(&[Record { number, partition: 0, payload: &big }]), 1);
    }
    let segments = files(&directory, "spool").len();
    assert!(segments >= 10, "{segments} segments of 64 KiB");
    for number in 0..10 {
        spool.send_first(0).unwrap();
        spool.delivered(number);
    }
    assert_eq!(files(&directory, "spool").len(), segments - 5);
}

/// What the disk does next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    /// Half of the bytes are written, then there is no room.
    Full,
    WriteFails,
    SyncFails,
}

struct Failing {
    file: fs::File,
    fate: Arc<Mutex<Fate>>,
}

impl Medium for Failing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match *self.fate.lock().unwrap() {
            Fate::Full => {
                self.file.append(&bytes[..bytes.len() / 2])?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Fate::WriteFails => Err(io::Error::other("EIO")),
            _ => self.file.append(bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match *self.fate.lock().unwrap() {
            Fate::SyncFails => Err(io::Error::other("EIO")),
            _ => self.file.sync(),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.cut(length)
    }
}

fn failing(directory: &TempDir) -> (Spool, Arc<Mutex<Fate>>) {
    let fate = Arc::new(Mutex::new(Fate::Fine));
    let given = Arc::clone(&fate);
    let create: Create = Box::new(move |path| {
        let file = fs::File::options().append(true).create_new(true).open(path)?;
        Ok(Box::new(Failing { file, fate: Arc::clone(&given) }))
    });
    (Spool::open_with(directory.path(), &config(directory.path()), PARTITIONS, create).unwrap(), fate)
}

#[test]
fn a_full_disk_refuses_until_there_is_room_and_leaves_no_half_record() {
    let directory = TempDir::new().unwrap();
    let (mut spool, fate) = failing(&directory);
    assert_eq!(put(&mut spool, [2]), 1);
    *fate.lock().unwrap() = Fate::Full;
    assert_eq!(put(&mut spool, [4, 6]), 0);
    assert!(!spool.has_room());
    *fate.lock().unwrap() = Fate::Fine;
    assert_eq!(put(&mut spool, [8]), 1);
    assert!(spool.has_room());
    let bytes = fs::read(&files(&directory, "spool")[0]).unwrap();
    let mut read = frames(&bytes);
    assert_eq!(read.by_ref().map(|frame| frame.number).collect::<Vec<_>>(), [2, 8]);
    assert_eq!(read.ending(), Some(Ending::Whole));
    assert_eq!(drain(&mut spool, 0), [2, 8]);
}

#[test]
fn a_disk_that_is_full_from_the_start_leaves_no_empty_files() {
    let directory = TempDir::new().unwrap();
    let (mut spool, fate) = failing(&directory);
    *fate.lock().unwrap() = Fate::Full;
    (0..5).for_each(|number| assert_eq!(put(&mut spool, [number]), 0));
    assert_eq!(files(&directory, "spool").len(), 0);
}

#[rstest]
#[case::write(Fate::WriteFails)]
#[case::sync(Fate::SyncFails)]
fn after_an_error_of_the_disk_nothing_is_taken_and_what_was_taken_still_goes(#[case] error: Fate) {
    let directory = TempDir::new().unwrap();
    let (mut spool, fate) = failing(&directory);
    assert_eq!(put(&mut spool, [2, 4]), 2);
    *fate.lock().unwrap() = error;
    assert_eq!(put(&mut spool, [6]), 0, "not taken, so never acked");
    *fate.lock().unwrap() = Fate::Fine;
    assert_eq!(put(&mut spool, [8]), 0, "nobody knows what a disk does after that");
    assert!(!spool.has_room());
    assert_eq!(drain(&mut spool, 0), [2, 4]);
    drop(spool);
    assert_eq!(put(&mut open(&directory), [10]), 1, "a new start is a new try");
}

#[test]
fn processes_that_share_a_path_have_a_directory_each_and_inherit_from_those_that_ended() {
    let directory = TempDir::new().unwrap();
    let mut first = open(&directory);
    let mut second = open(&directory);
    put(&mut first, [2]);
    put(&mut second, [4]);
    assert_eq!(open(&directory).records(), 0, "what a living process holds is its own");
    drop((first, second));
    let mut heir = open(&directory);
    assert_eq!(drain(&mut heir, 0), [2, 4]);
}

#[test]
fn records_of_a_partition_that_is_gone_are_kept_aside() {
    let directory = TempDir::new().unwrap();
    let mut spool = open(&directory);
    put(&mut spool, [2, 3]);
    drop(spool);
    let mut spool = Spool::open(&config(directory.path()), 1).unwrap().unwrap();
    assert_eq!(spool.partitions(), [0]);
    assert_eq!(drain(&mut spool, 0), [2]);
    assert_eq!(files(&directory, "bad").len(), 1);
}

#[test]
fn without_a_path_or_without_room_there_is_no_spool() {
    let directory = TempDir::new().unwrap();
    assert!(Spool::open(&SpoolConfig::default(), PARTITIONS).unwrap().is_none());
    let none = SpoolConfig { max_bytes: 0, ..config(directory.path()) };
    assert!(Spool::open(&none, PARTITIONS).unwrap().is_none());
}
