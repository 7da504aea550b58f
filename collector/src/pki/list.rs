use std::io::{self, Write};

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::register::Record;

/// `2027-12-25`, UTC
pub(super) fn day(time: OffsetDateTime) -> String {
    time.format(format_description!("[year]-[month]-[day]"))
        .unwrap_or_default()
}

/// A line each, with a heading; columns as wide as they need.
pub(super) fn table<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    now: OffsetDateTime,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut rows =
        vec![["SERIAL", "ROLE", "AGENCY", "NAME", "NOT AFTER", "STATE"].map(str::to_owned)];
    for record in records {
        let id = record.id();
        rows.push([
            record.serial().to_string(),
            id.role().to_string(),
            id.agency()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            id.name().to_string(),
            day(record.not_after()),
            match record.revoked() {
                Some(revoked) => format!("revoked {}", day(revoked)),
                None => state(record, now).to_owned(),
            },
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

/// An array of objects; times are RFC 3339, UTC.
pub(super) fn json(
    records: &[Record],
    now: OffsetDateTime,
    out: &mut impl Write,
) -> io::Result<()> {
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    let object = |record: &Record| {
        let id = record.id();
        json!({
            "serial": record.serial().to_string(),
            "id": id.to_string(),
            "role": id.role().as_str(),
            "agency": id.agency().map(ToString::to_string),
            "name": id.name().to_string(),
            "issued": time(record.issued()),
            "not_after": time(record.not_after()),
            "revoked": record.revoked().map(time),
            "state": state(record, now),
        })
    };
    let objects: Vec<serde_json::Value> = records.iter().map(object).collect();
    serde_json::to_writer_pretty(&mut *out, &objects)?;
    writeln!(out)
}

fn state(record: &Record, now: OffsetDateTime) -> &'static str {
    if record.revoked().is_some() {
        "revoked"
    } else if record.is_live(now) {
        "valid"
    } else {
        "expired"
    }
}
