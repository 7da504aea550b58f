//! Which paths a source means: patterns, walked directory by directory.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::directories::{Directories, Entry, EntryKind};

/// How deep `**` descends.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone)]
enum Step {
    Name(OsString),
    Matching(GlobMatcher),
    /// `**`: this directory and everything below it.
    AnyDepth,
}

/// One entry of `paths`: an absolute path whose components may be patterns.
#[derive(Debug, Clone)]
pub(crate) struct PathPattern {
    text: String,
    steps: Vec<Step>,
}

/// Why a text is not a pattern; the text is for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PatternError(String);

impl PathPattern {
    /// `text` is absolute. `*` and `?` stay within one component, `**` as a component descends.
    pub(crate) fn parse(text: &str) -> Result<PathPattern, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError(format!("path {text:?} is not absolute")));
        }
        let mut steps = Vec::new();
        for component in text
            .split('/')
            .filter(|component| !component.is_empty() && *component != ".")
        {
            let step = match component {
                ".." if matches!(steps.last(), None | Some(Step::Name(_))) => {
                    steps.pop();
                    continue;
                }
                ".." => {
                    let why = format!("path {text:?} goes up with `..` behind a pattern");
                    return Err(PatternError(why));
                }
                "**" => Step::AnyDepth,
                name if !name.contains(['*', '?', '[', ']', '{', '}', '\\']) => {
                    Step::Name(name.into())
                }
                pattern => Step::Matching(glob(pattern)?),
            };
            steps.push(step);
        }
        match steps.last() {
            None => return Err(PatternError("path `/` is not a file".to_owned())),
            Some(Step::AnyDepth) => steps.push(Step::Matching(glob("*")?)),
            Some(_) => {}
        }
        Ok(PathPattern {
            text: text.to_owned(),
            steps,
        })
    }

    /// As it was written.
    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Calls `found` for each name that the pattern matches and that is no directory.
    pub(crate) fn walk(
        &self,
        directories: &mut Directories,
        found: &mut dyn FnMut(PathBuf, Entry),
    ) {
        descend(Path::new("/"), &self.steps, directories, 0, found);
    }
}

fn descend(
    directory: &Path,
    steps: &[Step],
    directories: &mut Directories,
    depth: usize,
    found: &mut dyn FnMut(PathBuf, Entry),
) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    match step {
        // The parents of the first pattern are not listed: they need not be readable, and nothing is to be found there.
        Step::Name(name) if !rest.is_empty() => {
            descend(&directory.join(name), rest, directories, depth, found)
        }
        Step::Name(name) => {
            let entries = directories.list(directory);
            if let Ok(at) = entries.binary_search_by(|entry| entry.name.as_os_str().cmp(name)) {
                if entries[at].kind != EntryKind::Directory {
                    found(directory.join(name), entries[at].clone());
                }
            } else if entries.is_empty() {
                // A directory that may be entered but not listed.
                use std::os::unix::fs::MetadataExt;
                let path = directory.join(name);
                if let Ok(meta) = std::fs::symlink_metadata(&path)
                    && !meta.is_dir()
                {
                    let kind = if meta.is_symlink() {
                        EntryKind::Link
                    } else {
                        EntryKind::File
                    };
                    found(
                        path,
                        Entry {
                            name: name.clone(),
                            ino: meta.ino(),
                            kind,
                        },
                    );
                }
            }
        }
        Step::Matching(pattern) => {
            for entry in directories
                .list(directory)
                .iter()
                .filter(|entry| pattern.is_match(Path::new(&entry.name)))
            {
                let path = directory.join(&entry.name);
                match (entry.kind, rest.is_empty()) {
                    (EntryKind::Directory, false) | (EntryKind::Link, false) => {
                        descend(&path, rest, directories, depth + 1, found);
                    }
                    (EntryKind::Directory, true) | (_, false) => {}
                    (_, true) => found(path, entry.clone()),
                }
            }
        }
        Step::AnyDepth => {
            descend(directory, rest, directories, depth, found);
            if depth >= MAX_DEPTH {
                return;
            }
            // Links to directories are not followed here: they may lead in a circle.
            for entry in directories
                .list(directory)
                .iter()
                .filter(|entry| entry.kind == EntryKind::Directory)
            {
                descend(
                    &directory.join(&entry.name),
                    steps,
                    directories,
                    depth + 1,
                    found,
                );
            }
        }
    }
}

