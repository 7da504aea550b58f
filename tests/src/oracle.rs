//! What arrived against what was written: the verdict.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::writer::Writer;

/// One line of a final NDJSON output.
#[derive(Debug, Clone)]
pub struct Event {
    /// The original record.
    pub bytes: Vec<u8>,
    /// Path of the file that it was read from; empty where it has none.
    pub path: String,
    /// Where it stands in its sealer's chain.
    pub place: Place,
    /// The whole line.
    pub json: Value,
}

/// Who sealed an event, in which run, lane, batch, and the how many-th of the batch it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Agency and name.
    pub sealer: String,
    /// As in the output.
    pub epoch: String,
    /// `alert` or `routine`.
    pub lane: String,
    /// Of the batch, in its epoch and lane.
    pub sequence: u64,
    /// Of the event, in its batch.
    pub index: u64,
}

impl Event {
    /// # Errors
    /// The line is not an event as the design lays it out.
    pub fn parse(line: &[u8]) -> Result<Event> {
        let json: Value = serde_json::from_slice(line)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(line)))?;
        let text = |key: &str| {
            json[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {key}: {json}"))
        };
        let number = |key: &str| {
            json[key]
                .as_u64()
                .with_context(|| format!("no {key}: {json}"))
        };
        let bytes = match (json["body"].as_str(), json["body_base64"].as_str()) {
            (Some(body), None) => body.as_bytes().to_vec(),
            (None, Some(encoded)) => {
                let bytes = BASE64_STANDARD.decode(encoded).context("body_base64")?;
                ensure!(
                    std::str::from_utf8(&bytes).is_err(),
                    "body_base64 although it is UTF-8: {json}"
                );
                bytes
            }
            _ => bail!("neither body nor body_base64, or both: {json}"),
        };
        let place = Place {
            sealer: format!(
                "{}/{}",
                json["agency"].as_str().unwrap_or("-"),
                json["forwarder"].as_str().unwrap_or("-")
            ),
            epoch: text("epoch")?,
            lane: text("lane")?,
            sequence: number("sequence")?,
            index: number("index")?,
        };
        let path = json["attributes"]["log.file.path"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(Event {
            bytes,
            path,
            place,
            json,
        })
    }

    /// Whether it is one of Watchline's own.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.json["kind"] == "watchline"
    }

    /// An attribute's text.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.json["attributes"][name].as_str()
    }
}

/// All events of NDJSON files, in the order given. A last line without an end is an error: outputs end at an event.
///
/// # Errors
/// A file cannot be read, or a line is not an event.
pub fn read_events(files: &[PathBuf]) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        ensure!(
            bytes.is_empty() || bytes.ends_with(b"\n"),
            "{} ends within a line",
            file.display()
        );
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            events.push(Event::parse(line).with_context(|| format!("in {}", file.display()))?);
        }
    }
    Ok(events)
}

/// The events of an output that is still being written: its complete lines, none where it does not exist yet.
///
/// # Errors
/// It cannot be read, or a line is not an event.
pub fn read_complete(file: &Path) -> Result<Vec<Event>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
        .map(Event::parse)
        .collect()
}

/// How many events of sources (not Watchline's own) an NDJSON file holds at this moment; 0 where it does not exist yet.
///
/// # Errors
/// It cannot be read.
pub fn count_events(file: &Path) -> Result<usize> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let own = "\"kind\":\"watchline\"";
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n') && !line.contains(own))
        .count())
}

/// A file output's files in the order in which they were written: the rotated ones, then the present one.
///
/// # Errors
/// The folder cannot be read.
pub fn output_files(path: &Path) -> Result<Vec<PathBuf>> {
    let folder = path.parent().context("an output without a folder")?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .context("an output without a name")?;
    let rotated = format!("{name}.");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|found| found.starts_with(&rotated))
        {
            files.push(entry.path());
        }
    }
    files.sort_by_key(|file| rotation_number(file));
    if path.exists() {
        files.push(path.to_owned());
    }
    Ok(files)
}

/// `events.ndjson.20261123T091502Z-12`: by stamp, then by number as a number.
fn rotation_number(file: &Path) -> (String, u64) {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    match name.rsplit_once('-') {
        Some((stamp, number)) => (stamp.to_owned(), number.parse().unwrap_or(u64::MAX)),
        None => (name, 0),
    }
}

