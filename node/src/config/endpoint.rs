/// `https://host:port` and nothing else.
pub(super) fn endpoint(text: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = text
        .parse()
        .map_err(|error| format!("is not an address: {error}"))?;
    let authority = uri
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    if uri.scheme_str() != Some("https") {
        return Err("must begin with https://".to_owned());
    }
    if authority.contains('@') {
        return Err("must not hold a user name".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("has no host".to_owned());
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err("has no port".to_owned());
    }
    if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
        return Err("must end with the port".to_owned());
    }
    Ok(uri)
}
