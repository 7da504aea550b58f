use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;

const WITHIN: Duration = Duration::from_secs(5);
/// Ten thousand forwarders at a few hundred bytes each, and room.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// For the `status` subcommand: GET `path` from `address`, within 5 s; status code and body. An unspecified address (`0.0.0.0`) is
/// asked over loopback. `Err`: unreachable.
pub async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let address = reachable(address);
    tokio::time::timeout(WITHIN, exchange(address, path))
        .await
        .with_context(|| {
            format!(
                "http://{address}{path} did not answer within {} s",
                WITHIN.as_secs()
            )
        })?
        .with_context(|| format!("asking http://{address}{path}"))
}

async fn exchange(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok((code, String::from_utf8(body.to_bytes().into())?))
    };
    // The connection future moves the bytes; it ends when the sender is gone, by which time the answer is there.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

/// Where one that listens everywhere is asked.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_listens_everywhere_is_asked_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:7480"), "127.0.0.1:7480");
        assert_eq!(at("[::]:7480"), "[::1]:7480");
        assert_eq!(at("10.0.0.1:7480"), "10.0.0.1:7480");
    }
}
