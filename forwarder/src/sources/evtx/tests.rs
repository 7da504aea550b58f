//! The source against a directory with real event files, and others made of them, with a state that is committed or lost as a spool's frame
//! would be.

use std::{fs, time::Duration};

use watchline_proto::{Lane, payload::PayloadOpener};

use super::*;
use crate::{batch::Batch, lanes::AlertRule, sources::Buffers};

const NEW_USER: &[u8] = include_bytes!("../../../tests-data/evtx/new-user-security.evtx");
const SHORT: &[u8] = include_bytes!("../../../tests-data/evtx/Security_short_selected.evtx");
const HEADER: usize = 4096;
const CHUNK: usize = chunk::CHUNK_BYTES;
/// Records of the chunk of [`SHORT`], and the ids that they had before they were exported: what they say of themselves.
const PER_CHUNK: u64 = 7;
const SAID: [u64; 7] = [
    319_457_771,
    319_457_830,
    319_457_831,
    319_457_832,
    319_457_855,
    319_457_856,
    319_457_858,
];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    lane: Lane,
    time: Option<i64>,
    severity: u8,
    body: String,
    attributes: Vec<(String, String)>,
}

impl Sealed {
    fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One host: its directory, what is stored, what has been sealed.
struct Host {
    dir: tempfile::TempDir,
    config: EvtxConfig,
    lanes: Lanes,
    source: Option<EvtxSource>,
    state: BTreeMap<Bytes, Bytes>,
    sealed: Vec<Sealed>,
    now: Moment,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let pattern = format!("{}/*.evtx", dir.path().display());
        let config = EvtxConfig {
            name: "s".into(),
            common: Common::default(),
            paths: vec![PathPattern::parse(&pattern).unwrap()],
            exclude: Excludes::none(),
            start_at: StartAt::Beginning,
            max_record: 64 << 10,
        };
        Host {
            dir,
            config,
            lanes: Lanes::new(Vec::new()),
            source: None,
            state: BTreeMap::new(),
            sealed: Vec::new(),
            now: Moment::now(),
        }
    }