/// What was written to one log.
#[derive(Debug, Clone)]
pub struct Written {
    /// The log's path; its rotated generations are `path.…`.
    pub path: String,
    /// In order.
    pub records: Vec<Vec<u8>>,
}

impl Written {
    /// What a writer wrote to the lab's `folder` of logs.
    #[must_use]
    pub fn by(writer: &Writer, folder: &Path) -> Written {
        Written {
            path: folder.join(writer.name()).to_string_lossy().into_owned(),
            records: writer.written().to_vec(),
        }
    }
}

/// Whether records had one path to the output, so that they must arrive in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One path: in order per file.
    Kept,
    /// A failover: what waited at a dead collector may arrive later.
    MayChange,
}

/// What is wrong with an output. Empty: nothing.
#[derive(Debug, Default)]
pub struct Verdict {
    findings: Vec<String>,
    /// Gap events, as their lines.
    pub gaps: Vec<Value>,
    /// How many records were written and did not arrive.
    pub lost: u64,
    /// How many arrived more often than they were written.
    pub repeated: u64,
    written: usize,
    arrived: usize,
}

impl Verdict {
    /// Nothing lost, repeated, altered or out of order, and nothing reported as lost.
    ///
    /// # Errors
    /// The findings.
    pub fn exact(&self) -> Result<()> {
        ensure!(self.findings.is_empty() && self.gaps.is_empty(), "{self}");
        Ok(())
    }

    /// Nothing lost, repeated, altered or out of order, whatever was reported.
    ///
    /// # Errors
    /// The findings.
    pub fn nothing_wrong(&self) -> Result<()> {
        ensure!(self.findings.is_empty(), "{self}");
        Ok(())
    }

    /// Nothing repeated, altered or out of order; what is missing has been reported by a gap event.
    ///
    /// # Errors
    /// The findings, when there is no gap event or when something else than a loss was found.
    pub fn exact_or_accounted(&self) -> Result<()> {
        let only_losses = self.findings.iter().all(|finding| finding.contains(LOST));
        ensure!(
            self.findings.is_empty() || (only_losses && !self.gaps.is_empty()),
            "{self}"
        );
        Ok(())
    }
}

const LOST: &str = "lost:";
const REPEATED: &str = "repeated:";
const SHOWN: usize = 3;

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "written {}, arrived {}, {} gap events",
            self.written,
            self.arrived,
            self.gaps.len()
        )?;
        for finding in &self.findings {
            writeln!(formatter, "  {finding}")?;
        }
        for gap in self.gaps.iter().take(SHOWN) {
            writeln!(formatter, "  gap: {gap}")?;
        }
        Ok(())
    }
}

/// Compares what was written with all events of the final output: the records, and their numbers in their chains.
#[must_use]
pub fn judge(written: &[Written], events: &[Event], order: Order) -> Verdict {
    let mut verdict = judge_records(written, events, order);
    judge_places(events, order, &mut verdict);
    verdict
}

