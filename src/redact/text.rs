//! Credentials in URLs, in keyword DSNs, and in free text that holds either.

use std::ops::Range;

use super::is_secret_key;

const MASK: &str = "***";

/// What a token of Nexus's begins with, so that one that was left somewhere is found; 64 hexadecimal digits
/// follow.
pub const TOKEN_PREFIX: &str = "nexus_";

/// How many digits of a token are one, also where it was cut.
const LEAST_TOKEN: usize = 32;

/// A URL or keyword DSN with its credentials masked: `postgres://app:***@db/shop`,
/// `host=db password=***`.
///
/// The user's name stays, where it is plainly one; a password that should have been percent-encoded
/// and was not may take the host's name with it.
pub fn mask_url(url: &str) -> String {
    let mut hidden = secret_parameters(url, true);
    hidden.extend(userinfo(url, 0));
    cover(url, hidden)
}

/// The URL of a webhook with nothing but its scheme, host and port: its userinfo, its query, and
/// very often its path are secrets.
pub fn mask_sink_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return MASK.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A password with a raw `/` or `?` in it would leave its end in the path, which is hidden, and
    // its beginning where the host is: then the host is hidden too.
    let host = if path.contains('@') { MASK } else { host };
    let shown = if path.trim_start_matches('/').is_empty() { path } else { "/***" };
    format!("{scheme}://{host}{shown}")
}

/// A text of somebody's, on one line and not too long, without credentials of URLs and the like: it is
/// kept, shown and sent to others.
pub fn plain(text: &str, most: usize) -> String {
    // Cut only after that, so that no URL loses the sign by which its password is known.
    let text: String = text.chars().filter(|c| !c.is_control()).take(4 * most).collect();
    mask_text(&text).chars().take(most).collect()
}

/// A text with the credentials of every URL and keyword DSN in it masked.
pub fn mask_text(text: &str) -> String {
    let mut hidden = secret_parameters(text, false);
    hidden.extend(tokens(text));
    let mut at = 0;
    for token in text.split_inclusive(char::is_whitespace) {
        hidden.extend(userinfo(token.trim_end(), at));
        at += token.len();
    }
    cover(text, hidden)
}

/// The secret parts of Nexus's own tokens, wherever somebody has put one.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices(TOKEN_PREFIX).filter_map(|(at, prefix)| {
        let begin = at + prefix.len();
        let length = text[begin..].bytes().take_while(u8::is_ascii_hexdigit).count();
        (length >= LEAST_TOKEN).then_some(begin..begin + length)
    })
}

/// The part of one URL's userinfo that must be hidden, moved by `offset`.
///
/// Passwords with a raw `@`, `/` or `?` are common, hence the **last** `@` of the whole token ends it.
fn userinfo(token: &str, offset: usize) -> Option<Range<usize>> {
    let begin = token.find("://")? + 3;
    let end = begin + token[begin..].rfind('@')?;
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-%".contains(c));
    let begin = match token[begin..end].split_once(':') {
        Some((user, _)) if is_name(user) => begin + user.len() + 1,
        None if is_name(&token[begin..end]) && token[..begin].contains("postgres") => return None,
        _ => begin,
    };
    Some(offset + begin..offset + end)
}

/// The values of all `name=value` whose name is a secret's, in a query string or a keyword DSN.
///
/// `whole` says that the text is one URL or DSN, in which a space does not end a URL. A text may be long and
/// somebody else's: nothing of it is looked at again for each `=`.
fn secret_parameters(text: &str, whole: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut seen, mut in_url) = (0, false);
    let (mut url_end, mut word_end) = (0, 0);
    for (at, _) in text.match_indices('=') {
        let head = text[..at].trim_end();
        // The URL that the name is in, if any, begins in what was not looked at yet, or before it.
        let fresh = &head[seen..];
        let word = if whole { None } else { fresh.rfind(char::is_whitespace) };
        let is_new = word.map_or(fresh, |space| &fresh[space..]).contains("://");
        in_url = is_new || (in_url && word.is_none());
        seen = head.len();
        let begin = head
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |i| i + head[i..].chars().next().map_or(1, char::len_utf8));
        if !is_secret_key(&head[begin..]) {
            continue;
        }
        let begin = at + 1;
        if in_url {
            let ends = |c: char| c == '&' || (!whole && c.is_whitespace());
            if url_end < begin {
                url_end = text[begin..].find(ends).map_or(text.len(), |length| begin + length);
            }
            found.push(begin..url_end);
        } else {
            let begin = text.len() - text[begin..].trim_start().len();
            let is_quoted = text[begin..].starts_with('\'');
            if is_quoted || word_end < begin {
                let end = begin + keyword_value(&text[begin..]);
                found.push(begin..end);
                word_end = if is_quoted { word_end } else { end };
            } else {
                found.push(begin..word_end);
            }
        }
    }
    found
}