/// The `exclude` patterns: each is held against the file's name and against its full path.
#[derive(Debug, Clone)]
pub(crate) struct Excludes {
    set: GlobSet,
    texts: Vec<String>,
}

impl Excludes {
    pub(crate) fn none() -> Excludes {
        Excludes {
            set: GlobSet::empty(),
            texts: Vec::new(),
        }
    }

    pub(crate) fn parse(texts: &[String]) -> Result<Excludes, PatternError> {
        let mut set = GlobSetBuilder::new();
        for text in texts {
            set.add(build(text)?);
        }
        let set = set
            .build()
            .map_err(|error| PatternError(error.to_string()))?;
        Ok(Excludes {
            set,
            texts: texts.to_vec(),
        })
    }

    pub(crate) fn covers(&self, path: &Path) -> bool {
        !self.texts.is_empty()
            && (self.set.is_match(path)
                || path
                    .file_name()
                    .is_some_and(|name| self.set.is_match(Path::new(name))))
    }
}

impl PartialEq for Excludes {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn build(pattern: &str) -> Result<globset::Glob, PatternError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| {
            PatternError(format!(
                "{pattern:?} is not a path pattern: {}",
                error.kind()
            ))
        })
}

fn glob(pattern: &str) -> Result<GlobMatcher, PatternError> {
    Ok(build(pattern)?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(root: &Path, pattern: &str) -> Vec<String> {
        let pattern = PathPattern::parse(&format!("{}/{pattern}", root.display())).unwrap();
        let mut directories = Directories::default();
        directories.begin(true, 0);
        let mut found = Vec::new();
        pattern.walk(&mut directories, &mut |path, _| {
            found.push(path.strip_prefix(root).unwrap().display().to_string());
        });
        found.sort();
        found
    }

    #[test]
    fn patterns_match_within_a_component_and_two_stars_descend() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "a.log",
            "b.log.1",
            "nginx/x.log",
            "nginx/deep/y.log",
            "apache/z.log",
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("nginx/circle")).unwrap();
        assert_eq!(matched(dir.path(), "a.log"), ["a.log"]);
        assert_eq!(matched(dir.path(), "*.log"), ["a.log"]);
        assert_eq!(matched(dir.path(), "*.log*"), ["a.log", "b.log.1"]);
        assert_eq!(
            matched(dir.path(), "*/*.log"),
            ["apache/z.log", "nginx/x.log"]
        );
        assert_eq!(
            matched(dir.path(), "{nginx,apache}/?.log"),
            ["apache/z.log", "nginx/x.log"]
        );
        assert_eq!(
            matched(dir.path(), "**/*.log"),
            ["a.log", "apache/z.log", "nginx/deep/y.log", "nginx/x.log"]
        );
        assert_eq!(
            matched(dir.path(), "nginx/**"),
            ["nginx/circle", "nginx/deep/y.log", "nginx/x.log"]
        );
        assert_eq!(matched(dir.path(), "none/*.log"), [""; 0]);
    }

    #[test]
    fn excludes_look_at_the_name_and_at_the_path() {
        let excludes = Excludes::parse(&["*.gz".into(), "/var/log/private/**".into()]).unwrap();
        assert!(excludes.covers(Path::new("/var/log/a.log.2.gz")));
        assert!(excludes.covers(Path::new("/var/log/private/x/y.log")));
        assert!(!excludes.covers(Path::new("/var/log/a.log")));
    }

    #[test]
    fn a_pattern_that_cannot_be_read_says_why() {
        assert!(PathPattern::parse("/var/log/[a.log").is_err());
        assert!(PathPattern::parse("var/log").is_err());
        assert!(PathPattern::parse("/var/*/../etc/x").is_err());
        assert!(PathPattern::parse("/").is_err());
    }
}
