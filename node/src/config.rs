//! Reading configuration: every problem at once, each with file, line, column, key, and what would be right.
use std::{
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

/// A size in bytes, written like `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A configuration file as text and tree (toml::de::DeTable, spanned); collects problems.
pub struct Document {
    /* path, text, line starts, RefCell<Vec<Problem>> */ _p: (),
}
/// `file:line:column: message`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub message: String,
}
/// All problems of a file, in the order of their places; Display prints one a line.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

/// One table while it is read: keys taken are remembered; those left over are unknown keys, reported (with the nearest known one) when it is dropped/finished.
pub struct Section<'d> {
    _p: std::marker::PhantomData<&'d ()>,
}
impl Document {
    pub fn read(path: &Path) -> Result<Document, Problems> {
        todo!()
    }
    pub fn root(&self) -> Section<'_> {
        todo!()
    }
    /// Ok when nothing was reported.
    pub fn finish(self) -> Result<(), Problems> {
        todo!()
    }
}
impl<'d> Section<'d> {
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        todo!()
    } // wrong type: reported, None
    pub fn required_string(&mut self, key: &'static str) -> Option<String> {
        todo!()
    } // missing: reported at the table's place
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        todo!()
    } // relative to the file; ${CREDENTIALS_DIRECTORY} expanded, unset: reported
    pub fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        todo!()
    }
    pub fn size(
        &mut self,
        key: &'static str,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Option<ByteSize> {
        todo!()
    }
    pub fn duration(
        &mut self,
        key: &'static str,
        allowed: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        todo!()
    }
    pub fn integer(
        &mut self,
        key: &'static str,
        allowed: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        todo!()
    }
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        todo!()
    }
    pub fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        todo!()
    }
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        todo!()
    }
    pub fn strings(&mut self, key: &'static str) -> Vec<Text> {
        Vec::new()
    } // array of strings, each with its place
    /// `https://host:port`, at least one when required
    pub fn endpoints(&mut self, key: &'static str) -> Vec<http::Uri> {
        Vec::new()
    }
    pub fn string_map(&mut self) -> Vec<(Text, Text)> {
        Vec::new()
    } // all remaining keys as strings ([labels])
    pub fn table(&mut self, key: &'static str) -> Option<Section<'d>> {
        None
    }
    pub fn tables(&mut self, key: &'static str) -> Vec<Section<'d>> {
        Vec::new()
    } // [[key]]
    /// Reports at the key's value (or the table if the key is absent).
    pub fn problem(&self, key: &str, message: String) {
        todo!()
    }
    pub fn problem_at(&self, span: Range<usize>, message: String) {
        todo!()
    }
}
/// A string with its place.
#[derive(Debug, Clone)]
pub struct Text {
    pub value: String,
    pub span: Range<usize>,
}
