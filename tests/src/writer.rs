//! A program that logs: appends records in pieces, rotates its file, and remembers what it wrote.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rand::{Rng, RngExt};

use crate::{records::record, waiting::wait_until};

/// One log file, as its writer sees it.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    name: String,
    next: u64,
    written: Vec<Vec<u8>>,
    generations: u32,
}

impl Writer {
    /// Creates the file, or goes on appending to it.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn create(path: &Path) -> Result<Writer> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a log file's name")?
            .to_owned();
        Ok(Writer {
            path: path.to_owned(),
            file: append_to(path)?,
            name,
            next: 0,
            written: Vec::new(),
            generations: 0,
        })
    }

    /// The file's name, without folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All records that it has written, in order.
    #[must_use]
    pub fn written(&self) -> &[Vec<u8>] {
        &self.written
    }

    /// Appends `count` new records, cut into pieces at random places.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn append_random(&mut self, random: &mut impl Rng, count: usize) -> Result<()> {
        let records = (0..count)
            .map(|_| {
                self.next += 1;
                record(random, &self.name, self.next)
            })
            .collect::<Vec<_>>();
        self.append_in_pieces(random, &records)
    }

    /// Appends these records, cut into pieces at random places.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn append_in_pieces(&mut self, random: &mut impl Rng, records: &[Vec<u8>]) -> Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(record);
            bytes.push(b'\n');
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.random_range(1..=rest.len().min(4_000)));
            self.file.write_all(piece).context("append to a log")?;
            rest = after;
        }
        self.written.extend_from_slice(records);
        Ok(())
    }

    /// Appends one record.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        let line = [record, b"\n"].concat();
        self.file.write_all(&line).context("append to a log")?;
        self.written.push(record.to_vec());
        Ok(())
    }

    /// Appends a record without the line feed that would end it; nothing may be appended after it.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn append_unended(&mut self, record: &[u8]) -> Result<()> {
        self.file.write_all(record).context("append to a log")?;
        self.written.push(record.to_vec());
        Ok(())
    }

    /// Renames the file to the next `NAME.N` and creates a new one.
    ///
    /// # Errors
    /// The file could not be renamed or created.
    pub fn rotate_by_rename(&mut self) -> Result<()> {
        self.wait_for_a_later_stamp()?;
        let rotated = self.next_generation();
        fs::rename(&self.path, rotated).context("rename a log")?;
        self.file = append_to(&self.path)?;
        Ok(())
    }

    /// Waits until the file system would stamp a write later than the last one to this log: the order of two generations that
    /// nobody saw under their name, and that carry one and the same time, is not to be found out by anybody.
    fn wait_for_a_later_stamp(&self) -> Result<()> {
        let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
        let last = modified(&self.path).context("look at a log")?;
        let probe = self.path.with_file_name(".stamp");
        wait_until("the file system's clock moves on", || {
            fs::write(&probe, "x").context("write a probe")?;
            Ok(modified(&probe).context("look at a probe")? > last)
        })
    }

    /// Copies the file to the next `NAME.N` and empties it.
    ///
    /// # Errors
    /// The file could not be copied or truncated.
    pub fn rotate_by_copy(&mut self) -> Result<()> {
        let rotated = self.next_generation();
        fs::copy(&self.path, rotated).context("copy a log")?;
        self.file.set_len(0).context("truncate a log")?;
        Ok(())
    }

    fn next_generation(&mut self) -> PathBuf {
        self.generations += 1;
        self.path
            .with_file_name(format!("{}.{}", self.name, self.generations))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
