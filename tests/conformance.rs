//! What `docs/conformance.md` and the tables beside it say is there: each place in the code, and each test.
//!
//! A table takes part if one of its columns is called `tests`. In that column, and in one called `where`, each code span
//! is a path as Rust writes it: first the file, then what is in it. `tcp::check::Subflow::check_reset` is a method of
//! `Subflow` in `stack/core/src/tcp/check.rs`, `scripts::close::an_abort_is_a_reset` a test in
//! `stack/core/tests/scripts/close.rs`. What is elsewhere begins with the name of its [place](PLACES). A row without a
//! test says *because* of what.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of files, by the first word of a path; those of the empty word need none.
const PLACES: [(&str, &[&str]); 7] = [
    ("", &["stack/core/src", "stack/core/tests"]),
    ("frame", &["frame/src"]),
    ("sim", &["sim/src", "sim/tests"]),
    ("drivers", &["drivers/src", "drivers/tests"]),
    ("runtime", &["stack/runtime/src", "stack/runtime/tests"]),
    ("tools", &["tools/src", "tools/tests"]),
    ("kernel", &["tests"]),
];

/// Requirements of RFC 9293, by their numbers in its appendix B: kind, and the last number.
const RFC_9293: [(&str, u32); 4] = [("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1)];

/// What begins the definition of a name.
const KEYWORDS: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "macro_rules!"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

/// The page and the tables beside it.
fn pages() -> Vec<PathBuf> {
    let folder = root().join("docs/conformance");
    let mut pages: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages.insert(0, root().join("docs/conformance.md"));
    pages
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// What stands between backticks.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// One row of a table that takes part.
struct Row<'a> {
    /// Line in its file, from 1.
    line: usize,
    first: &'a str,
    code: &'a str,
    tests: &'a str,
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut header: Option<Vec<&str>> = None;
    for (number, line) in text.lines().enumerate() {
        let Some(row) = cells(line) else {
            header = None;
            continue;
        };
        let Some(names) = &header else {
            header = Some(row);
            continue;
        };
        let column = |name: &str| names.iter().position(|other| *other == name).and_then(|at| row.get(at).copied());
        let ruler = row.iter().all(|cell| cell.trim_matches([':', '-']).is_empty());
        if let Some(tests) = column("tests").filter(|_| !ruler) {
            rows.push(Row { line: number + 1, first: row[0], code: column("where").unwrap_or_default(), tests });
        }
    }
    rows
}

/// A file of the sources, and what was left of the path that led to it.
struct Found<'a> {
    file: PathBuf,
    rest: Vec<&'a str>,
}

/// The files that a path may mean, the most exact first.
fn files<'a>(path: &'a str) -> Vec<Found<'a>> {
    let words: Vec<&str> = path.split("::").collect();
    let named = PLACES.iter().find(|(name, _)| *name == words[0]);
    let (folders, words) = named.map_or((PLACES[0].1, &words[..]), |(_, folders)| (*folders, &words[1..]));
    let mut found = Vec::new();
    for len in (1..=words.len()).rev() {
        for folder in folders {
            let stem = root().join(folder).join(words[..len].join("/"));
            for file in [stem.with_extension("rs"), stem.join("mod.rs"), stem.join("main.rs")] {
                if file.is_file() {
                    found.push(Found { file, rest: words[len..].to_vec() });
                }
            }
        }
    }
    found
}

/// A line without what may stand before a definition's keyword.
fn bare(line: &str) -> &str {
    let mut line = line.trim_start();
    loop {
        let visibility = line.strip_prefix("pub(").and_then(|rest| rest.split_once(')')).map(|(_, rest)| rest);
        let next = visibility.or_else(|| {
            ["pub ", "const ", "async ", "unsafe "].iter().find_map(|word| {
                line.strip_prefix(word).filter(|rest| *word != "const " || rest.trim_start().starts_with("fn "))
            })
        });
        match next {
            Some(rest) => line = rest.trim_start(),
            None => return line,
        }
    }
}

/// Whether `text` begins with the whole word `name`.
fn begins_with(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

fn defines(line: &str, name: &str) -> bool {
    let line = bare(line);
    KEYWORDS.iter().any(|word| line.strip_prefix(word).is_some_and(|rest| begins_with(rest.trim_start(), name)))
}

/// A field, a variant, or an item.
fn has_member(line: &str, name: &str) -> bool {
    let member = bare(line).strip_prefix(name).is_some_and(|rest| rest.starts_with([':', ',', '(', ' ']));
    member || defines(line, name)
}

fn is_defined(text: &str, rest: &[&str]) -> bool {
    match *rest {
        [] => true,
        [name] => text.lines().any(|line| defines(line, name)),
        [owner, name] => {
            let of_owner = |line: &str| {
                let implements = line.trim_start().starts_with("impl")
                    && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == owner);
                implements || defines(line, owner)
            };
            text.lines().any(of_owner) && text.lines().any(|line| has_member(line, name))
        }
        _ => false,
    }
}

/// Whether the last word of `rest` is a function with a test's attribute.
fn is_test(text: &str, rest: &[&str]) -> bool {
    let (Some(name), true) = (rest.last(), rest.len() <= 2) else { return false };
    let lines: Vec<&str> = text.lines().collect();
    let found =
        (0..lines.len()).filter(|at| bare(lines[*at]).strip_prefix("fn ").is_some_and(|rest| begins_with(rest, name)));
    found.into_iter().any(|at| {
        let before = lines[..at].iter().rev().map(|line| line.trim());
        before
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

/// What is wrong with a path, if anything is.
fn problem(path: &str, holds: impl Fn(&str, &[&str]) -> bool, kind: &str) -> Option<String> {
    let files = files(path);
    let Some(first) = files.first() else { return Some(format!("no file for `{path}`")) };
    let good = files.iter().any(|found| holds(&fs::read_to_string(&found.file).unwrap(), &found.rest));
    let file = first.file.strip_prefix(root()).unwrap_or(&first.file).display();
    (!good).then(|| format!("no {kind} {} in {file} (`{path}`)", first.rest.join("::")))
}

#[test]
fn what_the_tables_name_is_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let page = page.strip_prefix(root()).unwrap().display();
        for Row { line, code, tests, .. } in rows(&text) {
            let places = spans(code).filter_map(|path| problem(path, is_defined, "item"));
            let missing = spans(tests).filter_map(|path| problem(path, is_test, "test"));
            let silent = (spans(tests).count() == 0 && !tests.contains("because") && !code.contains("because"))
                .then(|| "no test, and no word why".to_owned());
            wrong.extend(places.chain(missing).chain(silent).map(|problem| format!("{page}:{line}: {problem}")));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_numbered_requirement_has_its_row() {
    let text = fs::read_to_string(root().join("docs/conformance/rfc9293.md")).unwrap();
    let rows = rows(&text);
    let numbers: Vec<&str> = rows.iter().flat_map(|row| row.first.split(", ")).collect();
    let all: BTreeSet<String> =
        RFC_9293.iter().flat_map(|(kind, last)| (1..=*last).map(move |number| format!("{kind}-{number}"))).collect();
    let missing: Vec<&String> = all.iter().filter(|number| !numbers.contains(&number.as_str())).collect();
    let unknown: Vec<&&str> = numbers.iter().filter(|number| !all.contains(**number)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}\nunknown: {unknown:?}");
}
