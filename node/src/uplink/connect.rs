//! Opening a stream: dial, TLS, HTTP/2, Hello and Welcome.
//!
//! One `Channel` for one stream, thrown away with it: tonic's own reconnecting would hide why a line was lost. TLS is ours,
//! below an `http://` URI with an `https://` origin, so that no TLS feature of tonic is ever needed. With TLS 1.3 a client
//! learns only after its handshake that its certificate was refused; so the TLS alert is kept beside the connection
//! ([`Line`]) and takes the place of the meaningless gRPC status that follows.

use std::{
    error::Error as _,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Endpoint};
use watchline_proto::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, refusal::Refusal, wire};

use super::UplinkConfig;
use crate::identity::{Identity, Refused};

/// For dialling and the TLS handshake together.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// From Hello to Welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// Receive windows. Only small messages come this way.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes that the kernel may hold unsent. What has been sent and waits for the peer's TCP is not limited by this.
const NOTSENT_LOWAT_BYTES: u32 = 64 << 10;

/// Opens a byte stream to an endpoint. A trait because the simulated network of the tests is the second one.
pub trait Connector: Clone + Send + Sync + 'static {
    /// The byte stream.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Connects to one of the addresses of `host`. Cancel safe; time limits are the caller's.
    fn connect(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// TCP as the line wants it: no delay, kernel keep-alive and user time-out, little unsent in the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    type Io = TcpStream;

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_keepalive(
            &socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10))
                .with_retries(3),
        )?;
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
            socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        }
        Ok(stream)
    }
}

