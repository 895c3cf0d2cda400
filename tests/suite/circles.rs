//! No two files of a crate depend on each other, directly or in a circle, so each can be read after the files that it uses.
//!
//! Dependencies are read from the `use` declarations of a file and from the paths in its code. A file that only re-exports a name
//! does not depend on it: the files that use the name depend on the file that defines it. `mod x;` alone is no dependency, and
//! tests do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tidy::files;

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for (folder, name) in [
        ("schema/src/", "schema"),
        ("actors/src/", "actors"),
        ("workbench/src/", "workbench"),
        ("server/src/", "understudy"),
    ] {
        wrong.extend(circles(&Crate::new(folder, name, files(folder))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_circle_is_found_through_groups_exports_and_paths_in_code() {
    let texts = [
        ("src/lib.rs", "mod a; mod b; pub mod c; pub use b::Shown;"),
        (
            "src/a.rs",
            "use std::fmt; use crate::{c::{self, *}, Shown as B}; fn a(_: B) { \"crate::b\"; /* crate::b */ }",
        ),
        (
            "src/b.rs",
            "mod inner; pub use inner::Shown; #[cfg(test)] mod tests { use crate::a::a; }",
        ),
        (
            "src/b/inner.rs",
            "pub struct Shown; fn f() { super::super::c::made(); }",
        ),
        ("src/c/mod.rs", "mod deep; pub use deep::made;"),
        (
            "src/c/deep.rs",
            "pub fn made<'a>(c: char) -> bool { c == '\"' || crate::a::a() }",
        ),
        ("src/c/tests.rs", "use crate::b::Shown;"),
    ];
    let texts = texts.map(|(file, text)| (file.to_owned(), text.to_owned()));
    let found = circles(&Crate::new("src/", "it", texts.to_vec()));
    let expected = "src/a.rs -> src/b/inner.rs (Shown)\nsrc/b/inner.rs -> src/c/deep.rs (made)\nsrc/c/deep.rs -> src/a.rs (a)";
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].lines().collect::<BTreeSet<_>>() == expected.lines().collect::<BTreeSet<_>>(),
        "{}",
        found[0]
    );

    let without = texts
        .into_iter()
        .map(|(file, text)| (file, text.replace("|| crate::a::a()", "")));
    assert_eq!(
        circles(&Crate::new("src/", "it", without.collect())),
        [""; 0]
    );
}

type Path = Vec<String>;

/// A name that a file imports.
struct Import {
    path: Path,
    /// The name in the importing file, `*` for a glob import.
    name: String,
    /// Whether it is re-exported.
    is_public: bool,
}

struct Module {
    file: String,
    imports: Vec<Import>,
    /// The paths in its code, of two segments or more.
    paths: Vec<Path>,
    /// The items that it defines.
    items: BTreeSet<String>,
    /// The types and functions that the code of the file names without a path.
    names: BTreeSet<String>,
}

/// The files of a crate by module path.
struct Crate {
    name: &'static str,
    modules: BTreeMap<Path, Module>,
}

impl Crate {
    fn new(folder: &str, name: &'static str, files: Vec<(String, String)>) -> Crate {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let inner = file.strip_prefix(folder).unwrap_or(&file);
            let mut path: Path = inner
                .trim_end_matches(".rs")
                .split('/')
                .map(str::to_owned)
                .collect();
            if path.contains(&"tests".to_owned()) {
                continue;
            }
            if path.last().is_some_and(|last| last == "mod") || path == ["lib"] {
                path.pop();
            }
            modules.insert(path, Module::new(file, &tokens(&text)));
        }
        Crate { name, modules }
    }

    /// The module that a path leads to, and the rest of the path. `None` for a path out of the crate.
    fn start(&self, from: &[String], path: &[String]) -> Option<(Path, Path)> {
        let mut at = from.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (Path::new(), &path[1..]),
            first if first == self.name => (at, rest) = (Path::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|s| s == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let module = self.modules.get(from)?;
                let child = [from, &[first.to_owned()]].concat();
                let is_known = self.modules.contains_key(&child)
                    || module.items.contains(first)
                    || module.imports.iter().any(|i| i.name == first);
                if !is_known {
                    return None;
                }
            }
        }
        Some((at, rest.to_vec()))
    }

    /// The module whose file defines the item at a path. `None` for an item outside the crate.
    fn resolve(
        &self,
        from: &[String],
        path: &[String],
        seen: &mut BTreeSet<(Path, Path)>,
    ) -> Option<Path> {
        if !seen.insert((from.to_vec(), path.to_vec())) {
            return None;
        }
        let (mut at, rest) = self.start(from, path)?;
        for (i, name) in rest.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let module = self.modules.get(&at)?;
            if module.items.contains(name) {
                return Some(at);
            }
            if let Some(import) = module.imports.iter().find(|i| i.name == *name) {
                return self.resolve(&at, &[&import.path[..], &rest[i + 1..]].concat(), seen);
            }
            let all = module.imports.iter().filter(|i| i.name == "*");
            let mut found = all.filter_map(|import| {
                let path = [&import.path[..], &rest[i..]].concat();
                self.resolve(&at, &path, seen)
            });
            return found.next();
        }
        self.modules.contains_key(&at).then_some(at)
    }

    /// Whether a file uses an import itself, rather than only re-exporting it.
    fn is_used(&self, at: &[String], module: &Module, import: &Import) -> bool {
        if !import.is_public {
            return true;
        }
        if import.name != "*" {
            return module.names.contains(&import.name);
        }
        let from = self.resolve(at, &import.path, &mut BTreeSet::new());
        from.is_some_and(|from| !self.modules[&from].items.is_disjoint(&module.names))
    }

    /// The files that each file depends on, and the names that it uses of each.
    fn edges(&self) -> BTreeMap<&str, BTreeMap<&str, BTreeSet<String>>> {
        let mut edges: BTreeMap<&str, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
        for (at, module) in &self.modules {
            let used = module
                .imports
                .iter()
                .filter(|i| self.is_used(at, module, i));
            let imported = used.map(|import| &import.path);
            for path in imported.chain(&module.paths) {
                let Some(to) = self.resolve(at, path, &mut BTreeSet::new()) else {
                    continue;
                };
                if to != *at {
                    let to = edges
                        .entry(&module.file)
                        .or_default()
                        .entry(&self.modules[&to].file);
                    to.or_default()
                        .insert(path.last().cloned().unwrap_or_default());
                }
            }
        }
        edges
    }
}

