//! Against a real server: starting, ending, and every way in which a connection fails.

use std::{
    io::Read as _,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::*;
use crate::{
    migration::{Code, Failure},
    postgres::{Connection, Pool, error::is_connection_lost},
};

const DEADLINE: Duration = Duration::from_secs(20);

type Tested = Result<(), Box<dyn std::error::Error>>;

fn start() -> Result<Embedded, EmbeddedError> {
    Embedded::start(&[("fsync", "off")])
}

async fn open(url: &str) -> Result<Connection, ConnectError> {
    open_with(url, &[], DEADLINE).await
}

async fn open_with(
    url: &str,
    settings: &[(&str, String)],
    deadline: Duration,
) -> Result<Connection, ConnectError> {
    let target = Target::parse(&SecretString::from(url)).expect("a good URL");
    connect(&target, settings, deadline).await
}

async fn show(connection: &Connection, setting: &str) -> Result<String, tokio_postgres::Error> {
    connection.client.query_one("select current_setting($1)", &[&setting]).await.map(|row| row.get(0))
}

async fn refused(url: &str, deadline: Duration) -> Failure {
    Failure::from(&open_with(url, &[], deadline).await.expect_err("the connection is refused"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_their_failures() -> Tested {
    let server = start()?;
    let directory = server.directory.path().to_owned();
    server.create_database("shop \"x\"").await?;
    let error = server.create_database("shop \"x\"").await.expect_err("it exists");
    assert!(error.to_string().contains("42P04"), "{error}");

    // Both ways in, with settings from the first statement on.
    for url in [server.url("shop \"x\""), server.socket_url("shop \"x\"")] {
        let settings = [
            ("search_path", "\"my schema\", public".to_owned()),
            ("application_name", "nexusd 42".to_owned()),
            ("lock_timeout", "5s".to_owned()),
        ];
        let mut connection =
            open_with(&format!("{url}?options=-c%20work_mem=5MB"), &settings, DEADLINE).await?;
        assert_eq!(show(&connection, "search_path").await?, "\"my schema\", public");
        assert_eq!(show(&connection, "application_name").await?, "nexusd 42");
        assert_eq!(show(&connection, "work_mem").await?, "5MB");
        connection.client.batch_execute("drop table if exists missing").await?;
        let notices = connection.take_notices();
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].message, "table \"missing\" does not exist, skipping");
        connection.close().await;
    }

    let port = server.port();
    let unused = free_port()?;
    let cases = [
        (
            format!("postgres://postgres:wrong@127.0.0.1:{port}/postgres"),
            Code::Authentication,
            "password authentication failed",
        ),
        (
            format!("postgres://nobody:wrong@127.0.0.1:{port}/postgres"),
            Code::Authentication,
            "password authentication failed",
        ),
        (
            format!("postgres://postgres@127.0.0.1:{port}/postgres?passfile=/nonexistent"),
            Code::Authentication,
            "asks for a password",
        ),
        (server.url("missing"), Code::Unreachable, "database \"missing\" does not exist"),
        (format!("{}?sslmode=require", server.url("postgres")), Code::Unreachable, "does not offer TLS"),
        (
            format!("{}?sslmode=verify-ca&sslrootcert=/nonexistent", server.url("postgres")),
            Code::BadConfig,
            "cannot use `sslrootcert` /nonexistent",
        ),
        (
            format!("{}?target_session_attrs=standby", server.url("postgres")),
            Code::UnfitServer,
            "target_session_attrs",
        ),
        (format!("postgres://u:p@127.0.0.1:{unused}/d"), Code::Unreachable, "nothing listens there"),
        ("postgres://u@%2Fnonexistent/d".to_owned(), Code::Unreachable, "nothing listens there"),
    ];
    for (url, code, text) in cases {
        let failure = refused(&url, DEADLINE).await;
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(text), "{failure:?}");
        assert!(!format!("{failure:?}").contains("wrong"), "{failure:?}");
    }

    // The next host is tried where the first does not answer.
    let both = format!(
        "postgres://postgres:{}@127.0.0.1:{unused},127.0.0.1:{port}/postgres",
        server.password.expose_secret()
    );
    assert_eq!(open(&both).await?.server(), format!("127.0.0.1:{port}"));

    server.stop()?;
    assert!(!directory.exists());
    Ok(())
}

#[tokio::test]
async fn a_silent_port_ends_with_the_deadline() -> Tested {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("postgres://u:p@{}/d", silent.local_addr()?);
    let begun = Instant::now();
    let failure = refused(&url, Duration::from_millis(300)).await;
    assert_eq!(failure.code, Code::Unreachable);
    assert!(failure.message.contains("no answer within"), "{failure:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_when_they_should() -> Tested {
    let mut server = start()?;
    let watcher = open(&server.url("postgres")).await?;

    // A cancelled statement fails at once, and the session lives on.
    let connection = open(&server.url("postgres")).await?;
    let sleep = connection.client.batch_execute("select pg_sleep(60)");
    tokio::pin!(sleep);
    assert!(timeout(Duration::from_millis(200), &mut sleep).await.is_err());
    connection.cancel().await?;
    let error = timeout(DEADLINE, sleep).await?.expect_err("cancelled");
    let fault = SqlFault::from_error(&error).expect("the server said so");
    assert_eq!((&*fault.sqlstate, fault.fatal, is_connection_lost(&error)), ("57014", false, false));
    assert_eq!(show(&connection, "port").await?, server.port().to_string());

    // The server's errors come without the values of users.
    let error = connection.client.batch_execute("select 'hunter2'::int").await.expect_err("not a number");
    let fault = SqlFault::from_error(&error).expect("the server said so");
    assert_eq!(fault.message, "invalid input syntax for type integer: \"…\"");
    assert_eq!((&*fault.sqlstate, fault.position), ("22P02", Some(8)));

    // Dropped in the middle of a statement, the session's socket is closed soon.
    let gone = "select count(*) from pg_stat_activity where application_name = 'leaver'";
    let leaver =
        [("application_name", "leaver".to_owned()), ("client_connection_check_interval", "100ms".to_owned())];
    let connection = open_with(&server.url("postgres"), &leaver, DEADLINE).await?;
    assert!(
        timeout(Duration::from_millis(200), connection.client.batch_execute("select pg_sleep(60)"))
            .await
            .is_err()
    );
    drop(connection);
    let begun = Instant::now();
    while watcher.client.query_one(gone, &[]).await?.get::<_, i64>(0) != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the session outlives its connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The pool is bounded, gives back what is alive, and lets go of what is taken or idle.
    let target = Target::parse(&SecretString::from(server.socket_url("postgres")))?;
    let pool = Pool::new(target, Vec::new(), 1);
    let pooled = pool.get(DEADLINE).await?;
    let busy = Failure::from(&pool.get(Duration::from_millis(50)).await.expect_err("the only one is in use"));
    assert!(busy.message.contains("all 1 connections to it were in use"), "{busy:?}");
    drop(pooled);
    let taken = pool.take(DEADLINE).await?;
    assert_eq!(pool.status().size, 0);
    taken.close().await;
    drop(pool.get(DEADLINE).await?);
    assert_eq!((pool.evict_idle(Duration::from_mins(1)), pool.evict_idle(Duration::ZERO)), (0, 1));

    // A crash is seen as a lost connection; what was committed is there after it.
    watcher.client.batch_execute("create table kept ()").await?;
    server.kill()?;
    let error = watcher.client.batch_execute("select 1").await.expect_err("the server is gone");
    assert!(is_connection_lost(&error) || watcher.is_closed());
    server.restart()?;
    open(&server.url("postgres")).await?.client.batch_execute("select from kept").await?;
    server.restart()?;
    open(&server.url("postgres")).await?.client.batch_execute("select from kept").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_verifies_what_sslmode_asks() -> Tested {
    let server = start()?;
    let data = server.data_directory();
    let owner = std::fs::metadata(&data)?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let files = [("server.crt", certified.cert.pem()), ("server.key", certified.signing_key.serialize_pem())];
    for (name, pem) in files {
        let path = server.directory.write(name, &pem)?;
        fs::rename(&path, data.join(name))?;
        chown(data.join(name), Some(owner.uid()), Some(owner.gid()))?;
    }
    let authority = tempfile::NamedTempFile::new()?;
    fs::write(authority.path(), certified.cert.pem())?;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let stranger = tempfile::NamedTempFile::new()?;
    fs::write(stranger.path(), other.cert.pem())?;

    let admin = open(&server.socket_url("postgres")).await?;
    admin.client.batch_execute("alter system set ssl = on").await?;
    admin.client.batch_execute("select pg_reload_conf()").await?;
    let url = |host: &str, parameters: &str| {
        format!(
            "postgres://postgres:{}@{host}:{}/postgres?{parameters}",
            server.password.expose_secret(),
            server.port()
        )
    };
    let begun = Instant::now();
    while let Err(error) = open(&url("127.0.0.1", "sslmode=require")).await {
        assert!(begun.elapsed() < DEADLINE, "{error:?}");
    }
    let tls = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let root = |file: &tempfile::NamedTempFile| format!("sslrootcert={}", file.path().display());
    let cases = [
        ("127.0.0.1", "sslmode=disable".to_owned(), Ok(false)),
        ("127.0.0.1", "sslmode=allow".to_owned(), Ok(false)),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Ok(true)),
        ("127.0.0.1", "sslmode=require&channel_binding=require".to_owned(), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&{}", root(&authority)), Ok(true)),
        ("localhost", format!("sslmode=verify-full&{}", root(&authority)), Ok(true)),
        ("localhost", format!("sslmode=verify-full&hostaddr=127.0.0.1&{}", root(&authority)), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-full&{}", root(&authority)), Err("not valid for name")),
        ("localhost", format!("sslmode=verify-full&{}", root(&stranger)), Err("invalid peer certificate")),
        ("localhost", format!("sslmode=require&{}", root(&stranger)), Err("invalid peer certificate")),
        ("localhost", format!("sslmode=prefer&{}", root(&stranger)), Ok(false)),
    ];
    for (host, parameters, expected) in cases {
        match (open(&url(host, &parameters)).await, expected) {
            (Ok(connection), Ok(encrypted)) => {
                let row = connection.client.query_one(tls, &[]).await?;
                assert_eq!(row.get::<_, bool>(0), encrypted, "{host} {parameters}");
            }
            (Err(error), Err(text)) => {
                let failure = Failure::from(&error);
                assert!(failure.message.contains(text), "{host} {parameters}: {failure:?}");
            }
            (opened, _) => unreachable!("{host} {parameters}: {opened:?}"),
        }
    }

    // The client's own certificate is shown to the server that asks for one.
    let key = tempfile::NamedTempFile::new()?;
    fs::write(key.path(), certified.signing_key.serialize_pem())?;
    let own =
        format!("sslmode=require&sslcert={}&sslkey={}", authority.path().display(), key.path().display());
    admin.client.batch_execute("alter system set ssl_ca_file = 'server.crt'").await?;
    admin.client.batch_execute("select pg_reload_conf()").await?;
    let subject = "select client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    let begun = Instant::now();
    while open(&url("localhost", &own))
        .await?
        .client
        .query_one(subject, &[])
        .await?
        .get::<_, Option<String>>(0)
        .is_none()
    {
        assert!(begun.elapsed() < DEADLINE, "the server saw no certificate");
    }
    fs::set_permissions(key.path(), PermissionsExt::from_mode(0o644))?;
    let failure = refused(&url("localhost", &own), DEADLINE).await;
    assert_eq!(failure.code, Code::BadConfig);
    assert!(failure.message.contains("others may use it"), "{failure:?}");

    // A cancel request goes over TLS as well.
    let connection = open(&url("localhost", &format!("sslmode=verify-full&{}", root(&authority)))).await?;
    let sleep = connection.client.batch_execute("select pg_sleep(60)");
    tokio::pin!(sleep);
    assert!(timeout(Duration::from_millis(200), &mut sleep).await.is_err());
    connection.cancel().await?;
    let error = timeout(DEADLINE, sleep).await?.expect_err("cancelled");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("57014"));
    Ok(())
}

/// Waits until the server's process has ended, whoever its parent is by now.
fn await_end(server: &mut Embedded, directory: &Path) -> Tested {
    let mut child = server.server.take().expect("it runs");
    assert!(wait(&mut child, DEADLINE)?.is_some(), "the server still runs");
    let begun = Instant::now();
    while directory.exists() {
        assert!(begun.elapsed() < DEADLINE, "the directory is still there");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn the_watchdog_ends_the_server_of_a_dead_owner() -> Tested {
    let mut server = start()?;
    let directory = server.directory.path().to_owned();
    // The kernel closes this pipe when the owner dies.
    drop(server.watchdog.as_mut().and_then(|watchdog| watchdog.stdin.take()));
    await_end(&mut server, &directory)
}

#[test]
fn the_next_start_sweeps_what_a_dead_owner_left() -> Tested {
    let base = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir()?;
    let base = base.path().canonicalize()?;
    let mut server = Embedded::start_in(&base, Account::choose()?, &[])?;
    let directory = server.directory.path().to_owned();
    directory::sweep(&base, server.account);
    assert!(
        server.server.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))),
        "a living owner's"
    );
    // As after a SIGKILL of the owner and its watchdog: the owner's start time is another.
    let mut owner = String::new();
    File::open(directory.join("owner"))?.read_to_string(&mut owner)?;
    let words: Vec<&str> = owner.split_whitespace().collect();
    fs::write(directory.join("owner"), format!("{} 1 {}", words[0], words[2]))?;
    directory::sweep(&base, server.account);
    await_end(&mut server, &directory)
}
