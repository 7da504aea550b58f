//! Counts what a message holds before it is decoded: a repeated field of two bytes an entry would otherwise take fifty
//! times its size in memory.

use prost::{
    DecodeError,
    encoding::{DecodeContext, decode_key, skip_field},
};

/// How many fields with number `tag` stand at the top level of the encoded message, for each of `tags`.
pub(crate) fn count<const N: usize>(
    mut message: &[u8],
    tags: [u32; N],
) -> Result<[usize; N], DecodeError> {
    let mut counts = [0; N];
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message)?;
        if let Some(at) = tags.iter().position(|&counted| counted == tag) {
            counts[at] += 1;
        }
        skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
    }
    Ok(counts)
}
