//! The journal against a plain buffer.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::id::SessionId;
use crate::size::WindowSize;

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("agentapi-journal-{}", SessionId::generate()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn fd(&self) -> OwnedFd {
        fs::File::open(&self.0).unwrap().into()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn writer(dir: &TempDir, bytes_max: u64) -> JournalWriter {
    JournalWriter::create(dir.fd(), SessionId::generate(), 1, bytes_max).unwrap()
}

fn read_all(reader: &mut JournalReader) -> (Vec<u8>, Vec<(u64, WindowSize)>) {
    let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Output { bytes: more, .. } => bytes.extend(more),
            Item::Resize { offset, size } => sizes.push((offset, size)),
        }
    }
    (bytes, sizes)
}

fn append_to(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_suffix_is_read_back(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200_000), 1..12), cut in 0.0f64..1.0) {
        let dir = TempDir::new();
        let mut journal = writer(&dir, 64 * 1024 * 1024);
        let mut all = Vec::new();
        for chunk in &chunks {
            journal.output(chunk, 7).unwrap();
            all.extend_from_slice(chunk);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any offset within will do")]
        let from = (all.len() as f64 * cut) as usize;
        let mut reader = JournalReader::open(dir.fd(), from as u64).unwrap();
        prop_assert_eq!(read_all(&mut reader).0, &all[from..]);
        journal.output(b"later", 8).unwrap();
        prop_assert_eq!(read_all(&mut reader).0, b"later");
    }
}

#[test]
fn sizes_come_in_order_and_only_from_the_offset_on() {
    let dir = TempDir::new();
    let mut journal = writer(&dir, SEGMENT_BYTES);
    let (wide, narrow) = (WindowSize::clamped(200, 50), WindowSize::clamped(40, 10));
    journal.output(b"one", 0).unwrap();
    journal.resize(wide, 0).unwrap();
    journal.output(b"two", 0).unwrap();
    journal.resize(narrow, 0).unwrap();
    assert_eq!(
        read_all(&mut JournalReader::from_start(dir.fd()).unwrap()),
        (b"onetwo".to_vec(), vec![(3, wide), (6, narrow)])
    );
    assert_eq!(read_all(&mut JournalReader::open(dir.fd(), 4).unwrap()), (b"wo".to_vec(), vec![(6, narrow)]));
}

#[test]
fn the_oldest_segments_go_and_readers_are_told() {
    let dir = TempDir::new();
    let mut journal = writer(&dir, 2 * SEGMENT_BYTES);
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..400 {
        journal.output(&chunk, 0).unwrap();
    }
    let first = journal.first_offset();
    assert!(first > 0 && dir.files().len() <= 3, "first {first}, {} files", dir.files().len());
    assert!(
        matches!(JournalReader::open(dir.fd(), first - 1), Err(JournalError::Gone { wanted, .. }) if wanted == first - 1)
    );
    let kept = read_all(&mut JournalReader::from_start(dir.fd()).unwrap()).0;
    assert_eq!(kept.len() as u64, 400 * 64 * 1024 - first);
}

#[test]
fn damage_ends_reading_and_never_shows_wrong_bytes() {
    let dir = TempDir::new();
    let mut journal = writer(&dir, SEGMENT_BYTES);
    journal.output(b"good", 0).unwrap();
    journal.output(b"hurt", 0).unwrap();
    let path = dir.files().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(read_all(&mut JournalReader::from_start(dir.fd()).unwrap()).0, b"good");
    append_to(&path, &[1, 0, 0, 0, 255, 255]);
    assert_eq!(read_all(&mut JournalReader::from_start(dir.fd()).unwrap()).0, b"good");
}
