//! What the daemon may be reached by. An address that other machines reach takes TLS, and a way to say
//! who asks: without them the daemon does not start.

use std::net::SocketAddr;

use crate::config::{
    AccessConfig, Place, Problem, ServerConfig,
    database::Found,
    reader::{Layer, Reader, Section},
};

/// Notes each setting that would let in whoever comes along.
pub(super) fn check<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    server: &ServerConfig,
    access: &AccessConfig,
) {
    let has_tls = server.tls_cert.is_some() && server.tls_key.is_some();
    let missing = [
        (!has_tls).then_some("TLS: give tls_cert and tls_key in [server]"),
        access.file.is_none().then_some("to know who asks: give `file` in [access]"),
    ];
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    // Whoever only reads the metrics may be anybody, where that is said outright.
    let missing_of_http: Vec<_> = if access.open_metrics && has_tls { Vec::new() } else { missing.clone() };
    for (key, address, missing) in [("grpc", server.grpc, missing), ("http", server.http, missing_of_http)] {
        if !address.ip().is_loopback() && !missing.is_empty() {
            complain(reader, root, "server", key, &refusal(address, &missing));
        }
    }
    let halves = [("tls_cert", &server.tls_cert, "tls_key"), ("tls_key", &server.tls_key, "tls_cert")];
    let others = [server.tls_key.is_some(), server.tls_cert.is_some()];
    for ((key, half, other), has_other) in halves.into_iter().zip(others) {
        if half.is_some() && !has_other {
            complain(reader, root, "server", key, &format!("{other} is missing: they go together"));
        }
    }
    if server.tls_client_ca.is_some() && !has_tls {
        complain(
            reader,
            root,
            "server",
            "tls_client_ca",
            "there are no client certificates without TLS: give tls_cert and tls_key",
        );
    } else if server.tls_client_ca.is_some() && access.file.is_none() {
        let message = "a client's certificate says who asks, and nothing says what they may do: give `file` in [access]";
        complain(reader, root, "server", "tls_client_ca", message);
    }
    if access.open_metrics && access.file.is_none() {
        complain(
            reader,
            root,
            "access",
            "open_metrics",
            "it means nothing without `file`: whoever reaches loopback is let in",
        );
    }
}

/// Each protected database where nothing says who anybody is: nobody could be the second person.
pub(super) fn unproven(access: &AccessConfig, found: &Found) -> Vec<Problem> {
    if access.file.is_some() {
        return Vec::new();
    }
    let databases = found.databases.iter().map(|it| ("database", &it.name, &it.settings, &it.place));
    let discoveries = found.discoveries.iter().map(|it| ("discover", &it.id, &it.settings, &it.place));
    let complaint = |(what, name, place): (&str, &String, &Place)| Problem {
        place: Some(place.clone()),
        message: format!(
            "{what} {name:?}: protected: an approval takes two people who are known: give `file` in [access]"
        ),
    };
    let protected = databases.chain(discoveries).filter(|(_, _, settings, _)| settings.protected);
    protected.map(|(what, name, _, place)| complaint((what, name, place))).collect()
}

fn refusal(address: SocketAddr, missing: &[&str]) -> String {
    format!(
        "{address} is refused: it can be reached from other machines, so it takes {}; or listen on 127.0.0.1:{}",
        missing.join(", and it takes "),
        address.port()
    )
}

