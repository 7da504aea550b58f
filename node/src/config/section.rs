use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

use super::{
    ByteSize, CREDENTIALS_DIRECTORY, Document,
    endpoint::endpoint,
    nearest::suggestion,
    tree::{Node, Table, Value},
};

/// A string with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The string itself.
    pub value: String,
    /// Byte offsets in the file; for [`Section::problem_at`].
    pub span: Range<usize>,
}

/// One table while it is read. Every key that is asked for counts as known, whether it is there or not; those that are there
/// and were never asked for are reported as unknown when the section is dropped. All readers return `None` (or
/// leave out) what is absent or wrong; what is wrong has been reported.
#[derive(Debug)]
pub struct Section<'d> {
    document: &'d Document,
    table: &'d Table,
    span: Range<usize>,
    /// Dotted path from the root; empty for the root.
    name: String,
    known: BTreeSet<&'static str>,
    rest_is_taken: bool,
}

impl<'d> Section<'d> {
    pub(super) fn new(
        document: &'d Document,
        table: &'d Table,
        span: Range<usize>,
        name: String,
    ) -> Self {
        Section {
            document,
            table,
            span,
            name,
            known: BTreeSet::new(),
            rest_is_taken: false,
        }
    }

    /// `[uplink]`, or `the file` for the root: how messages call this table.
    pub fn title(&self) -> String {
        if self.name.is_empty() {
            "the file".to_owned()
        } else {
            format!("[{}]", self.name)
        }
    }

