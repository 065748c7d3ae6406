//! `nexusctl checksum`: byte for byte what sha256sum prints. Needs no daemon.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    cli::{Exit, Refusal, render, session::Session},
    migration::{
        Checksum, Direction,
        version::{Naming, parse_file_name},
    },
};

/// The arguments of `checksum`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The files, - for stdin; without any, every up file of the directory
    files: Vec<PathBuf>,
    /// The migration directory
    #[arg(long, value_name = "DIR", default_value = "migrations", conflicts_with = "files")]
    dir: PathBuf,
}

/// Prints the checksums; a file that cannot be read is told and does not stop the others.
pub fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let files = if args.files.is_empty() { up_files(&args.dir)? } else { args.files.clone() };
    let mut sums = Vec::new();
    let mut exit = Exit::Done;
    for file in &files {
        match read(file) {
            Ok(bytes) => sums.push((file.as_path(), Checksum::of(&bytes))),
            Err(error) => {
                let failure = crate::rpc::proto::Failure {
                    message: format!("Cannot read {}: {error}", file.display()),
                    ..Default::default()
                };
                session.console.note(&render::failure::block(None, &failure));
                exit = Exit::Failed;
            }
        }
    }
    if session.console.is_json() {
        session.console.json(&render::json::Checksums::from(sums.as_slice()))?;
    } else {
        let text: Vec<u8> = sums.iter().flat_map(|(file, sum)| line(file, *sum)).collect();
        session.console.raw(&text)?;
    }
    Ok(exit)
}

/// The up files, in the order of their numbers.
fn up_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, &error))? {
        let path = entry.with_context(|| format!("Cannot read {}", directory.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Ok((version, Direction::Up)) = parse_file_name(name, Naming::Relaxed) {
            found.push((version, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Why a migration directory cannot be listed, and what to do.
pub fn unreadable(directory: &Path, error: &io::Error) -> Refusal {
    let message = format!("Cannot read the directory {}: {error}", directory.display());
    Refusal::new(message, "create it, or name the migration directory with --dir")
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    fs::read(file)
}

/// One line, as sha256sum writes it: a name that holds a backslash or a line break is escaped, and
/// the line is marked with a backslash.
fn line(file: &Path, sum: Checksum) -> Vec<u8> {
    let name = file.as_os_str().as_bytes();
    let escaped: Vec<u8> = name
        .iter()
        .flat_map(|byte| match byte {
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            other => vec![*other],
        })
        .collect();
    let mark: &[u8] = if escaped.len() == name.len() { b"" } else { b"\\" };
    [mark, sum.hex().as_bytes(), b"  ", &escaped, b"\n"].concat()
}