/// How many bytes the value of a keyword DSN has: up to white space, or in quotes; a backslash escapes.
/// Inside a literal of SQL the quotes are doubled.
fn keyword_value(text: &str) -> usize {
    if let Some(doubled) =
        text.strip_prefix("''").filter(|rest| rest.starts_with(|c: char| !c.is_whitespace()))
    {
        return doubled.find("''").map_or(text.len(), |end| end + 4);
    }
    let quoted = text.starts_with('\'');
    let mut letters = text.char_indices().skip(usize::from(quoted)).peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '\'' if quoted && letters.peek().is_some_and(|(_, next)| *next == '\'') => drop(letters.next()),
            '\'' if quoted => return at + 1,
            c if !quoted && c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// The text with each range replaced by the mask; ranges that touch or overlap become one.
fn cover(text: &str, mut hidden: Vec<Range<usize>>) -> String {
    hidden.retain(|range| !range.is_empty());
    hidden.sort_by_key(|range| range.start);
    let mut covered = String::with_capacity(text.len());
    let mut at = 0;
    for range in hidden {
        if range.start > at || at == 0 {
            covered.push_str(&text[at..range.start]);
            covered.push_str(MASK);
        }
        at = at.max(range.end);
    }
    covered.push_str(&text[at..]);
    covered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_of_our_own() {
        let token = format!("nexus_{}", "0a".repeat(32));
        assert_eq!(mask_text(&format!("see {token}, or nexus_journal")), "see nexus_***, or nexus_journal");
        assert_eq!(mask_text("notify nexus_00ff00ff00ff00ff"), "notify nexus_00ff00ff00ff00ff");
    }

    #[test]
    fn urls_and_dsns() {
        let cases = [
            ("postgres://app:hunter2@db:5432/shop", "postgres://app:***@db:5432/shop"),
            ("postgresql://app:p%40ss@/shop?host=/run", "postgresql://app:***@/shop?host=/run"),
            ("postgres://app@db/shop", "postgres://app@db/shop"),
            ("postgres://db/shop?user=app", "postgres://db/shop?user=app"),
            ("postgres://app:a@b/c?d#e@db/shop", "postgres://app:***@db/shop"),
            ("postgres://app:with space@db/shop", "postgres://app:***@db/shop"),
            (
                "postgres://db/shop?password=a b&sslmode=require",
                "postgres://db/shop?password=***&sslmode=require",
            ),
            ("postgres://db/shop?sslpassword=x&sslkey=/k", "postgres://db/shop?sslpassword=***&sslkey=/k"),
            ("https://ghp_token@github.com/x", "https://***@github.com/x"),
            ("host=db password=hunter2 user=app", "host=db password=*** user=app"),
            ("host=db password = 'a \\' b' user=app", "host=db password = *** user=app"),
            ("host=db password='a''b' user=app", "host=db password=*** user=app"),
            ("connection 'host=db password=''a b'' user=app'", "connection 'host=db password=*** user=app'"),
            ("password='' user=app", "password=*** user=app"),
            ("password=a\\ b user=app", "password=*** user=app"),
            ("host=db password=a&b", "host=db password=***"),
            ("postgres://app@db/shop?password=a@b", "postgres://***"),
            ("", ""),
            ("host=db", "host=db"),
        ];
        for (url, expected) in cases {
            assert_eq!(mask_url(url), expected, "{url}");
        }
    }

    #[test]
    fn urls_of_sinks() {
        let cases = [
            ("https://hooks.example.com/services/T0/B1/xyz", "https://hooks.example.com/***"),
            ("https://u:p@hooks.example.com:8443/?token=x", "https://hooks.example.com:8443/***"),
            ("http://127.0.0.1:9093", "http://127.0.0.1:9093"),
            ("http://127.0.0.1:9093/", "http://127.0.0.1:9093/"),
            ("https://u:p/q@host/x", "https://***/***"),
            ("hunter2", "***"),
        ];
        for (url, expected) in cases {
            assert_eq!(mask_sink_url(url), expected, "{url}");
        }
    }

    #[test]
    fn long_texts_take_no_time() {
        for unit in
            ["password=", "a=password = ", "x://password=", "password='", "password=''", "://@", "key=\\"]
        {
            let text = unit.repeat(2_000_000 / unit.len());
            let began = std::time::Instant::now();
            let _ = (mask_url(&text), mask_text(&text));
            assert!(began.elapsed().as_secs() < 20, "{unit}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn free_text() {
        let cases = [
            ("no URL here, a@b.c", "no URL here, a@b.c"),
            (
                "tried postgres://a:b@h1/x, then postgres://c:d@h2/y?token=e.",
                "tried postgres://a:***@h1/x, then postgres://c:***@h2/y?token=***",
            ),
            ("dsn \"host=h password=abc\" é", "dsn \"host=h password=*** é"),
            ("PGPASSWORD=abc psql", "PGPASSWORD=*** psql"),
            ("column \"monkey=5\"", "column \"monkey=5\""),
            (
                "password authentication failed for user \"app\"",
                "password authentication failed for user \"app\"",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(mask_text(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_password_of_a_url_survives(secret in "[!-~é]{6,24}", around in "[a-z ]{0,12}") {
            let url = format!("postgres://app:{secret}@db.example:5432/shop?sslmode=require");
            prop_assert!(!mask_url(&url).contains(&secret));
            let text = format!("{around} {url} {around}");
            prop_assert!(!mask_text(&text).contains(&secret));
        }

        #[test]
        fn an_encoded_password_leaves_the_rest(secret in "([A-Za-z0-9._~-]|%[0-9A-F]{2}){1,24}") {
            let url = format!("postgres://app:{secret}@db.example:5432/shop?sslmode=require");
            prop_assert_eq!(mask_url(&url), "postgres://app:***@db.example:5432/shop?sslmode=require");
        }

        #[test]
        fn no_password_of_a_parameter_survives(secret in "[!-%'-~é]{6,24}", name in "password|sslpassword|PASSWORD") {
            let url = format!("postgres://app@db.example/shop?sslmode=require&{name}={secret}&connect_timeout=5");
            prop_assert!(!mask_url(&url).contains(&secret));
            let text = format!("with {url} and");
            prop_assert!(!mask_text(&text).contains(&secret));
        }

        #[test]
        fn no_password_of_a_keyword_survives(secret in "[ -~é]{6,24}", space in " {0,2}") {
            let written = secret.replace('\\', "\\\\").replace('\'', "\\'");
            let dsn = format!("host=db.example password{space}={space}'{written}' user=app");
            prop_assert_eq!(mask_url(&dsn), format!("host=db.example password{space}={space}*** user=app"));
            prop_assert_eq!(mask_text(&dsn), mask_url(&dsn));
        }

        #[test]
        fn no_path_of_a_sink_survives(secret in "[!-~]{6,24}") {
            for url in [format!("https://hooks.example/{secret}"), format!("https://u:{secret}@hooks.example/x")] {
                prop_assert!(!mask_sink_url(&url).contains(&secret), "{}", url);
            }
        }

        #[test]
        fn any_text_is_masked_without_panic(text in "\\PC{0,80}") {
            let _ = (mask_url(&text), mask_text(&text));
        }
    }
}