    /// Where the table begins, as byte offsets.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether the key is there, right or wrong. Makes it known.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// A string.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.text(key).map(|text| text.value)
    }

    /// A string with its place.
    pub fn text(&mut self, key: &'static str) -> Option<Text> {
        let value = self.value(key)?;
        match &value.value {
            Value::String(string) => Some(Text {
                value: string.clone(),
                span: value.span.clone(),
            }),
            _ => self.wrong_type(key, value, "a string", "\"text\""),
        }
    }

    /// A string that must be there and not be empty.
    pub fn required_string(&mut self, key: &'static str) -> Option<String> {
        self.required_text(key).map(|text| text.value)
    }

    /// A string, with its place, that must be there and not be empty.
    pub fn required_text(&mut self, key: &'static str) -> Option<Text> {
        if self.value(key).is_none() {
            self.missing(key, "\"…\"");
            return None;
        }
        let text = self.text(key)?;
        if text.value.trim().is_empty() {
            self.problem_at(text.span, format!("`{key}` must not be empty"));
            return None;
        }
        Some(text)
    }

    /// A path; see [`Section::resolve`].
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key)?;
        self.resolve(key, &text)
    }

    /// A path that must be there.
    pub fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        if self.value(key).is_none() {
            self.missing(key, "\"path/to/it\"");
            return None;
        }
        self.path(key)
    }

    /// A text as a path: relative to the configuration file's folder, with `${CREDENTIALS_DIRECTORY}` expanded. Empty, an
    /// unset variable, or another variable: reported. No access to the file system.
    pub fn resolve(&self, key: &str, text: &Text) -> Option<PathBuf> {
        let variable = format!("${{{CREDENTIALS_DIRECTORY}}}");
        let mut path = text.value.clone();
        if path.contains(&variable) {
            let Some(directory) = &self.document.credentials_directory else {
                let message = format!(
                    "`{key}`: {variable} is not set; systemd sets it where the unit has LoadCredential="
                );
                self.problem_at(text.span.clone(), message);
                return None;
            };
            path = path.replace(&variable, &directory.to_string_lossy());
        }
        let message = if path.contains("${") {
            format!("`{key}`: only {variable} is expanded in paths")
        } else if path.is_empty() {
            format!("`{key}` must not be empty: a path like {key} = \"path/to/it\"")
        } else if path.contains('\0') {
            format!("`{key}` must not contain a NUL character")
        } else {
            return Some(self.document.directory().join(path));
        };
        self.problem_at(text.span.clone(), message);
        None
    }

    /// A size like `512MiB`, within `allowed` bytes.
    pub fn size(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> Option<ByteSize> {
        const RIGHT: &str = "a size like \"64KiB\", \"512MiB\" or \"1GiB\"";
        let value = self.value(key)?;
        let Value::String(string) = &value.value else {
            return self.wrong_type(key, value, RIGHT, "\"512MiB\"");
        };
        match string.parse::<ByteSize>() {
            Ok(size) if allowed.contains(&size.0) => Some(size),
            Ok(size) => {
                let (least, most) = (ByteSize(*allowed.start()), ByteSize(*allowed.end()));
                self.problem_at(
                    value.span.clone(),
                    format!("`{key}` must be between {least} and {most}; found {size}"),
                );
                None
            }
            Err(error) => {
                self.problem_at(
                    value.span.clone(),
                    format!("`{key}` must be {RIGHT}: {error}"),
                );
                None
            }
        }
    }

    /// A time like `250ms`, `5s` or `1h`, within `allowed`.
    pub fn duration(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        const RIGHT: &str = "a time like \"250ms\", \"5s\" or \"1h\"";
        let value = self.value(key)?;
        let Value::String(string) = &value.value else {
            return self.wrong_type(key, value, RIGHT, "\"5s\"");
        };
        match humantime::parse_duration(string) {
            Ok(duration) if allowed.contains(&duration) => Some(duration),
            Ok(duration) => {
                let [least, most, found] =
                    [*allowed.start(), *allowed.end(), duration].map(humantime::format_duration);
                self.problem_at(
                    value.span.clone(),
                    format!("`{key}` must be between {least} and {most}; found {found}"),
                );
                None
            }
            Err(error) => {
                self.problem_at(
                    value.span.clone(),
                    format!("`{key}` must be {RIGHT}: {error}"),
                );
                None
            }
        }
    }

    /// A whole number within `allowed`.
    pub fn integer(&mut self, key: &'static str, allowed: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(key)?;
        let Value::Integer(written, number) = &value.value else {
            return self.wrong_type(key, value, "a whole number", &allowed.start().to_string());
        };
        let number = number.filter(|number| allowed.contains(number));
        if number.is_none() {
            let (least, most) = (allowed.start(), allowed.end());
            self.problem_at(
                value.span.clone(),
                format!("`{key}` must be between {least} and {most}; found {written}"),
            );
        }
        number
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        match &value.value {
            Value::Boolean(boolean) => Some(*boolean),
            _ => self.wrong_type(key, value, "true or false", "true"),
        }
    }

    /// An address and port to listen on, like `127.0.0.1:7480`; names are not resolved.
    pub fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        let text = self.text(key)?;
        match text.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!(
                    "`{key}` must be an IP address and port like \"127.0.0.1:7480\" or \"[::]:7443\"; found {:?}",
                    text.value
                );
                self.problem_at(text.span, message);
                None
            }
        }
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*chosen);
        }
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect();
        let hint = suggestion(&text.value, choices.iter().map(|(word, _)| *word));
        self.problem_at(
            text.span,
            format!(
                "`{key}` must be {}; found {:?}{hint}",
                words.join(" or "),
                text.value
            ),
        );
        None
    }

    /// As [`choice`](Self::choice); a missing key is reported, with the first choice as the example.
    pub fn required_choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        if !self.has(key) {
            let example = choices.first().map_or("…", |(word, _)| *word);
            self.missing(key, &format!("{example:?}"));
            return None;
        }
        self.choice(key, choices)
    }

    /// An array of strings, each with its place; empty when absent.
    pub fn strings(&mut self, key: &'static str) -> Vec<Text> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Value::Array(array) = &value.value else {
            self.wrong_type::<()>(key, value, "an array of strings", "[\"one\", \"two\"]");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(array.len());
        for item in array {
            match &item.value {
                Value::String(string) => texts.push(Text {
                    value: string.clone(),
                    span: item.span.clone(),
                }),
                other => {
                    let message = format!(
                        "`{key}` must be an array of strings; found {} in it",
                        other.kind()
                    );
                    self.problem_at(item.span.clone(), message);
                }
            }
        }
        texts
    }

    /// An array of strings that must be there with at least one entry.
    pub fn required_strings(&mut self, key: &'static str) -> Vec<Text> {
        let Some(value) = self.value(key) else {
            self.missing(key, "[\"…\"]");
            return Vec::new();
        };
        if value.value.is_empty_array() {
            self.problem_at(
                value.span.clone(),
                format!("`{key}` must have at least one entry"),
            );
        }
        self.strings(key)
    }

    /// Addresses of next hops, `https://host:port` each; at least one, none twice.
    pub fn endpoints(&mut self, key: &'static str) -> Vec<http::Uri> {
        let Some(value) = self.value(key) else {
            self.missing(key, "[\"https://collector-1.example:7443\"]");
            return Vec::new();
        };
        if value.value.is_empty_array() {
            self.problem_at(
                value.span.clone(),
                format!("`{key}` must name at least one endpoint, like \"https://host:7443\""),
            );
        }
        let mut endpoints: Vec<http::Uri> = Vec::new();
        for text in self.strings(key) {
            match endpoint(&text.value) {
                Err(why) => {
                    let message = format!(
                        "`{key}` must hold endpoints like \"https://host:7443\"; {:?} {why}",
                        text.value
                    );
                    self.problem_at(text.span, message);
                }
                Ok(uri) if endpoints.contains(&uri) => {
                    self.problem_at(text.span, format!("`{key}` names {:?} twice", text.value));
                }
                Ok(uri) => endpoints.push(uri),
            }
        }
        endpoints
    }

    /// All keys that were not asked for so far, with their string values: for tables whose keys are the user's own (`[labels]`).
    pub fn string_map(&mut self) -> Vec<(Text, Text)> {
        self.rest_is_taken = true;
        let mut entries = Vec::new();
        for (name, (key_span, value)) in self.table {
            if self.known.contains(name.as_str()) {
                continue;
            }
            match &value.value {
                Value::String(string) => entries.push((
                    Text {
                        value: name.clone(),
                        span: key_span.clone(),
                    },
                    Text {
                        value: string.clone(),
                        span: value.span.clone(),
                    },
                )),
                _ => {
                    self.wrong_type::<()>(name, value, "a string", "\"text\"");
                }
            }
        }
        entries.sort_by_key(|(key, _)| key.span.start);
        entries
    }

    /// The table `[key]`, if it is there.
    pub fn table(&mut self, key: &'static str) -> Option<Section<'d>> {
        let value = self.value(key)?;
        match &value.value {
            Value::Table(table) => Some(Section::new(
                self.document,
                table,
                value.span.clone(),
                self.path_to(key),
            )),
            other => {
                let message = format!(
                    "`{key}` must be a table: [{}]; found {}",
                    self.path_to(key),
                    other.kind()
                );
                self.problem_at(value.span.clone(), message);
                None
            }
        }
    }

    /// The table `[key]`, which must be there.
    pub fn required_table(&mut self, key: &'static str) -> Option<Section<'d>> {
        if self.value(key).is_none() {
            self.problem_at(
                self.span(),
                format!("missing table [{}]", self.path_to(key)),
            );
        }
        self.table(key)
    }

    /// The tables `[[key]]`, in the order of the file; empty when there is none.
    pub fn tables(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let path = self.path_to(key);
        let array = match &value.value {
            Value::Array(array) => array,
            other => {
                let message = format!(
                    "`{key}` may be there more than once: write [[{path}]]; found {}",
                    other.kind()
                );
                self.problem_at(value.span.clone(), message);
                return Vec::new();
            }
        };
        let mut sections = Vec::with_capacity(array.len());
        for item in array {
            match &item.value {
                Value::Table(table) => {
                    sections.push(Section::new(
                        self.document,
                        table,
                        item.span.clone(),
                        format!("[{path}]"),
                    ));
                }
                other => {
                    let message = format!(
                        "`{key}` must hold tables, written [[{path}]]; found {}",
                        other.kind()
                    );
                    self.problem_at(item.span.clone(), message);
                }
            }
        }
        sections
    }

    /// The tables `[[key]]`, of which there must be at least one.
    pub fn required_tables(&mut self, key: &'static str) -> Vec<Section<'d>> {
        match self.value(key) {
            None => self.problem_at(
                self.span(),
                format!("missing [[{}]]: at least one is needed", self.path_to(key)),
            ),
            Some(value) if value.value.is_empty_array() => {
                self.problem_at(
                    value.span.clone(),
                    format!("`{key}` must have at least one entry"),
                );
            }
            Some(_) => {}
        }
        self.tables(key)
    }

    /// Takes the keys that nobody has asked for as known: for a section whose kind is wrong, so that one mistake is one problem.
    pub fn ignore_rest(&mut self) {
        self.rest_is_taken = true;
    }

    /// Reports a problem at the key's value, or at the table where the key is absent.
    pub fn problem(&self, key: &str, message: String) {
        let span = self
            .table
            .get(key)
            .map_or(self.span(), |(_, value)| value.span.clone());
        self.problem_at(span, message);
    }

    /// Reports a problem at a place.
    pub fn problem_at(&self, span: Range<usize>, message: String) {
        self.document.report(span.start, message);
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Node> {
        self.known.insert(key);
        self.table.get(key).map(|(_, value)| value)
    }

    fn path_to(&self, key: &str) -> String {
        let name = self.name.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() {
            key.to_owned()
        } else {
            format!("{name}.{key}")
        }
    }

    fn missing(&self, key: &str, example: &str) {
        self.problem_at(
            self.span(),
            format!(
                "missing key `{key}` in {}, like: {key} = {example}",
                self.title()
            ),
        );
    }

    fn wrong_type<T>(&self, key: &str, found: &Node, right: &str, example: &str) -> Option<T> {
        let message = format!(
            "`{key}` must be {right}, like: {key} = {example}; found {}",
            found.value.kind()
        );
        self.problem_at(found.span.clone(), message);
        None
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.rest_is_taken {
            return;
        }
        for (name, (key_span, value)) in self.table {
            if self.known.contains(name.as_str()) {
                continue;
            }
            let hint = suggestion(name, self.known.iter().copied());
            let message = match &value.value {
                Value::Table(_) => format!("unknown table [{}]{hint}", self.path_to(name)),
                Value::Array(array)
                    if array
                        .iter()
                        .any(|item| matches!(&item.value, Value::Table(_))) =>
                {
                    format!("unknown table [[{}]]{hint}", self.path_to(name))
                }
                _ => format!("unknown key `{name}` in {}{hint}", self.title()),
            };
            self.problem_at(key_span.clone(), message);
        }
    }
}