/// [`judge`] without the numbers, for events of which those of other logs have been left out.
#[must_use]
pub fn judge_records(written: &[Written], events: &[Event], order: Order) -> Verdict {
    let mut verdict = Verdict {
        written: written.iter().map(|log| log.records.len()).sum(),
        arrived: events.iter().filter(|event| !event.is_own()).count(),
        gaps: events
            .iter()
            .filter(|event| event.attribute("event.name") == Some("watchline.gap"))
            .map(|event| event.json.clone())
            .collect(),
        ..Verdict::default()
    };
    let mut arrived: BTreeMap<usize, Vec<(Vec<u8>, bool)>> = BTreeMap::new();
    for event in events.iter().filter(|event| !event.is_own()) {
        let log = written.iter().position(|log| {
            event
                .path
                .strip_prefix(&log.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        match log {
            Some(log) => {
                let partial = event.attribute("watchline.partial") == Some("true");
                arrived
                    .entry(log)
                    .or_default()
                    .push((event.bytes.clone(), partial));
            }
            None => verdict.findings.push(format!(
                "invented: an event of a file that nobody wrote: {}",
                event.json
            )),
        }
    }
    for (index, log) in written.iter().enumerate() {
        let arrived = join_partials(arrived.remove(&index).unwrap_or_default(), &log.records);
        let arrived: Vec<&[u8]> = arrived.iter().map(Vec::as_slice).collect();
        judge_log(&log.path, &log.records, &arrived, order, &mut verdict);
    }
    verdict
}

/// Compares what was written to one log with the lines of a raw output that holds nothing else.
///
/// # Errors
/// The output cannot be read, or ends within a line.
pub fn judge_raw(records: &[Vec<u8>], files: &[PathBuf]) -> Result<Verdict> {
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(fs::read(file).with_context(|| format!("read {}", file.display()))?);
        ensure!(
            bytes.is_empty() || bytes.ends_with(b"\n"),
            "{} ends within a line",
            file.display()
        );
    }
    let arrived: Vec<&[u8]> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| &line[..line.len() - 1])
        .collect();
    let mut verdict = Verdict {
        written: records.len(),
        arrived: arrived.len(),
        ..Verdict::default()
    };
    judge_log("raw output", records, &arrived, Order::Kept, &mut verdict);
    Ok(verdict)
}

/// A line that was sent while it was still unended, and flagged so, is one record with what completed it.
fn join_partials(arrived: Vec<(Vec<u8>, bool)>, records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if !arrived.iter().any(|(_, partial)| *partial) {
        return arrived.into_iter().map(|(bytes, _)| bytes).collect();
    }
    let known: HashSet<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let mut joined = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for (bytes, partial) in arrived {
        let bytes = match open.take() {
            Some(start)
                if known.contains(start.as_slice())
                    && !known.contains([start.as_slice(), &bytes].concat().as_slice()) =>
            {
                joined.push(start);
                bytes
            }
            Some(start) => [start, bytes].concat(),
            None => bytes,
        };
        if partial {
            open = Some(bytes);
        } else {
            joined.push(bytes);
        }
    }
    joined.extend(open);
    joined
}

fn judge_log(
    name: &str,
    written: &[Vec<u8>],
    arrived: &[&[u8]],
    order: Order,
    verdict: &mut Verdict,
) {
    if written
        .iter()
        .map(Vec::as_slice)
        .eq(arrived.iter().copied())
    {
        return;
    }
    let mut balance: HashMap<&[u8], i64> = HashMap::new();
    for record in written {
        *balance.entry(record.as_slice()).or_default() += 1;
    }
    for record in arrived {
        *balance.entry(record).or_default() -= 1;
    }
    let known: HashSet<&[u8]> = written.iter().map(Vec::as_slice).collect();
    let before = verdict.findings.len();
    let mut found: BTreeMap<&str, BTreeMap<&[u8], u64>> = BTreeMap::new();
    for (record, count) in balance.into_iter().filter(|(_, count)| *count != 0) {
        let kind = match (count > 0, known.contains(record)) {
            (true, _) => LOST,
            (false, true) => REPEATED,
            (false, false) => "altered or invented:",
        };
        found
            .entry(kind)
            .or_default()
            .insert(record, count.unsigned_abs());
    }
    for (kind, records) in found {
        let total: u64 = records.values().sum();
        match kind {
            LOST => verdict.lost += total,
            REPEATED => verdict.repeated += total,
            _ => {}
        }
        let first: Vec<String> = records
            .keys()
            .take(SHOWN)
            .map(|record| shown(record))
            .collect();
        verdict.findings.push(format!(
            "{name}: {kind} {total}, such as {}",
            first.join(", ")
        ));
    }
    if verdict.findings.len() == before && order == Order::Kept {
        let place = written
            .iter()
            .zip(arrived)
            .position(|(written, arrived)| written != arrived)
            .unwrap_or_default();
        verdict.findings.push(format!(
            "{name}: out of order from record {place}: {} instead of {}",
            shown(arrived[place]),
            shown(&written[place])
        ));
    }
}

/// Sealer, epoch, lane.
type Chain<'e> = (&'e str, &'e str, &'e str);