/// Why there is no stream (any more). Nothing is lost by any of these: what was not acknowledged is offered again.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No connection.
    #[error("connect")]
    Connect(#[source] io::Error),
    /// The endpoint's name cannot be used.
    #[error("endpoint {0} is not https://host:port")]
    Endpoint(String),
    /// We refuse the server: its certificate is not one that we may talk to. Configuration cures this.
    #[error("the server's certificate is refused: {0}")]
    ServerRefused(String),
    /// The server refused our certificate. Configuration cures this.
    #[error("the server refuses our certificate: {0}")]
    CertificateRefused(String),
    /// TLS failed otherwise.
    #[error("TLS")]
    Tls(#[source] io::Error),
    /// The connection broke.
    #[error("connection lost")]
    Lost(#[source] io::Error),
    /// The server ended the stream with a status.
    #[error("{}: {}", status_word(.0.code()), cut(.0.message(), 512))]
    Status(Box<Status>),
    /// Nothing came in time.
    #[error("no {0} in time")]
    Timeout(&'static str),
    /// The server ended the stream without a reason.
    #[error("the server ended the stream")]
    Ended,
    /// The server said what it must not say here.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// A batch cannot be signed now.
    #[error("sign")]
    Signature(#[source] watchline_proto::signature::SignatureError),
    /// The spool cannot be read now.
    #[error("read the spool")]
    Spool(#[source] watchline_spool::ReadError),
}

impl LineError {
    /// Whether configuration (an anchor, a certificate, a name, an upgrade) is what cures it: the line is parked, says so,
    /// and goes on trying. The one place where this is decided.
    pub fn parks(&self) -> bool {
        match self {
            LineError::Endpoint(_)
            | LineError::ServerRefused(_)
            | LineError::CertificateRefused(_) => true,
            LineError::Status(status) => matches!(
                status.code(),
                Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::FailedPrecondition
                    | Code::Unimplemented
            ),
            _ => false,
        }
    }

    /// A word of a closed set, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            LineError::Connect(_) => "connect",
            LineError::Endpoint(_) => "endpoint",
            LineError::ServerRefused(_) => "server_refused",
            LineError::CertificateRefused(_) => "certificate_refused",
            LineError::Tls(_) => "tls",
            LineError::Lost(_) => "lost",
            LineError::Status(status) if status.code() == Code::ResourceExhausted => "busy",
            LineError::Status(_) if self.parks() => "refused",
            LineError::Status(_) => "status",
            LineError::Timeout(_) => "timeout",
            LineError::Ended => "ended",
            LineError::Protocol(_) => "protocol",
            LineError::Signature(_) => "signature",
            LineError::Spool(_) => "spool",
        }
    }

    /// How long the server asks us to stay away (`grpc-retry-pushback-ms`).
    pub fn retry_after(&self) -> Option<Duration> {
        let LineError::Status(status) = self else {
            return None;
        };
        let value = status.metadata().get(PUSHBACK)?.to_str().ok()?;
        value.parse().ok().map(Duration::from_millis)
    }
}

/// Metadata key of the standard gRPC retry push-back.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

fn status_word(code: Code) -> &'static str {
    match code {
        Code::PermissionDenied => "permission denied",
        Code::Unauthenticated => "unauthenticated",
        Code::FailedPrecondition => "failed precondition",
        Code::ResourceExhausted => "resource exhausted",
        Code::InvalidArgument => "invalid argument",
        Code::Unavailable => "unavailable",
        Code::Unimplemented => "unimplemented",
        _ => "stream ended by the server",
    }
}

/// At most `max` bytes of a text from outside, at a character boundary.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What is known of a connection beside its stream: how much of what was handed over has been written, and how it broke.
#[derive(Debug, Default)]
pub(super) struct LineState {
    /// Bytes that HTTP/2 has written into TLS.
    written: AtomicU64,
    /// Wake [`LineState::drained`] when `written` reaches this.
    wanted: AtomicU64,
    drained: Notify,
    broken: Mutex<Option<io::Error>>,
}

impl LineState {
    fn wrote(&self, bytes: usize) {
        let written = self.written.fetch_add(bytes as u64, Ordering::SeqCst) + bytes as u64;
        if written >= self.wanted.load(Ordering::SeqCst) {
            self.wanted.store(u64::MAX, Ordering::SeqCst);
            self.drained.notify_one();
        }
    }

    fn broke(&self, error: &io::Error) {
        let copy = match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(tls) => io::Error::new(error.kind(), tls.clone()),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        // The first error says why; what follows is its echo.
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(copy);
    }

    /// The I/O error that broke the connection, if one did.
    fn take_broken(&self) -> Option<io::Error> {
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Knows whether what was handed to HTTP/2 has left it. HTTP/2 would take a megabyte and more; an alert must not wait for
/// that, so the next routine batch is handed over only when the last one has been written.
///
/// Counted from below: a message is at least its length, its prefix of 5 bytes and 9 bytes a frame of at most 16 KiB.
/// Pings and window updates count as written too; each time that nothing is left the two counts are set equal.
pub(super) struct Gate {
    state: Arc<LineState>,
    handed: u64,
}

impl Gate {
    const FRAME_BYTES: u64 = 16 << 10;

    fn new(state: Arc<LineState>) -> Gate {
        Gate { state, handed: 0 }
    }

    pub(super) fn handed(&mut self, message_bytes: u64) {
        let data = message_bytes + 5;
        let least = data + 9 * data.div_ceil(Self::FRAME_BYTES);
        self.handed = self.handed.max(self.state.written.load(Ordering::SeqCst)) + least;
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.written.load(Ordering::SeqCst) >= self.handed
    }

    /// Resolves when the gate opens. Cancel safe.
    pub(super) async fn opened(&self) {
        while !self.is_open() {
            self.state.wanted.store(self.handed, Ordering::SeqCst);
            if self.is_open() {
                return;
            }
            self.state.drained.notified().await;
        }
    }
}

/// The TLS connection below HTTP/2, observed.
pub(super) struct Line<S> {
    tls: S,
    state: Arc<LineState>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.tls).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &result {
            self.state.broke(error);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tls).poll_write(cx, buf);
        match &result {
            Poll::Ready(Ok(bytes)) => self.state.wrote(*bytes),
            Poll::Ready(Err(error)) => self.state.broke(error),
            Poll::Pending => {}
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tls).poll_write_vectored(cx, bufs);
        match &result {
            Poll::Ready(Ok(bytes)) => self.state.wrote(*bytes),
            Poll::Ready(Err(error)) => self.state.broke(error),
            Poll::Pending => {}
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// tonic's way to ask for a connection.
struct Dial<C> {
    connector: C,
    tls: Arc<rustls::ClientConfig>,
    endpoint: Uri,
    state: Arc<LineState>,
}

type Dialled<C> = TokioIo<Line<TlsStream<<C as Connector>::Io>>>;

impl<C: Connector> tower_service::Service<Uri> for Dial<C> {
    type Response = Dialled<C>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled<C>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.connector.clone();
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let endpoint = self.endpoint.clone();
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            // A literal IPv6 address has brackets in a URI.
            let host = endpoint
                .host()
                .unwrap_or_default()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let port = endpoint.port_u16().unwrap_or(443);
            let name = ServerName::try_from(host.clone())
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
            let dialled = async {
                let io = connector.connect(&host, port).await?;
                tls.connect(name, io).await
            };
            let tls = dialled.await.inspect_err(|error| state.broke(error))?;
            Ok(TokioIo::new(Line { tls, state }))
        })
    }
}

/// A stream that has been welcomed.
pub(super) struct Opened {
    pub(super) endpoint: Uri,
    pub(super) outbound: mpsc::Sender<wire::ClientMessage>,
    pub(super) inbound: Streaming<wire::ServerMessage>,
    pub(super) welcome: wire::Welcome,
    pub(super) gate: Gate,
    state: Arc<LineState>,
}

impl Opened {
    /// What a status at the end of the stream really means: the connection's own error says more, where there is one.
    pub(super) fn explain(&self, status: Status) -> LineError {
        explain(&self.state, status)
    }
}

/// Connects to `endpoint` and exchanges Hello and Welcome.
pub(super) async fn open<C: Connector>(
    config: &UplinkConfig,
    identity: &Identity,
    connector: &C,
    endpoint: Uri,
) -> Result<Opened, LineError> {
    let state = Arc::new(LineState::default());
    let authority = endpoint
        .authority()
        .ok_or_else(|| LineError::Endpoint(endpoint.to_string()))?;
    let transport = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|_| LineError::Endpoint(endpoint.to_string()))?
        .origin(endpoint.clone())
        .http2_keep_alive_interval(config.keep_alive.interval)
        .keep_alive_timeout(config.keep_alive.timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(16 << 10);
    let dial = Dial {
        connector: connector.clone(),
        tls: identity.client_config(),
        endpoint: endpoint.clone(),
        state: Arc::clone(&state),
    };
    let channel = match timeout(CONNECT_WITHIN, transport.connect_with_connector(dial)).await {
        Err(_) => return Err(LineError::Timeout("connection")),
        Ok(Err(error)) => {
            let io = state
                .take_broken()
                .unwrap_or_else(|| io::Error::other(innermost(&error)));
            return Err(tls_refusal(&io).unwrap_or(LineError::Connect(io)));
        }
        Ok(Ok(channel)) => channel,
    };
    let mut client = wire::uplink_client::UplinkClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    // Room for one: what is in here can no longer be overtaken.
    let (outbound, requests) = mpsc::channel(1);
    let hello = wire::Hello {
        protocol_version: PROTOCOL_VERSION,
        software: config.software.clone(),
        host: config.host.clone(),
        lanes: config
            .lanes
            .iter()
            .map(|lane| wire::Lane::from(*lane).into())
            .collect(),
    };
    let hello = wire::ClientMessage {
        kind: Some(wire::client_message::Kind::Hello(hello)),
    };
    let exchange = async {
        outbound.send(hello).await.map_err(|_| LineError::Ended)?;
        let response = client
            .connect(ReceiverStream::new(requests))
            .await
            .map_err(|s| explain(&state, s))?;
        let mut inbound = response.into_inner();
        let first = inbound
            .message()
            .await
            .map_err(|s| explain(&state, s))?
            .ok_or(LineError::Ended)?;
        match first.kind {
            Some(wire::server_message::Kind::Welcome(welcome)) => Ok((inbound, welcome)),
            _ => Err(LineError::Protocol("its first message is not Welcome")),
        }
    };
    let (inbound, welcome) = timeout(WELCOME_WITHIN, exchange)
        .await
        .map_err(|_| LineError::Timeout("Welcome"))??;
    if welcome.protocol_version != PROTOCOL_VERSION {
        let detail = format_args!(
            "the server speaks protocol version {}, this program {PROTOCOL_VERSION}",
            welcome.protocol_version
        );
        let status = Refusal::UnsupportedVersion.status(detail);
        return Err(LineError::Status(Box::new(status)));
    }
    Ok(Opened {
        endpoint,
        outbound,
        inbound,
        welcome,
        gate: Gate::new(Arc::clone(&state)),
        state,
    })
}

/// The connection's own error before the status that follows from it; a status that came over the wire as it is.
fn explain(state: &LineState, status: Status) -> LineError {
    if let Some(io) = state.take_broken() {
        return tls_refusal(&io).unwrap_or_else(|| LineError::Lost(said_shortly(io)));
    }
    match status.source() {
        // Made here, not sent by the server: the transport broke (keep-alive, GOAWAY).
        Some(_) => LineError::Lost(io::Error::other(innermost(&status))),
        None => LineError::Status(Box::new(status)),
    }
}

/// rustls tells of a connection that just ended with a page to read; an operator's log has no use for it.
fn said_shortly(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the peer closed the connection without a farewell",
        ),
        _ => error,
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Whether an I/O error is one end's refusal of the other's certificate.
fn tls_refusal(error: &io::Error) -> Option<LineError> {
    use rustls::{AlertDescription as Alert, Error as Tls};
    let tls = error.get_ref()?.downcast_ref::<Tls>()?;
    match tls {
        Tls::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired),
        ) => Some(LineError::CertificateRefused(format!(
            "TLS alert {alert:?}"
        ))),
        Tls::InvalidCertificate(_)
        | Tls::InvalidCertRevocationList(_)
        | Tls::NoCertificatesPresented => Some(LineError::ServerRefused(
            Refused::of_handshake(error).to_string(),
        )),
        other => Some(LineError::Tls(io::Error::new(error.kind(), other.clone()))),
    }
}