/// Notes what is wrong with a setting, where it was given.
fn complain<'a>(reader: &mut Reader<'a>, root: &Section<'a>, name: &'static str, key: &str, message: &str) {
    let table = root.get(name).and_then(|value| Some((value.span(), value.get_ref().as_table()?)));
    let section = Section::new(format!("[{name}] "), table);
    let layers = [Layer::Flags(name), Layer::Environment(name), Layer::File(&section)];
    reader.complain_of(&layers, key, message);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Overrides};

    /// What is said of a `[server]` and an `[access]`, one complaint a line.
    fn said(text: &str, flag: Option<&str>) -> Vec<String> {
        let overrides = Overrides { grpc: flag.map(str::to_owned), ..Overrides::default() };
        match Config::parse(text, Some(Path::new("nexus.toml")), [], &overrides) {
            Err(crate::config::ConfigError::Invalid(problems)) => {
                problems.iter().map(crate::config::Problem::line).collect()
            }
            other => other.err().map(|error| error.to_string()).into_iter().collect(),
        }
    }

    #[test]
    fn what_others_reach_takes_tls_and_a_way_to_say_who_asks() {
        let check = |text: &str, expected: &[&str]| assert_eq!(said(text, None), expected, "{text}");
        let tls = "tls_cert = \"c\"\ntls_key = \"k\"\n";
        let access = "[access]\nfile = \"a\"\n";
        let refused = "is refused: it can be reached from other machines, so it takes";
        let (need_tls, need_who) =
            ("TLS: give tls_cert and tls_key in [server]", "to know who asks: give `file` in [access]");
        let instead = "; or listen on 127.0.0.1:7421";
        for address in ["0.0.0.0:7421", "[::]:7421", "10.1.2.3:7421"] {
            for key in ["grpc", "http"] {
                let server = format!("[server]\n{key} = \"{address}\"\n");
                let line = |needs: &str| {
                    format!("nexus.toml:2:8: [server] {key}: {address} {refused} {needs}{instead}")
                };
                check(&server, &[&line(&format!("{need_tls}, and it takes {need_who}"))]);
                check(&format!("{server}{tls}"), &[&line(need_who)]);
                check(&format!("{server}{access}"), &[&line(need_tls)]);
                check(&format!("{server}{tls}{access}"), &[]);
            }
        }
        let open = "[access]\nfile = \"a\"\nopen_metrics = true\n";
        check(
            &format!("[server]\nhttp = \"0.0.0.0:7421\"\n{open}"),
            &[&format!("nexus.toml:2:8: [server] http: 0.0.0.0:7421 {refused} {need_tls}{instead}")],
        );
        check(&format!("[server]\nhttp = \"0.0.0.0:7421\"\n{tls}{open}"), &[]);
        let flag = said("", Some("0.0.0.0:1"));
        assert!(flag.len() == 1 && flag[0].starts_with("--grpc: 0.0.0.0:1 is refused"), "{flag:?}");
    }

    #[test]
    fn what_goes_together() {
        let check = |text: &str, place: &str, part: &str| {
            let said = said(text, None);
            assert!(said.len() == 1 && said[0].starts_with(place) && said[0].contains(part), "{said:?}");
        };
        check("[server]\ntls_cert = \"c\"\n", "nexus.toml:2:12", "tls_key is missing");
        check("[server]\ntls_key = \"c\"\n", "nexus.toml:2:11", "tls_cert is missing");
        check("[server]\ntls_client_ca = \"c\"\n", "nexus.toml:2:17", "without TLS");
        check(
            "[server]\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"a\"\n",
            "nexus.toml:4:17",
            "what they may do",
        );
        check("[access]\nopen_metrics = true\n", "nexus.toml:2:16", "means nothing");
    }

    #[test]
    fn what_is_protected_takes_people_who_are_known() {
        let database = "[[database]]\nname = \"a\"\nurl = \"postgres://h/d\"\n";
        let discover = "[[discover]]\nid = \"b\"\nurl = \"postgres://h/d\"\nschemas = [\"t_*\"]\n";
        let check = |text: &str, expected: &[&str]| {
            let said = said(text, None);
            assert_eq!(said.len(), expected.len(), "{said:?}");
            for (said, expected) in said.iter().zip(expected) {
                assert!(said.starts_with(expected) && said.contains("[access]"), "{said}");
            }
        };
        let access = "[access]\nfile = \"a\"\n";
        let all = "[defaults]\nprotected = true\n";
        check(&format!("{database}protected = true\n"), &["nexus.toml:1:1: database \"a\": protected"]);
        check(&format!("{discover}protected = true\n"), &["nexus.toml:1:1: discover \"b\": protected"]);
        check(
            &format!("{all}{database}{discover}"),
            &["nexus.toml:3:1: database \"a\"", "nexus.toml:6:1: discover \"b\""],
        );
        check(&format!("{all}{database}protected = false\n"), &[]);
        check(&format!("{access}{all}{database}{discover}"), &[]);
    }
}