    /// One that was started before, so that nothing is backfill.
    fn running() -> Host {
        let mut host = Host::new();
        host.turn();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        // In place, as its writer does; the time stamp moves on even within one tick of the file system's clock.
        let file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.path(name))
            .unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let ahead =
            std::time::SystemTime::now() + Duration::from_nanos(self.sealed.len() as u64 + 1);
        file.set_modified(ahead).unwrap();
    }

    /// A second passes, everything is looked at, everything is read and stored, a frame each time the batch is due.
    fn turn(&mut self) {
        self.turn_until(usize::MAX);
    }

    /// As [`Host::turn`], but after so many frames whatever is in work is lost, as when the process is killed.
    fn turn_until(&mut self, frames: usize) {
        let prefix = positions_prefix("s");
        let mut source = self.source.take().unwrap_or_else(|| {
            let stored = self.state.iter();
            let positions = stored.filter_map(|(key, value)| {
                read_position(key.strip_prefix(prefix.as_bytes())?, value)
            });
            let started_before = self.state.contains_key(&first_start_key("s"));
            EvtxSource::new(
                SourceNo(0),
                self.config.clone(),
                Arc::default(),
                positions.collect(),
                started_before,
            )
        });
        let (mut batch, mut buffers) = (Batch::new(16 << 10), Buffers::default());
        self.now.at += Duration::from_secs(1);
        self.now.unix_nano += 1_000_000_000;
        let now = self.now;
        for frame in 0..frames {
            assert!(frame < 10_000 || frames < usize::MAX, "no end");
            let mut intake = Intake {
                batch: &mut batch,
                lanes: &mut self.lanes,
                buffers: &mut buffers,
                now,
            };
            if frame == 0 {
                source.look(&Hints::default(), true, &mut intake);
            }
            let mut more = true;
            let mut reads = 0;
            while more && !intake.batch.is_due() {
                more = source.read(&mut intake);
                reads += 1;
                assert!(reads < 10_000, "it turns in a circle");
            }
            let mut state = Vec::new();
            source.moved(&mut state);
            if batch.is_empty() && state.is_empty() && !more {
                self.source = Some(source);
                return;
            }
            for (key, value) in state {
                match value {
                    Some(value) => drop(self.state.insert(key, value)),
                    None => drop(self.state.remove(&key)),
                }
            }
            for lane in Lane::ALL {
                let Some(payload) = batch.finish(lane, now) else {
                    continue;
                };
                let opened = PayloadOpener::new()
                    .open(&payload.bytes, &payload.info)
                    .unwrap();
                self.sealed.extend(opened.events().map(|event| {
                    Sealed {
                        lane,
                        time: event.time_unix_nano,
                        severity: event.severity,
                        body: String::from_utf8(event.body.to_vec()).unwrap(),
                        attributes: (event.attributes.iter())
                            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                            .chain(event.origin.attributes.iter().cloned())
                            .collect(),
                    }
                }));
            }
        }
    }

    fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// The process is gone without a word, and starts again.
    fn restart(&mut self) {
        self.source = None;
    }

    /// Reason and number of records of each gap.
    fn gaps(&self) -> Vec<(&str, Option<&str>)> {
        (self.sealed.iter())
            .filter_map(|gap| {
                Some((
                    gap.attribute("watchline.gap.reason")?,
                    gap.attribute("watchline.gap.records"),
                ))
            })
            .collect()
    }

    fn records(&self) -> Vec<&Sealed> {
        let is_record = |sealed: &&Sealed| sealed.attribute("event.name").is_none();
        self.sealed.iter().filter(is_record).collect()
    }

    /// The ids that records say of themselves.
    fn ids(&self) -> Vec<u64> {
        let records = self.records().into_iter();
        records
            .map(|record| {
                record
                    .attribute("winlog.record_id")
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect()
    }

    fn highest(&self) -> Option<u64> {
        let source = self.source.as_ref()?;
        source
            .logs
            .values()
            .filter_map(|log| log.last)
            .map(|last| last.id)
            .max()
    }
}

/// Where the records of a chunk begin.
fn record_offsets(chunk: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = 512;
    while chunk[at..].starts_with(b"\x2a\x2a\0\0") {
        offsets.push(at);
        at += u32::from_le_bytes(chunk[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    offsets
}

/// The chunk of [`SHORT`] with `count` of its records, their ids from `first` on, and in what they say too.
fn made_chunk(first: u64, count: u64) -> Vec<u8> {
    let mut chunk = SHORT[HEADER..HEADER + CHUNK].to_vec();
    let offsets = record_offsets(&chunk);
    assert_eq!(offsets.len() as u64, PER_CHUNK);
    for (n, &at) in offsets.iter().enumerate() {
        let id = first + n as u64;
        chunk[at + 8..at + 16].copy_from_slice(&id.to_le_bytes());
        // `EventRecordID` is a value of 8 bytes of the record's template.
        let size = u32::from_le_bytes(chunk[at + 4..at + 8].try_into().unwrap()) as usize;
        let before = SAID[n].to_le_bytes();
        let content = &chunk[at + 24..at + size];
        let found: Vec<usize> = (0..content.len() - 8)
            .filter(|&at| content[at..at + 8] == before)
            .collect();
        for place in found {
            chunk[at + 24 + place..at + 24 + place + 8].copy_from_slice(&id.to_le_bytes());
        }
    }
    let last = first + count - 1;
    for (at, id) in [(8, first), (16, last), (24, first), (32, last)] {
        chunk[at..at + 8].copy_from_slice(&id.to_le_bytes());
    }
    if let Some(&end) = offsets.get(count as usize) {
        chunk[44..48].copy_from_slice(&(offsets[count as usize - 1] as u32).to_le_bytes());
        chunk[48..52].copy_from_slice(&(end as u32).to_le_bytes());
        chunk[end..].fill(0);
    }
    chunk
}

/// A file of these chunks, not closed properly: flagged dirty, its checksums those of before.
fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut header = SHORT[..HEADER].to_vec();
    header[120] = 1;
    [header, chunks.concat()].concat()
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn a_record_arrives_as_json_with_the_structure_of_its_xml_and_what_is_known_of_it() {
    let mut host = Host::running();
    let rule = AlertRule {
        name: "account".into(),
        matches: vec!["\"EventID\":4720".into()],
        sources: Vec::new(),
        min_severity: None,
        max_rate: 10,
        ..AlertRule::default()
    };
    host.lanes = Lanes::new(vec![rule]);
    host.write("Security.evtx", NEW_USER);
    host.turn();
    assert_eq!(host.ids(), [112, 111, 113, 116], "an export numbers anew");
    assert_eq!(host.gaps(), []);
    let record = *host
        .records()
        .iter()
        .find(|record| record.attribute("winlog.event_id") == Some("4720"))
        .unwrap();
    assert_eq!(record.lane, Lane::Alert);
    assert_eq!(record.attribute("winlog.channel"), Some("Security"));
    assert_eq!(
        record.attribute("winlog.provider"),
        Some("Microsoft-Windows-Security-Auditing")
    );
    assert!(record.attribute("winlog.computer").is_some());
    assert_eq!(record.attribute("log.file.name"), Some("Security.evtx"));
    assert_eq!(record.severity, 0, "level 0 says nothing");
    let json: serde_json::Value = serde_json::from_str(&record.body).unwrap();
    let time = json["Event"]["System"]["TimeCreated"]["#attributes"]["SystemTime"]
        .as_str()
        .unwrap();
    let time: evtx::Timestamp = time.parse().unwrap();
    assert_eq!(record.time.map(i128::from), Some(time.as_nanosecond()));
    assert!(json["Event"]["EventData"]["TargetUserName"].is_string());
    assert!(!record.body.contains('\n'));
}

#[test]
fn what_was_there_at_the_first_start_is_backfill_or_is_passed_over() {
    for start_at in [StartAt::Beginning, StartAt::End] {
        let mut host = Host::new();
        host.config.start_at = start_at;
        host.write("a.evtx", &file(&[made_chunk(1, 3)]));
        host.turns(2);
        host.restart();
        host.write("a.evtx", &file(&[made_chunk(1, 5)]));
        host.turns(2);
        let first = if start_at == StartAt::Beginning { 1 } else { 4 };
        assert_eq!(host.ids(), numbers(first..=5));
        for record in host.records() {
            let old = record.attribute("winlog.record_id").unwrap() <= "3";
            assert_eq!(record.attribute("watchline.backfill").is_some(), old);
        }
        assert_eq!(host.gaps(), []);
    }
}

/// TAILING 44.
#[test]
fn a_file_that_grows_is_continued_behind_the_last_record_wherever_reading_was_interrupted() {
    let mut host = Host::running();
    for last in 1..=20 {
        let chunks: Vec<Vec<u8>> = (0..last / PER_CHUNK + 1)
            .map(|no| {
                made_chunk(
                    no * PER_CHUNK + 1,
                    (last - no * PER_CHUNK).clamp(1, PER_CHUNK),
                )
            })
            .filter(|chunk| u64::from_le_bytes(chunk[24..32].try_into().unwrap()) <= last)
            .collect();
        host.write("a.evtx", &file(&chunks));
        match last % 3 {
            0 => host.turn(),
            1 => {
                // Killed in the middle of the turn, or behind it.
                host.turn_until(1);
                host.restart();
                host.turn();
            }
            _ => {
                host.restart();
                host.turn();
            }
        }
        assert_eq!(host.ids(), numbers(1..=last));
    }
    host.turns(3);
    assert_eq!(host.ids(), numbers(1..=20));
    assert_eq!(host.gaps(), []);
}

/// TAILING 44.
#[test]
fn a_log_that_is_written_in_a_circle_is_read_in_the_order_of_its_ids() {
    let mut host = Host::running();
    host.write(
        "a.evtx",
        &file(&[made_chunk(8, 7), made_chunk(15, 7), made_chunk(1, 7)]),
    );
    host.turn();
    assert_eq!(host.ids(), numbers(1..=21));
    host.write(
        "a.evtx",
        &file(&[made_chunk(8, 7), made_chunk(15, 7), made_chunk(22, 7)]),
    );
    host.turn();
    host.restart();
    host.write(
        "a.evtx",
        &file(&[made_chunk(29, 7), made_chunk(15, 7), made_chunk(22, 7)]),
    );
    host.turn();
    assert_eq!(host.ids(), numbers(1..=35));
    assert_eq!(host.gaps(), []);
}

/// TAILING 44: overwritten before it was read.
#[test]
fn records_that_the_circle_overtook_are_a_gap_with_their_number() {
    let mut host = Host::running();
    host.write("a.evtx", &file(&[made_chunk(1, 7), made_chunk(8, 7)]));
    host.turn();
    host.restart();
    host.write("a.evtx", &file(&[made_chunk(29, 7), made_chunk(22, 7)]));
    host.turns(8);
    assert_eq!(host.ids(), [numbers(1..=14), numbers(22..=35)].concat());
    assert_eq!(host.gaps(), [("missing_records", Some("7"))]);
}

/// TAILING 43.
#[test]
fn a_missing_record_id_is_a_gap_with_its_number_once_it_has_stayed_missing() {
    let mut host = Host::running();
    host.write("a.evtx", &file(&[made_chunk(1, 7), made_chunk(10, 7)]));
    host.turns(3);
    assert_eq!(
        host.ids(),
        numbers(1..=7),
        "what is being written may be torn for a moment"
    );
    host.turns(5);
    assert_eq!(host.ids(), [numbers(1..=7), numbers(10..=16)].concat());
    assert_eq!(host.gaps(), [("missing_records", Some("2"))]);
    host.restart();
    host.turns(8);
    assert_eq!(host.gaps().len(), 1, "told once");
}

/// TAILING 43.
#[test]
fn a_chunk_that_is_torn_for_a_moment_is_read_whole() {
    let mut host = Host::running();
    let mut torn = made_chunk(8, 7);
    torn[..512].fill(0);
    host.write(
        "a.evtx",
        &file(&[made_chunk(1, 7), torn, made_chunk(15, 7)]),
    );
    host.turns(3);
    host.write(
        "a.evtx",
        &file(&[made_chunk(1, 7), made_chunk(8, 7), made_chunk(15, 7)]),
    );
    host.turns(8);
    assert_eq!(host.ids(), numbers(1..=21));
    assert_eq!(host.gaps(), []);
}

/// TAILING 43.
#[test]
fn a_chunk_with_a_bad_magic_is_read_and_one_that_is_wiped_is_a_gap() {
    let mut host = Host::running();
    let mut bad_magic = made_chunk(8, 7);
    bad_magic[..8].copy_from_slice(b"XXXXXXXX");
    let wiped = vec![0; CHUNK];
    // Never used: whatever was on the disk.
    let garbage = vec![0x5a; CHUNK];
    host.write(
        "a.evtx",
        &file(&[
            made_chunk(1, 7),
            bad_magic,
            wiped,
            made_chunk(22, 7),
            garbage,
        ]),
    );
    host.turns(8);
    assert_eq!(host.ids(), [numbers(1..=14), numbers(22..=28)].concat());
    assert_eq!(host.gaps(), [("damaged_chunk", Some("7"))]);
}

/// TAILING 43.
#[test]
fn every_record_around_damage_is_read_in_a_dirty_file_with_bad_checksums() {
    let mut host = Host::running();
    let mut chunk = made_chunk(1, 7);
    let offsets = record_offsets(&chunk);
    chunk[offsets[3]] = b'X';
    // Of the last record the content.
    chunk[offsets[6] + 24..offsets[6] + 80].fill(0xff);
    host.write("a.evtx", &file(&[chunk]));
    host.turns(15);
    assert_eq!(host.ids(), [1, 2, 3, 5, 6]);
    assert_eq!(
        host.gaps(),
        [("damaged_chunk", Some("1")), ("damaged_chunk", Some("1"))]
    );
    host.restart();
    host.turns(15);
    assert_eq!(host.gaps().len(), 2, "told once");
    assert_eq!(host.ids().len(), 5);
}

/// TAILING 43.
#[test]
fn no_bytes_of_a_file_can_harm_the_source() {
    let seed: u64 = std::env::var("WATCHLINE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(Moment::now().unix_nano as u64);
    println!("WATCHLINE_SEED={seed}");
    let mut state = seed | 1;
    let mut random = |below: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20 {
        let mut host = Host::running();
        let mut bytes = file(&[made_chunk(1, 7), made_chunk(8, 7)]);
        for _ in 0..1 + random(40) {
            let chunk = HEADER + random(2) * CHUNK;
            // Where there is something: the chunk's header and its records.
            bytes[chunk + random(9000)] = random(256) as u8;
        }
        let end = if random(4) == 0 {
            random(bytes.len())
        } else {
            bytes.len()
        };
        host.write("a.evtx", &bytes[..end]);
        host.turns(15);
        host.restart();
        host.turns(8);
    }
}

/// TAILING 43. A chunk that a fuzzer made, of which the crate renders text that is no JSON.
#[test]
fn a_damaged_record_that_renders_to_no_json_is_none() {
    let mut bytes = include_bytes!("../../../tests-data/evtx/not-json.chunk").to_vec();
    bytes.resize(CHUNK, 0);
    let mut unreadable = 0;
    chunk::Chunk::of(bytes).unwrap().walk(None, &mut |next| {
        match next {
            chunk::Next::Record(record) => {
                serde_json::from_slice::<serde_json::Value>(&record.json).unwrap();
            }
            chunk::Next::Unreadable => unreadable += 1,
            chunk::Next::Before { .. } => {}
        }
        true
    });
    assert!(unreadable > 0);
}

/// TAILING 44: the channel is cleared, or its file replaced by one whose ids begin again.
#[test]
fn a_log_whose_ids_begin_again_is_read_from_its_first_record_with_a_gap() {
    let mut host = Host::running();
    host.write("a.evtx", &file(&[made_chunk(1, 7), made_chunk(8, 7)]));
    host.turn();
    host.write("a.evtx", &file(&[made_chunk(1, 3)]));
    host.turns(3);
    assert_eq!(
        host.ids(),
        numbers(1..=14),
        "it may be about to be copied over"
    );
    host.turns(6);
    assert_eq!(host.ids(), [numbers(1..=14), numbers(1..=3)].concat());
    assert_eq!(host.gaps(), [("rewritten", None)]);
    host.restart();
    host.write("a.evtx", &file(&[made_chunk(1, 7)]));
    host.turns(8);
    assert_eq!(host.ids(), [numbers(1..=14), numbers(1..=7)].concat());
    assert_eq!(host.gaps().len(), 1);
}

/// TAILING 44: cleared, and its ids go on.
#[test]
fn a_log_that_was_cleared_and_goes_on_with_its_ids_has_no_gap() {
    let mut host = Host::running();
    host.write("a.evtx", &file(&[made_chunk(1, 7)]));
    host.turn();
    host.write("a.evtx", &file(&[made_chunk(8, 4)]));
    host.turns(2);
    assert_eq!(host.ids(), numbers(1..=11));
    assert_eq!(host.gaps(), []);
}

/// TAILING 44: exported again and again.
#[test]
fn a_later_export_in_the_place_of_an_earlier_one_is_continued() {
    let mut host = Host::running();
    host.write("a.evtx", &file(&[made_chunk(1, 3)]));
    host.turn();
    for (last, restart) in [(5, false), (6, true), (7, false)] {
        host.write("new.tmp", &file(&[made_chunk(1, last)]));
        fs::rename(host.path("new.tmp"), host.path("a.evtx")).unwrap();
        if restart {
            host.restart();
        }
        host.turns(3);
        assert_eq!(host.ids(), numbers(1..=last));
    }
    assert_eq!(host.gaps(), []);
}

/// TAILING 44: archived under another name while something behind the last look is unread.
#[test]
fn a_file_that_is_renamed_is_not_read_again_and_its_rest_comes() {
    // Out of sight of the patterns only the handle leads to it.
    for (archive, restart) in [
        ("Archive.evtx", false),
        ("Archive.evtx", true),
        ("Archive.old", false),
    ] {
        let mut host = Host::running();
        host.write("a.evtx", &file(&[made_chunk(1, 7)]));
        host.turn();
        host.write("a.evtx", &file(&[made_chunk(1, 7), made_chunk(8, 7)]));
        fs::rename(host.path("a.evtx"), host.path(archive)).unwrap();
        host.write("a.evtx", &file(&[made_chunk(15, 7)]));
        if restart {
            host.restart();
        }
        host.turns(8);
        let mut ids = host.ids();
        ids.sort_unstable();
        assert_eq!(ids, numbers(1..=21), "{archive} {restart}");
        assert_eq!(host.gaps(), [], "{archive} {restart}");
    }
}

/// TAILING 36.
#[test]
fn a_start_at_the_end_waits_until_it_is_known_whether_the_state_was_lost() {
    let mut host = Host::new();
    host.config.start_at = StartAt::End;
    host.write("a.evtx", &file(&[made_chunk(1, 3)]));
    let config = host.config.clone();
    let mut source = EvtxSource::new(SourceNo(0), config, Arc::default(), BTreeMap::new(), false);
    source.begin(FirstStart::Wait);
    host.source = Some(source);
    host.turn();
    let source = host.source.as_mut().unwrap();
    assert!(source.logs.is_empty() && !source.has_begun());
    source.begin(FirstStart::FromBeginning);
    host.turn();
    assert_eq!(host.ids(), numbers(1..=3));
    assert!(host.source.as_ref().unwrap().has_begun());
}

#[test]
fn a_rewind_goes_back_to_what_is_stored() {
    let mut host = Host::running();
    host.write("a.evtx", &file(&[made_chunk(1, 7)]));
    host.turn();
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(watchline_spool::testing::FailingDisk::new());
    let (spool, _) = Spool::open(disk, dir.path(), watchline_spool::Options::default()).unwrap();
    // The disk holds nothing.
    host.source.as_mut().unwrap().rewind(&spool);
    host.sealed.clear();
    host.turn();
    assert_eq!(host.ids(), numbers(1..=7));
    assert_eq!(host.highest(), Some(7));
}
