//! The two spellings of a connection, as libpq reads them: a URL and a list of keywords.

use percent_encoding::percent_decode_str;

use super::UrlError;

/// The parameters of a URL or keyword DSN in the order they are written; a later one wins.
pub(super) fn parameters(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UrlError::Empty);
    }
    if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        return url(rest);
    }
    match text.split_once("://") {
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            Err(UrlError::Scheme)
        }
        _ if text.contains('=') => keywords(text),
        _ => Err(UrlError::Scheme),
    }
}

fn url(rest: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut found = Vec::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = match authority.split_once('@') {
        None => authority,
        Some((_, hosts)) if hosts.contains('@') => {
            return Err(UrlError::Malformed("an `@` in the user or the password must be written as %40"));
        }
        Some((userinfo, hosts)) => {
            let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(u, p)| (u, Some(p)));
            push(&mut found, "user", user)?;
            push(&mut found, "password", password.unwrap_or_default())?;
            hosts
        }
    };
    // A password that is cut off here would be told as the host's name.
    if dbname.contains('@') {
        return Err(UrlError::Malformed(if authority.contains('@') {
            "an `@` or a `/` in the user, the password or the database must be written as %40 or %2F"
        } else {
            "a `/` in the user or the password must be written as %2F"
        }));
    }
    let (hosts, ports): (Vec<_>, Vec<_>) =
        hosts.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    push(&mut found, "host", &hosts.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        push(&mut found, "port", &ports.join(","))?;
    }
    push(&mut found, "dbname", dbname)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or(UrlError::Malformed("a parameter after `?` has no `=`"))?;
        let name = decode(name)?;
        // A password with `@`, `/` or `?` in it may have ended here: its end would be told as a name or a path.
        let is_shown = !["password", "sslpassword"].contains(&name.as_str());
        let may_be_its_end = authority.contains('@') || ["host", "dbname"].contains(&name.as_str());
        if is_shown && may_be_its_end && value.contains('@') {
            return Err(UrlError::Malformed("an `@` after the `?` must be written as %40"));
        }
        found.push((name, decode(value)?));
    }
    Ok(found)
}

/// Splits `host:port`, where an IPv6 address stands in brackets.
fn host_and_port(text: &str) -> Result<(&str, &str), UrlError> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').unwrap_or((text, "")));
    };
    let (address, after) =
        bracketed.split_once(']').ok_or(UrlError::Malformed("an IPv6 address lacks its closing bracket"))?;
    match after.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if after.is_empty() => Ok((address, "")),
        None => Err(UrlError::Malformed("only a port may follow an IPv6 address")),
    }
}

fn push(found: &mut Vec<(String, String)>, name: &str, value: &str) -> Result<(), UrlError> {
    if !value.is_empty() {
        found.push((name.to_owned(), decode(value)?));
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| UrlError::Malformed("a percent-encoded part is not UTF-8"))?;
    if decoded.contains('\0') {
        return Err(UrlError::Malformed("%00 is not allowed"));
    }
    Ok(decoded.into_owned())
}

/// `name = value` pairs; a value with spaces stands in single quotes, and a backslash escapes.
fn keywords(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) =
            rest.split_once('=').ok_or(UrlError::Malformed("a word is not followed by `=`"))?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(UrlError::Malformed("a word is not followed by `=`; values with spaces need quotes"));
        }
        let (value, after) = keyword_value(after.trim_start())?;
        found.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(found)
}

fn keyword_value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(UrlError::Malformed("a quoted value lacks its closing quote")) } else { Ok((value, "")) }
}
