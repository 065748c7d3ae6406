//! The files that `include` names: each holds databases and discoveries of a team.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use glob::MatchOptions;
use toml::de::DeTable;

use crate::config::{
    Overrides,
    database::{Defaults, Fleet, Found},
    problem::{Place, Problem},
    reader::{Reader, Section},
    setting::{Form, quoted},
};

/// What an included file may hold.
const KNOWN: [&str; 3] = ["defaults", "database", "discover"];

/// What is hidden is not meant: editors and Kubernetes keep their own things there.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// What is included.
#[derive(Default)]
pub(super) struct Included {
    /// The files, in the order of the globs and of their names, with their texts.
    pub(super) files: Vec<(PathBuf, String)>,
    /// The directories in which files may come and go.
    pub(super) directories: BTreeSet<PathBuf>,
    /// What is allowed, but probably not meant.
    pub(super) warnings: Vec<String>,
}

/// A glob over paths.
struct Glob;

impl Form for Glob {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a path or a glob such as \"databases.d/*.toml\"";

    fn parse(text: &str) -> Result<String, String> {
        if text.is_empty() || text.contains('\0') {
            return Err(Self::unlike(text));
        }
        match glob::Pattern::new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!("{text:?} is not a glob: {}", error.msg)),
        }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// Finds and reads the files that `include` names, relative to `base`; `file` itself is not among them.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    file: Option<&Path>,
    base: &Path,
) -> Included {
    let patterns = reader.list::<Glob>(root, "include", "[\"databases.d/*.toml\"]");
    let Some(value) = root.get("include") else { return Included::default() };
    let mut included = Included::default();
    let mut seen: BTreeSet<PathBuf> = file.map(same).into_iter().collect();
    for pattern in &patterns {
        included.directories.extend(directory(&base.join(pattern)).map(Path::to_owned));
        let (mut is_empty, mut new) = (true, Vec::new());
        for path in matching(base, pattern) {
            is_empty = false;
            match path {
                Ok(path) if seen.insert(same(&path)) => new.push(path),
                Ok(_) => {}
                Err(wrong) => reader.complain(&value.span(), format!("include: {wrong}")),
            }
        }
        for path in new {
            match fs::read_to_string(&path) {
                Ok(text) => included.files.push((path, text)),
                Err(error) => {
                    let message = format!("include: cannot read {}: {error}", path.display());
                    reader.complain(&value.span(), message);
                }
            }
        }
        if is_empty {
            let place = reader.place(&value.span());
            included.warnings.push(format!("{place}: include: no file matches {pattern:?}"));
        }
    }
    included
}

/// The paths that a glob names, or why one could not be looked at.
fn matching(base: &Path, pattern: &str) -> Vec<Result<PathBuf, String>> {
    // What stands before the glob is a path: a `[` in it is no glob.
    let base = glob::Pattern::escape(&base.to_string_lossy());
    let whole = Path::new(&base).join(pattern);
    match glob::glob_with(&whole.to_string_lossy(), OPTIONS) {
        Ok(paths) => paths.map(|path| path.map_err(|error| error.to_string())).collect(),
        Err(error) => vec![Err(format!("{pattern:?} is not a glob: {}", error.msg))],
    }
}

/// A path by which files are told apart.
fn same(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The directory before the first part of a path that is a glob.
fn directory(path: &Path) -> Option<&Path> {
    let is_plain = |path: &&Path| !path.to_string_lossy().contains(['*', '?', '[']);
    path.ancestors().skip(1).find(is_plain)
}

/// Reads the databases of an included file, over the main file's defaults; returns what is wrong.
pub(super) fn databases(
    path: &Path,
    text: &str,
    environment: &BTreeMap<String, String>,
    inherited: &Defaults,
    found: &mut Found,
) -> Vec<Problem> {
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let place = Place::new(Some(path), text, &error.span().unwrap_or(0..0));
            return vec![Problem { place: Some(place), message: error.message().to_owned() }];
        }
    };
    let overrides = Overrides::default();
    let mut reader = Reader::new(Some(path), text, environment, &overrides);
    let root = Section::new(String::new(), Some((table.span(), table.get_ref())));
    reader.only(&root, &KNOWN, |key| {
        super::ROOT.contains(&key).then_some("the main file: an included one holds databases only")
    });
    let base = path.parent().unwrap_or(Path::new(""));
    Fleet::new(&mut reader, environment, base, found).read(&root, inherited);
    reader.finish()
}
