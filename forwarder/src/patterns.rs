//! Regular expressions of many rules, held against whole blocks of lines rather than line by line.

use memchr::{memchr, memrchr};
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// Memory that one compiled pattern may take.
const PATTERN_BYTES: usize = 4 << 20;

/// The patterns of several rules, compiled together. Each was checked by [`check_pattern`] when the configuration was read.
#[derive(Debug)]
pub(crate) struct Patterns {
    /// Find the few lines that matter in a block; `None` when a pattern's meaning depends on where the text begins or ends, so
    /// that only a line by itself can tell.
    screens: Option<Vec<Regex>>,
    set: RegexSet,
}

impl Patterns {
    pub(crate) fn compile(texts: &[&str]) -> Patterns {
        Patterns::screened(texts, texts, &[])
    }

    /// Likewise; a record is looked at where one of `screens` is found, or one of `signs`, which are plain text and cost next to
    /// nothing where they are not found. They have to cover all of `texts`.
    pub(crate) fn screened(texts: &[&str], screens: &[&str], signs: &[&str]) -> Patterns {
        let set = RegexSetBuilder::new(texts)
            .multi_line(true)
            .size_limit(PATTERN_BYTES * 8)
            .build();
        let set = set.unwrap_or_else(|error| {
            tracing::error!(%error, "patterns are too large together: none is used");
            RegexSet::empty()
        });
        let screens = if screens.iter().any(|text| looks_beyond_lines(text)) {
            None
        } else {
            let screens: Vec<String> = screens.iter().map(|text| format!("(?:{text})")).collect();
            let signs: Vec<String> = signs.iter().map(|sign| regex::escape(sign)).collect();
            let both = [screens, signs]
                .into_iter()
                .filter(|texts| !texts.is_empty());
            // A pattern that cannot stand beside others, as one that ends in a comment, is held against each line.
            both.map(|texts| compile(&texts.join("|"), PATTERN_BYTES * 8).ok())
                .collect()
        };
        Patterns { screens, set }
    }

    /// Puts into `starts` where those lines of `block` begin, ascending, in which a pattern may be found. `block` begins at the
    /// beginning of a line and its lines end with a line feed, the last perhaps without one.
    pub(crate) fn suspects(&self, block: &[u8], starts: &mut Vec<usize>) {
        starts.clear();
        let Some(screens) = &self.screens else {
            return push_lines(block, 0, starts);
        };
        for screen in screens {
            push_found(screen, block, starts);
        }
        if screens.len() > 1 {
            starts.sort_unstable();
            starts.dedup();
        }
    }

    /// As [`Patterns::suspects`], for those who have to look at every line.
    pub(crate) fn every_line(block: &[u8], starts: &mut Vec<usize>) {
        starts.clear();
        push_lines(block, 0, starts);
    }

    /// Indexes of the patterns that are found in one record, ascending.
    pub(crate) fn found_in(&self, record: &[u8]) -> impl Iterator<Item = usize> {
        let passes = |screens: &Vec<Regex>| screens.iter().any(|screen| screen.is_match(record));
        let is_suspect = self.screens.as_ref().is_none_or(passes);
        let found = is_suspect.then(|| self.set.matches(record).into_iter());
        found.into_iter().flatten()
    }
}

/// The starts of the lines in which `screen` may be found, once each.
fn push_found(screen: &Regex, block: &[u8], starts: &mut Vec<usize>) {
    let mut at = 0;
    while let Some(found) = screen.find_at(block, at) {
        starts.push(memrchr(b'\n', &block[..found.start()]).map_or(0, |feed| feed + 1));
        let Some(feed) = memchr(b'\n', &block[found.start()..]) else {
            return;
        };
        at = found.start() + feed + 1;
        if found.end() > at {
            // The pattern reaches over line feeds: it could cost a look at all the rest of the block for each line.
            return push_lines(block, at, starts);
        }
    }
}

fn push_lines(block: &[u8], mut at: usize, starts: &mut Vec<usize>) {
    while at < block.len() {
        starts.push(at);
        at += memchr(b'\n', &block[at..]).map_or(block.len() - at, |feed| feed + 1);
    }
}

/// Whether a pattern may mean the ends of the text rather than those of a line.
fn looks_beyond_lines(text: &str) -> bool {
    let turns_off = |flags: &str| {
        flags
            .chars()
            .take_while(|c| c.is_ascii_alphabetic() || *c == '-')
            .any(|c| c == '-')
    };
    text.contains("\\A") || text.contains("\\z") || text.split("(?").skip(1).any(turns_off)
}

/// Compiles a pattern as rules use it: over bytes, `^` and `$` at the ends of a line.
pub(crate) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    compile(text, PATTERN_BYTES)
}

fn compile(text: &str, size_limit: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .multi_line(true)
        .size_limit(size_limit)
        .build()
}

/// Checks a pattern; the error's text, one line, is for the person who wrote it.
pub(crate) fn check_pattern(text: &str) -> Result<(), String> {
    pattern(text).map(drop).map_err(|error| {
        // The error draws the pattern with a mark under the place.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        why.trim_start_matches("error: ").to_owned()
    })
}
