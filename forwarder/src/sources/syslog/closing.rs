//! Why connections end.

/// Why a connection was closed or not taken: the label of `watchline_syslog_closed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// By the sender.
    ByPeer,
    /// The connection broke.
    Failed,
    /// No octet count where one has to be, or one that cannot be: what follows cannot be told apart.
    BadCount,
    /// Over `max_connections`, or one sender over half of them.
    TooMany,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The handshake failed: no certificate, or not one that the anchors vouch for.
    Tls,
    /// The certificate has none of `client_names`.
    NotAllowed,
    /// The system had no descriptor for it.
    AcceptFailed,
    /// The source was stopped or changed.
    Stopped,
}

impl Closing {
    pub(crate) const ALL: [Closing; 9] = [
        Closing::ByPeer,
        Closing::Failed,
        Closing::BadCount,
        Closing::TooMany,
        Closing::HandshakeTimeout,
        Closing::Tls,
        Closing::NotAllowed,
        Closing::AcceptFailed,
        Closing::Stopped,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Closing::ByPeer => "by_peer",
            Closing::Failed => "failed",
            Closing::BadCount => "octet_count",
            Closing::TooMany => "too_many",
            Closing::HandshakeTimeout => "handshake_timeout",
            Closing::Tls => "tls",
            Closing::NotAllowed => "not_allowed",
            Closing::AcceptFailed => "accept_failed",
            Closing::Stopped => "stopped",
        }
    }
}
