use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One thing that is wrong, and where: printed as `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what would be right; names the key.
    pub message: String,
}

/// All problems of a file, in the order of their places; printed one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// A problem at a byte offset of `text`; an offset beyond its end or inside a character is taken down to the last that is not.
    pub(super) fn at(file: &Path, text: &str, offset: usize, message: String) -> Problem {
        let offset = text.floor_char_boundary(offset);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Problem {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..]
                .trim_start_matches('\u{feff}')
                .chars()
                .count()
                + 1,
            message,
        }
    }
}

impl Problems {
    /// Sorted by place; those of one place stay in the order in which they were found.
    pub(super) fn of(file: &Path, text: &str, mut found: Vec<(usize, String)>) -> Problems {
        found.sort_by_key(|(offset, _)| *offset);
        Problems(
            found
                .into_iter()
                .map(|(offset, message)| Problem::at(file, text, offset, message))
                .collect(),
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file.display(),
            self.line,
            self.column,
            self.message
        )
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
impl std::error::Error for Problems {}