impl Module {
    fn new(file: String, tokens: &[String]) -> Module {
        let (mut imports, mut paths) = (Vec::new(), Vec::new());
        let (mut items, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut i = 0;
        while i < tokens.len() {
            let next = tokens.get(i + 1).map_or("", String::as_str);
            match tokens[i].as_str() {
                "use" => {
                    // `pub use` and `pub(crate) use`.
                    let is_public =
                        matches!(tokens[..i].last().map(String::as_str), Some("pub" | ")"));
                    i = tree(tokens, i + 1, &Path::new(), is_public, &mut imports);
                    continue;
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                | "mod" => {
                    items.insert(next.to_owned());
                    // A module in another file is not an item of this file.
                    i += 1;
                }
                word if is_name(word) && next == "::" => {
                    let mut path = vec![word.to_owned()];
                    while tokens.get(i + 1).is_some_and(|t| t == "::")
                        && tokens.get(i + 2).is_some_and(|t| is_name(t))
                    {
                        path.push(tokens[i + 2].clone());
                        i += 2;
                    }
                    names.insert(path[0].clone());
                    if path.len() > 1 {
                        paths.push(path);
                    }
                }
                // A lower-case name counts only if it is called, because it may be a variable.
                word if is_name(word)
                    && (next == "(" || word.starts_with(char::is_uppercase))
                    && tokens[..i].last().is_none_or(|t| t != ".") =>
                {
                    names.insert(word.to_owned());
                }
                _ => {}
            }
            i += 1;
        }
        Module {
            file,
            imports,
            paths,
            items,
            names,
        }
    }
}

/// Read one tree of a `use` declaration. Returns the index of the token after it.
fn tree(
    tokens: &[String],
    mut i: usize,
    prefix: &Path,
    is_public: bool,
    imports: &mut Vec<Import>,
) -> usize {
    let import = |path: Path, name: String| Import {
        path,
        name,
        is_public,
    };
    let mut path = prefix.clone();
    while let Some(token) = tokens.get(i) {
        i += 1;
        match token.as_str() {
            "::" => {}
            "{" => {
                while tokens.get(i).is_some_and(|t| t != "}") {
                    i = tree(tokens, i, &path, is_public, imports);
                    if tokens.get(i).is_some_and(|t| t == ",") {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "*" => {
                imports.push(import(path, "*".to_owned()));
                return i;
            }
            "as" => {
                let name = tokens.get(i).cloned().unwrap_or_default();
                imports.push(import(path, name));
                return i + 1;
            }
            "self" if !path.is_empty() => {}
            word if is_name(word) => path.push(word.to_owned()),
            // The `,`, `;` or `}` after a path.
            _ => {
                i -= 1;
                break;
            }
        }
        let goes_on = tokens
            .get(i)
            .is_some_and(|t| matches!(t.as_str(), "::" | "as"));
        if !goes_on && token != "::" {
            break;
        }
    }
    if let Some(name) = path.last().cloned() {
        imports.push(import(path, name));
    }
    i
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a file, without comments, string literals and test modules.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut found, mut i): (Vec<String>, usize) = (Vec::new(), 0);
    while i < chars.len() {
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i += 2;
            while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if let Some(hashes) = raw_text(&chars, i) {
            let end: Vec<char> = format!("\"{}", "#".repeat(hashes)).chars().collect();
            i += hashes + 2;
            while i < chars.len() && !chars[i..].starts_with(&end) {
                i += 1;
            }
            i += end.len();
        } else if c == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            found.push(chars[start..i].iter().collect());
        } else if c == ':' && at(i + 1) == ':' {
            found.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            i += 1;
        }
    }
    without_tests(found)
}

/// The number of `#` of a raw string literal that begins at `i`, if one does.
fn raw_text(chars: &[char], i: usize) -> Option<usize> {
    let is_inside = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    if is_inside || chars[i] != 'r' {
        return None;
    }
    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(i + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Remove the items after `#[cfg(test)]`, each up to its `;` or closing `}`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if !(tokens.len() - i >= mark.len() && mark.iter().zip(&tokens[i..]).all(|(m, t)| m == t)) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        i += mark.len();
        let mut depth = 0;
        while i < tokens.len() {
            match tokens[i].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && matches!(tokens[i].as_str(), ";" | "}");
            i += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

/// The shortest circle through each file that is in one, each reported once.
fn circles(all: &Crate) -> Vec<String> {
    let edges = all.edges();
    let (mut reported, mut circles) = (BTreeSet::new(), Vec::new());
    for &start in edges.keys() {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(file) = open.pop_front() {
            for &next in edges.get(file).into_iter().flat_map(|to| to.keys()) {
                if !before.contains_key(next) {
                    before.insert(next, file);
                    open.push_back(next);
                }
            }
        }
        if !before.contains_key(start) || reported.contains(start) {
            continue;
        }
        let (mut lines, mut at) = (Vec::new(), start);
        loop {
            let from = before[at];
            let names: Vec<&str> = edges[from][at].iter().map(String::as_str).collect();
            lines.push(format!("{from} -> {at} ({})", names.join(", ")));
            reported.insert(from);
            at = from;
            if at == start {
                break;
            }
        }
        lines.reverse();
        circles.push(lines.join("\n"));
    }
    circles
}
