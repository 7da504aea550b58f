//! Counts what a message holds before it is decoded: a repeated field of two bytes an entry would otherwise take
//! fifty times its size in memory.

use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// How many fields with number `tag` stand at the top level of the encoded message, for each of `tags`.
pub(crate) fn count<const N: usize>(
    message: &[u8],
    tags: [u32; N],
) -> Result<[usize; N], DecodeError> {
    let mut counts = [0; N];
    each_field(message, |tag, _| {
        if let Some(at) = tags.iter().position(|&counted| counted == tag) {
            counts[at] += 1;
        }
        Ok(())
    })?;
    Ok(counts)
}

/// The fields of a message, by number, that are messages with repeated fields of their own.
#[derive(Debug, Clone, Copy)]
pub struct Shape(pub(crate) &'static [(u32, Shape)]);

impl Shape {
    /// Holds repeated fields, but none in its parts.
    pub(crate) const LEAF: Shape = Shape(&[]);
}

/// How many fields the encoded message has, together with those of its parts in `shape`.
pub(crate) fn entries(message: &[u8], shape: Shape) -> Result<usize, DecodeError> {
    let mut entries = 0;
    each_field(message, |tag, contents| {
        entries += 1;
        if let Some((_, part)) = shape.0.iter().find(|(at, _)| *at == tag) {
            entries += self::entries(contents, *part)?;
        }
        Ok(())
    })?;
    Ok(entries)
}

/// Calls `field` with the number of each field at the top level, and its contents where it is length-delimited.
fn each_field(
    mut message: &[u8],
    mut field: impl FnMut(u32, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message)?;
        let mut contents: &[u8] = &[];
        if wire_type == WireType::LengthDelimited {
            let mut behind = message;
            let length = decode_varint(&mut behind)?;
            // Where it is too long, skipping it says so.
            contents = usize::try_from(length)
                .ok()
                .and_then(|length| behind.get(..length))
                .unwrap_or_default();
        }
        skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
        field(tag, contents)?;
    }
    Ok(())
}
