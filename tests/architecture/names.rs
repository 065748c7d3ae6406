//! The paths that a Rust file names, read from its tokens: comments and strings are not code.

use std::{collections::BTreeSet, error::Error};

use proc_macro2::{TokenStream, TokenTree};

/// A path as the code names it, from `crate` or from another crate's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its segments; the first is `crate`, or the other crate's name.
    pub(crate) segments: Vec<String>,
    /// The line where it stands, from 1.
    pub(crate) line: usize,
}

/// Every path that a file names, inside `use` and outside it: comments and strings are not code.
/// `self` and `super` are resolved; what begins with a name of the file's own is left out.
pub(crate) fn paths(text: &str, module: &[String]) -> Result<Vec<Named>, Box<dyn Error>> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("{}: {error}", module.join("::")))?;
    let mut walk = Walk::default();
    walk.block(tokens, module);
    let Walk { mut imported, named, modules, leaves } = walk;
    imported.retain(|path| !modules.contains(&path.segments[0]));
    let outside = named
        .into_iter()
        .filter(|path| !modules.contains(&path.segments[0]) && !leaves.contains(&path.segments[0]));
    imported.extend(outside);
    Ok(imported)
}

/// What a walk over a file's tokens has found.
#[derive(Default)]
struct Walk {
    /// Paths in `use`.
    imported: Vec<Named>,
    /// Paths elsewhere.
    named: Vec<Named>,
    /// The modules declared in the file.
    modules: BTreeSet<String>,
    /// The names that `use` brings in.
    leaves: BTreeSet<String>,
}

impl Walk {
    fn block(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        // Whether what comes next goes on with a path that is not rooted here: `<T as Trait>::f`.
        let mut in_path = false;
        while let [token, after @ ..] = rest {
            rest = after;
            match token {
                TokenTree::Ident(word) if word == "use" && !is_punct(rest.first(), '<') => {
                    rest = self.import(rest, &[], module);
                }
                TokenTree::Ident(word) if word == "mod" => {
                    let [TokenTree::Ident(name), after @ ..] = rest else { continue };
                    self.modules.insert(name.to_string());
                    rest = after;
                    if let [TokenTree::Group(body), after @ ..] = rest {
                        self.block(body.stream(), &[module, &[name.to_string()]].concat());
                        rest = after;
                    }
                }
                TokenTree::Ident(root) => {
                    let mut segments = vec![root.to_string()];
                    while let Some([TokenTree::Ident(next), after @ ..]) = after_colons(rest) {
                        segments.push(next.to_string());
                        rest = after;
                    }
                    if segments.len() > 1 && !in_path {
                        let line = root.span().start().line;
                        self.named.push(Named { segments: resolve(segments, module), line });
                    }
                    // What is left is `::<…>` or the end of the path.
                    rest = after_colons(rest).unwrap_or(rest);
                    in_path = false;
                }
                TokenTree::Group(group) => {
                    self.block(group.stream(), module);
                    in_path = after_colons(rest).is_some();
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {}
                TokenTree::Punct(punct) => in_path = punct.as_char() == '>' && after_colons(rest).is_some(),
                TokenTree::Literal(_) => in_path = false,
            }
        }
    }

    /// Reads one tree of a `use`, and gives what stands after its comma or semicolon.
    fn import<'a>(
        &mut self,
        mut rest: &'a [TokenTree],
        prefix: &[String],
        module: &[String],
    ) -> &'a [TokenTree] {
        let mut segments = prefix.to_vec();
        let mut line = 0;
        while let [token, after @ ..] = rest {
            rest = after;
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    self.leaves.extend(rest.first().map(ToString::to_string));
                    rest = rest.get(1..).unwrap_or_default();
                }
                TokenTree::Ident(word) => {
                    line = word.span().start().line;
                    segments.push(word.to_string());
                }
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    let mut inner = inner.as_slice();
                    while !inner.is_empty() {
                        inner = self.import(inner, &segments, module);
                    }
                    segments.clear();
                }
                TokenTree::Punct(punct) if matches!(punct.as_char(), ',' | ';') => break,
                _ => {}
            }
        }
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        if let Some(last) = segments.last() {
            self.leaves.insert(last.clone());
            self.imported.push(Named { segments: resolve(segments, module), line });
        }
        rest
    }
}

fn is_punct(token: Option<&TokenTree>, expected: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

/// What stands after `::`, where that comes next.
fn after_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    let both = is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':');
    both.then(|| &tokens[2..])
}

/// A path as seen from the crate's root.
fn resolve(segments: Vec<String>, module: &[String]) -> Vec<String> {
    if !matches!(segments[0].as_str(), "self" | "super") {
        return segments;
    }
    let up = segments.iter().filter(|segment| *segment == "super").count();
    let kept = &module[..module.len().saturating_sub(up)];
    let rest = segments.into_iter().filter(|segment| !matches!(segment.as_str(), "self" | "super"));
    ["crate".to_owned()].into_iter().chain(kept.iter().cloned()).chain(rest).collect()
}