/// Numbers say the same as bytes: every place once, and in each chain without a hole, in order where order is kept.
fn judge_places(events: &[Event], order: Order, verdict: &mut Verdict) {
    let mut seen = HashSet::new();
    let mut chains: BTreeMap<Chain<'_>, Vec<(u64, u64)>> = BTreeMap::new();
    for event in events {
        let place = &event.place;
        if !seen.insert(place) {
            verdict
                .findings
                .push(format!("place taken twice: {place:?}"));
        }
        let chain = (
            place.sealer.as_str(),
            place.epoch.as_str(),
            place.lane.as_str(),
        );
        chains
            .entry(chain)
            .or_default()
            .push((place.sequence, place.index));
    }
    for (chain, mut places) in chains {
        if order == Order::MayChange {
            places.sort_unstable();
        }
        let mut expected = (0, 0);
        for (sequence, index) in places {
            let next_batch = (expected.0 + 1, 0);
            if (sequence, index) != expected && (expected.1 == 0 || (sequence, index) != next_batch)
            {
                verdict.findings.push(format!(
                    "{chain:?}: event {sequence}/{index} where {expected:?} was due"
                ));
                break;
            }
            expected = (sequence, index + 1);
        }
    }
}

fn shown(record: &[u8]) -> String {
    const LENGTH: usize = 80;
    let text = record.escape_ascii().to_string();
    let cut: String = text.chars().take(LENGTH).collect();
    if cut.len() < text.len() {
        format!("\"{cut}\"… ({} bytes)", record.len())
    } else {
        format!("\"{cut}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(path: &str, sequence: u64, index: u64, body: &str, attributes: &str) -> Event {
        let line = format!(
            r#"{{"agency":"moh","forwarder":"h","epoch":"e","lane":"routine","sequence":{sequence},"index":{index},"kind":"file","body":{},"attributes":{{"log.file.path":"{path}"{attributes}}}}}"#,
            Value::from(body)
        );
        Event::parse(line.as_bytes()).expect("an event")
    }

    fn written(records: &[&str]) -> Vec<Written> {
        vec![Written {
            path: "/l/a".to_owned(),
            records: records
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .collect(),
        }]
    }

    fn verdict(records: &[&str], events: &[Event]) -> String {
        match judge(&written(records), events, Order::Kept).exact() {
            Ok(()) => "exact".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_same_records_in_order_are_exact_also_from_a_rotated_file() {
        let events = [
            event("/l/a.1", 0, 0, "one", ""),
            event("/l/a", 0, 1, "", ""),
            event("/l/a", 1, 0, "two", ""),
        ];
        assert_eq!(verdict(&["one", "", "two"], &events), "exact");
    }

    #[test]
    fn a_missing_a_repeated_an_altered_and_a_swapped_record_are_found() {
        let one = || event("/l/a", 0, 0, "one", "");
        assert!(verdict(&["one", "two"], &[one()]).contains("lost: 1, such as \"two\""));
        assert!(
            verdict(&["one"], &[one(), event("/l/a", 0, 1, "one", "")]).contains("repeated: 1")
        );
        assert!(
            verdict(&["one", "two"], &[one(), event("/l/a", 0, 1, "tw", "")])
                .contains("altered or invented: 1")
        );
        let swapped = [
            event("/l/a", 0, 0, "two", ""),
            event("/l/a", 0, 1, "one", ""),
        ];
        assert!(verdict(&["one", "two"], &swapped).contains("out of order from record 0"));
        assert!(verdict(&["one"], &[event("/l/b", 0, 0, "one", "")]).contains("nobody wrote"));
    }

    #[test]
    fn a_hole_in_the_numbers_is_found_although_every_record_is_there() {
        assert!(verdict(&["one"], &[event("/l/a", 1, 0, "one", "")]).contains("was due"));
        let events = [
            event("/l/a", 0, 0, "one", ""),
            event("/l/a", 0, 0, "two", ""),
        ];
        assert!(verdict(&["one", "two"], &events).contains("place taken twice"));
    }

    #[test]
    fn a_line_sent_before_its_end_is_one_record_with_its_rest() {
        let partial = r#","watchline.partial":"true""#;
        let events = [
            event("/l/a", 0, 0, "on", partial),
            event("/l/a", 1, 0, "e", ""),
            event("/l/a", 2, 0, "two", partial),
        ];
        assert_eq!(verdict(&["one", "two"], &events), "exact");
    }
}
