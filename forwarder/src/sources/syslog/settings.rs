//! `[[source]]` of kind `syslog`, and the words in it.

use std::{fmt, net::SocketAddr, path::PathBuf};

use super::tls::TlsFiles;
use crate::sources::Common;

/// A `[[source]]` of kind `syslog`, valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SyslogConfig {
    pub(crate) name: String,
    pub(crate) common: Common,
    pub(crate) listen: Vec<Listen>,
    /// Bytes of one record; what is beyond is left out, flagged and counted.
    pub(crate) max_record: usize,
    /// Connections at a time over all of `listen`; one sender may have half of them.
    pub(crate) max_connections: usize,
    /// Bytes of records that wait to be read, and of records that are not synced yet.
    pub(crate) buffer_bytes: usize,
    /// There when `listen` has a `tls://`.
    pub(crate) tls: Option<TlsFiles>,
}

/// One entry of `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Tls(SocketAddr),
    UnixDatagram(PathBuf),
    UnixStream(PathBuf),
}

impl Listen {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Listen::Udp(_) => Transport::Udp,
            Listen::Tcp(_) => Transport::Tcp,
            Listen::Tls(_) => Transport::Tls,
            Listen::UnixDatagram(_) => Transport::UnixDatagram,
            Listen::UnixStream(_) => Transport::UnixStream,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.transport().scheme();
        match self {
            Listen::Udp(address) | Listen::Tcp(address) | Listen::Tls(address) => {
                write!(f, "{scheme}://{address}")
            }
            Listen::UnixDatagram(path) | Listen::UnixStream(path) => {
                write!(f, "{scheme}://{}", path.display())
            }
        }
    }
}

/// How a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
    UnixDatagram,
    UnixStream,
}

impl Transport {
    pub(super) const ALL: [Transport; 5] = [
        Transport::Udp,
        Transport::Tcp,
        Transport::Tls,
        Transport::UnixDatagram,
        Transport::UnixStream,
    ];

    /// As in `listen`.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::UnixDatagram => "unix",
            Transport::UnixStream => "unix-stream",
        }
    }

    /// OpenTelemetry's word for it, `network.transport`.
    pub(super) fn as_attribute(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp | Transport::Tls => "tcp",
            Transport::UnixDatagram | Transport::UnixStream => "unix",
        }
    }

    pub(super) fn is_local(self) -> bool {
        matches!(self, Transport::UnixDatagram | Transport::UnixStream)
    }
}
