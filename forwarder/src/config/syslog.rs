//! `[[source]]` of kind `syslog`

use std::{net::SocketAddr, path::PathBuf};

use watchline_node::config::{Section, Text};

use super::{default, sources::read_max_record};
use crate::sources::Common;
use crate::sources::syslog::{Listen, SyslogConfig, TlsFiles};

/// Without its name; problems have been reported.
pub(super) fn read(section: &mut Section<'_>, max_record_bytes: u64) -> Option<SyslogConfig> {
    let texts = section.required_strings("listen");
    let listen: Vec<Listen> = texts
        .iter()
        .filter_map(|text| read_listen(section, text))
        .collect();
    let max_record = read_max_record(section, max_record_bytes);
    let max_connections = section
        .integer("max_connections", 1..=10_000)
        .unwrap_or(default::SYSLOG_CONNECTIONS);
    let buffer = section
        .size("buffer", 64 << 10..=1 << 30)
        .map_or(default::SYSLOG_BUFFER, |size| size.0);
    let tls = read_tls(section, &listen);
    (!listen.is_empty()).then_some(SyslogConfig {
        name: String::new(),
        common: Common::default(),
        listen,
        max_record,
        max_connections: max_connections as usize,
        buffer_bytes: buffer as usize,
        tls,
    })
}

fn read_listen(section: &Section<'_>, text: &Text) -> Option<Listen> {
    let address = |address: &str, then: fn(SocketAddr) -> Listen| match address.parse() {
        Ok(address) => Ok(then(address)),
        Err(_) => Err(format!(
            "{address:?} is not an address with a port, like 127.0.0.1:514 or [::]:514"
        )),
    };
    let path = |path: &str, then: fn(PathBuf) -> Listen| {
        let path = Text {
            value: path.to_owned(),
            span: text.span.clone(),
        };
        section.resolve("listen", &path).map(then)
    };
    let listen = match text.value.split_once("://") {
        Some(("udp", rest)) => address(rest, Listen::Udp),
        Some(("tcp", rest)) => address(rest, Listen::Tcp),
        Some(("tls", rest)) => address(rest, Listen::Tls),
        Some(("unix", rest)) => return path(rest, Listen::UnixDatagram),
        Some(("unix-stream", rest)) => return path(rest, Listen::UnixStream),
        _ => Err(format!(
            "{:?} must begin with udp://, tcp://, tls://, unix:// or unix-stream://",
            text.value
        )),
    };
    listen
        .map_err(|message| section.problem_at(text.span.clone(), format!("`listen`: {message}")))
        .ok()
}

fn read_tls(section: &mut Section<'_>, listen: &[Listen]) -> Option<TlsFiles> {
    if listen.iter().any(|listen| matches!(listen, Listen::Tls(_))) {
        let certificate = section.required_path("certificate");
        let private_key = section.required_path("private_key");
        let client_anchors = section.required_path("client_anchors");
        let client_names = section.strings("client_names");
        return Some(TlsFiles {
            certificate: certificate?,
            private_key: private_key?,
            client_anchors: client_anchors?,
            client_names: client_names.into_iter().map(|name| name.value).collect(),
        });
    }
    for key in [
        "certificate",
        "private_key",
        "client_anchors",
        "client_names",
    ] {
        if section.has(key) {
            let message = format!("`{key}` is for tls://, and `listen` has none");
            section.problem(key, message);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use watchline_node::config::Document;

    use super::*;
    use crate::{config::Config, sources::SourceConfig};

    fn read(source: &str) -> Result<SyslogConfig, Vec<String>> {
        let text = format!(
            "[identity]\ncertificate = \"a.pem\"\nprivate_key = \"a.key\"\ntrust_anchors = \"ca.pem\"\n\
             [uplink]\ncollectors = [\"https://127.0.0.1:7443\"]\n[spool]\ndirectory = \"spool\"\n\
             [[source]]\nname = \"s\"\nkind = \"syslog\"\n{source}"
        );
        let document = Document::parse("/etc/f.toml", text).unwrap();
        let config = Config::from_document(document).map_err(|problems| {
            problems
                .0
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        })?;
        match &config.reloadable.sources[0] {
            SourceConfig::Syslog(syslog) => Ok(syslog.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_of_a_syslog_source_has_a_default() {
        let config = read(
            "listen = [\"udp://127.0.0.1:514\", \"tcp://[::]:601\", \"unix:///run/x\", \"unix-stream://y\"]\n",
        )
        .unwrap();
        let shown: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "udp://127.0.0.1:514",
                "tcp://[::]:601",
                "unix:///run/x",
                "unix-stream:///etc/y"
            ]
        );
        assert_eq!((config.max_connections, config.buffer_bytes), (64, 4 << 20));
        assert_eq!((config.max_record, config.tls), (256 << 10, None));
        let config = read(
            "listen = [\"tls://127.0.0.1:6514\"]\ncertificate = \"c\"\nprivate_key = \"k\"\nclient_anchors = \"a\"\n",
        )
        .unwrap();
        let tls = config.tls.unwrap();
        assert_eq!(tls.private_key, Path::new("/etc/k"));
        assert!(tls.client_names.is_empty());
    }

    #[test]
    fn problems_of_a_syslog_source_are_said_with_what_would_be_right() {
        let problems = read(
            "listen = [\"udp://localhost:514\", \"http://127.0.0.1:1\"]\nclient_names = [\"a\"]\n\
             buffer = \"1KiB\"\nmax_connections = 0\npaths = [\"/x\"]\n",
        )
        .unwrap_err();
        for expected in [
            "12:11: `listen`: \"localhost:514\" is not an address with a port",
            "12:34: `listen`: \"http://127.0.0.1:1\" must begin with udp://",
            "13:16: `client_names` is for tls://",
            "14:10: `buffer` must be between",
            "15:19: `max_connections` must be between",
            "16:1: unknown key `paths`",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected}: {problems:#?}"
            );
        }
        let problems = read("listen = [\"tls://127.0.0.1:6514\"]\n").unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
