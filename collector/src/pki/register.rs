use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use watchline_proto::SpiffeId;

use super::files;

/// A certificate's serial number: lower-case hex without leading zeros in print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Serial(Vec<u8>);

impl Serial {
    /// 128 random bits, positive, and never shorter in DER.
    pub(super) fn random() -> anyhow::Result<Serial> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random bytes"))?;
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Serial(bytes.to_vec()))
    }

    /// Big-endian.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = String;

    /// Takes what tools print: upper or lower case, with or without colons.
    fn from_str(text: &str) -> Result<Serial, String> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let digits = if digits.len().is_multiple_of(2) {
            digits
        } else {
            format!("0{digits}")
        };
        match hex::decode(&digits) {
            Ok(bytes) if !bytes.is_empty() => Ok(Serial(bytes)),
            _ => Err("not a number in hex".to_owned()),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0))
    }
}

/// One certificate that was issued.
#[derive(Debug, Clone)]
pub(super) struct Record {
    serial: Serial,
    id: SpiffeId,
    issued: OffsetDateTime,
    not_after: OffsetDateTime,
    revoked: Option<OffsetDateTime>,
}

impl Record {
    pub(super) fn new(
        serial: Serial,
        id: SpiffeId,
        issued: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Record {
        Record {
            serial,
            id,
            issued,
            not_after,
            revoked: None,
        }
    }

    pub(super) fn serial(&self) -> &Serial {
        &self.serial
    }

    pub(super) fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(super) fn issued(&self) -> OffsetDateTime {
        self.issued
    }

    pub(super) fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    pub(super) fn revoked(&self) -> Option<OffsetDateTime> {
        self.revoked
    }

    /// Neither expired nor revoked.
    pub(super) fn is_live(&self, now: OffsetDateTime) -> bool {
        self.revoked.is_none() && now < self.not_after
    }
}

/// A line of the file. Times are RFC 3339, UTC.
#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Issued {
        serial: String,
        id: String,
        issued: String,
        not_after: String,
    },
    Revoked {
        serial: String,
        revoked: String,
    },
}

/// `issued.jsonl`: what was issued and revoked. Locked while it is open; others wait.
pub(super) struct Register {
    file: PathBuf,
    opened: File,
    records: Vec<Record>,
}

impl Register {
    /// An empty one, which must not be there yet.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Register> {
        files::write_new(&folder.join(files::REGISTER), b"")?;
        files::sync_folder(folder)?;
        Register::open(folder)
    }

    /// Reads it and keeps it locked. A last line that a crash cut off is no entry: nothing was issued on it.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Register> {
        let file = folder.join(files::REGISTER);
        let opening = || {
            format!(
                "opening {}: is this the folder of a CA made by `pki init`?",
                file.display()
            )
        };
        let mut opened = OpenOptions::new()
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&file)
            .with_context(opening)?;
        opened
            .lock()
            .with_context(|| format!("locking {}", file.display()))?;
        let mut text = String::new();
        opened
            .read_to_string(&mut text)
            .with_context(|| format!("reading {}", file.display()))?;
        let whole = text.rfind('\n').map_or(0, |newline| newline + 1);
        if whole < text.len() {
            opened
                .set_len(whole as u64)
                .with_context(|| format!("cutting the torn last line of {}", file.display()))?;
        }
        let mut register = Register {
            file,
            opened,
            records: Vec::new(),
        };
        for (number, line) in text[..whole].lines().enumerate() {
            let taken = serde_json::from_str(line)
                .map_err(anyhow::Error::from)
                .and_then(|line| register.take(line));
            taken.with_context(|| {
                format!(
                    "{}:{}: not an entry of this register",
                    register.file.display(),
                    number + 1
                )
            })?;
        }
        Ok(register)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// In the order of issue.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Records a certificate, on disk when this returns. Before the certificate is written anywhere.
    pub(super) fn issued(&mut self, record: Record) -> anyhow::Result<()> {
        self.append(Line::Issued {
            serial: record.serial.to_string(),
            id: record.id.to_string(),
            issued: record.issued.format(&Rfc3339)?,
            not_after: record.not_after.format(&Rfc3339)?,
        })
    }

    /// Records a revocation, on disk when this returns. The list must be signed after it.
    pub(super) fn revoke(&mut self, serial: &Serial, now: OffsetDateTime) -> anyhow::Result<()> {
        self.append(Line::Revoked {
            serial: serial.to_string(),
            revoked: now.format(&Rfc3339)?,
        })
    }

    fn append(&mut self, line: Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.opened
            .seek(std::io::SeekFrom::End(0))
            .and_then(|_| self.opened.write_all(text.as_bytes()))
            .and_then(|()| self.opened.sync_all())
            .with_context(|| format!("appending to {}", self.file.display()))?;
        self.take(line)
    }

    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        let time = |text: &str| {
            OffsetDateTime::parse(text, &Rfc3339).with_context(|| format!("{text:?} is not a time"))
        };
        let serial = |text: &str| {
            text.parse::<Serial>()
                .map_err(|why| anyhow::anyhow!("serial {text:?} is {why}"))
        };
        match line {
            Line::Issued {
                serial: number,
                id,
                issued,
                not_after,
            } => {
                let record = Record::new(
                    serial(&number)?,
                    id.parse()?,
                    time(&issued)?,
                    time(&not_after)?,
                );
                self.records.push(record);
            }
            Line::Revoked {
                serial: number,
                revoked,
            } => {
                let (number, revoked) = (serial(&number)?, time(&revoked)?);
                let Some(record) = self
                    .records
                    .iter_mut()
                    .find(|record| record.serial == number)
                else {
                    bail!("serial {number} was never issued");
                };
                // The first date stands.
                record.revoked.get_or_insert(revoked);
            }
        }
        Ok(())
    }
}
