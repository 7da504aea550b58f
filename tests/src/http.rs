//! Just enough of a client for the health endpoints.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

/// A status code and a body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// For example 200.
    pub status: u16,
    /// As text.
    pub body: String,
}

/// GET `path` from `address`; blocks for some seconds at most.
///
/// # Errors
/// Nobody answers there, or not with HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("read {path} from {address}"))?;
    let answer = String::from_utf8(answer).context("answer is not UTF-8")?;
    let (header, body) = answer
        .split_once("\r\n\r\n")
        .context("answer has no header")?;
    let status = header
        .split(' ')
        .nth(1)
        .context("answer has no status")?
        .parse()
        .context("status is not a number")?;
    let chunked = header
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Answer { status, body })
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("chunk has no size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("chunk size is not a number")?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).context("chunk is short")?);
        body = rest.get(size + 2..).context("chunk has no end")?;
    }
}
