//! Weaves the patches of `../mutants` into the functions that they change, each behind the question
//! whether it is meant.
//!
//! A patch that changes anything but the bodies of functions is left out, and said why: it has to be
//! built alone.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{LineColumn, TokenStream};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, ReturnType, Signature, Type};

use crate::weave::{SWITCH, Woven, on};
use crate::{copy, run};

/// Packages whose sources may be patched.
const PACKAGES: [&str; 4] = ["raft-core", "raft-wal", "raft-grpc", "leaderboard-app"];

/// What a patch makes of functions: the file, which of its functions, the new body.
type Changes = Vec<(String, usize, String)>;

/// `patches TREE WOVEN PATCH…`: makes `WOVEN` from `TREE` with all patches in it, and says on standard
/// output which are, by number and file. `MUTANT=number` means that one.
pub fn all(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [tree, woven, patches @ ..] = arguments else {
        return Err("say where the tree is, where the woven one goes, and which patches".into());
    };
    let (tree, copy) = (Path::new(tree), Path::new(woven));
    let patches: Vec<&Path> = patches.iter().map(Path::new).collect();
    let mut changes = BTreeMap::new();
    for (number, patch) in patches.iter().enumerate() {
        match of_patch(tree, &copy.join("target"), patch) {
            Ok(of_patch) => drop(changes.insert(number + 1, of_patch)),
            Err(why) => eprintln!("{}: alone: {why}", patch.display()),
        }
    }
    let sources = sources(tree)?;
    copy_all(tree, copy, &sources)?;
    loop {
        let woven = weave(tree, copy, &sources, &changes)?;
        let wrong = run::errors(copy, &PACKAGES, &woven)?;
        for number in &wrong {
            eprintln!("{}: alone: it does not compile among others", patches[number - 1].display());
            changes.remove(number);
        }
        if wrong.is_empty() {
            break;
        }
    }
    for number in changes.keys() {
        println!("{number}\t{}", patches[number - 1].display());
    }
    Ok(())
}

/// The sources that are woven, or may be.
fn sources(tree: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut files = Vec::new();
    for package in PACKAGES {
        let prefix = format!("{package}/src");
        for file in files_below(&tree.join(&prefix))? {
            let file = file.strip_prefix(tree)?.to_str().ok_or("a name that is no text")?;
            if file.ends_with(".rs") {
                files.push(file.to_owned());
            }
        }
    }
    Ok(files)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn copy_all(tree: &Path, copy: &Path, sources: &[String]) -> Result<(), Box<dyn Error>> {
    for file in files_below(tree)? {
        let name = file.strip_prefix(tree)?;
        let woven = sources.iter().any(|source| Path::new(source) == name);
        if !woven && !name.starts_with("tests/mutation") {
            copy::write(&copy.join(name), &fs::read(&file)?)?;
        }
    }
    Ok(())
}

/// Applies a patch to a copy of the files that it concerns, and compares.
fn of_patch(tree: &Path, scratch: &Path, patch: &Path) -> Result<Changes, Box<dyn Error>> {
    let patch = patch.canonicalize()?;
    let text = fs::read_to_string(&patch)?;
    let files: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("+++ b/")).collect();
    for file in &files {
        copy::write(&scratch.join(file), &fs::read(tree.join(file))?)?;
    }
    let applied = Command::new("git")
        .arg("apply")
        .arg(&patch)
        .current_dir(scratch)
        .env("GIT_CEILING_DIRECTORIES", scratch.canonicalize()?.parent().ok_or("a root")?)
        .status()?;
    if !applied.success() {
        return Err("it does not apply".into());
    }
    let mut changes = Changes::new();
    for file in files {
        if !PACKAGES.iter().any(|package| file.starts_with(&format!("{package}/src/"))) {
            return Err(format!("{file} is not woven").into());
        }
        let before = fs::read_to_string(tree.join(file))?;
        let after = fs::read_to_string(scratch.join(file))?;
        let (old, new) = (Functions::of(&before)?, Functions::of(&after)?);
        if old.rest(&before)? != new.rest(&after)? {
            return Err(format!("{file} changes outside of functions").into());
        }
        for (index, (was, is)) in old.all.iter().zip(&new.all).enumerate() {
            let body = &after[is.body.clone()];
            if tokens(&before[was.body.clone()])? == tokens(body)? {
                continue;
            }
            if was.opaque {
                return Err(format!("a function of {file} returns a type without a name").into());
            }
            changes.push((file.to_owned(), index, body.to_owned()));
        }
    }
    if changes.is_empty() {
        return Err("it changes nothing".into());
    }
    Ok(changes)
}

fn tokens(text: &str) -> Result<String, Box<dyn Error>> {
    Ok(text.parse::<TokenStream>().map_err(|error| error.to_string())?.to_string())
}

/// Writes the sources with these patches in them.
fn weave(
    tree: &Path,
    copy: &Path,
    sources: &[String],
    changes: &BTreeMap<usize, Changes>,
) -> Result<Woven, Box<dyn Error>> {
    let mut woven = BTreeMap::new();
    for file in sources {
        let mut bodies: BTreeMap<usize, Vec<(usize, &str)>> = BTreeMap::new();
        for (number, changes) in changes {
            for (_, index, body) in changes.iter().filter(|(of, ..)| of == file) {
                bodies.entry(*index).or_default().push((*number, body));
            }
        }
        let source = fs::read_to_string(tree.join(file))?;
        let mut text = one(&source, &bodies)?;
        if file.ends_with("/src/lib.rs") {
            text = format!("#![allow(warnings, clippy::all)]\n{text}{SWITCH}");
        }
        copy::write(&copy.join(file), text.as_bytes())?;
        woven.insert(PathBuf::from(file), text);
    }
    Ok(Woven::new(woven, changes.keys().copied().collect::<BTreeSet<_>>()))
}

fn one(
    source: &str,
    bodies: &BTreeMap<usize, Vec<(usize, &str)>>,
) -> Result<String, Box<dyn Error>> {
    let functions = Functions::of(source)?;
    let mut text = String::new();
    let mut done = 0;
    for (index, bodies) in bodies {
        let Function { body, constant, .. } = &functions.all[*index];
        // It cannot ask while it is evaluated by the compiler.
        let constant = constant.clone().unwrap_or(body.start..body.start);
        text += &source[done..constant.start];
        text += &source[constant.end..body.start];
        text += "{\n";
        for (number, body) in bodies {
            text += &format!("if {} {body} else ", on(*number));
        }
        text += &source[body.clone()];
        text += "\n}";
        done = body.end;
    }
    text += &source[done..];
    Ok(text)
}

struct Function {
    body: Range<usize>,
    /// Where it says `const`.
    constant: Option<Range<usize>>,
    /// It returns `impl Trait`: two ways out of one type, which nobody can name.
    opaque: bool,
}

/// The functions of a file that stand in no other function.
struct Functions {
    lines: Vec<usize>,
    all: Vec<Function>,
}

impl Functions {
    fn of(source: &str) -> Result<Self, Box<dyn Error>> {
        let ends = source.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        let mut functions = Places { source, found: Self { lines, all: Vec::new() } };
        functions.visit_file(&syn::parse_file(source)?);
        Ok(functions.found)
    }

    /// All that is no body, but for comments.
    fn rest(&self, source: &str) -> Result<String, Box<dyn Error>> {
        let mut text = String::new();
        let mut done = 0;
        for function in &self.all {
            text += &source[done..function.body.start];
            text += "{}";
            done = function.body.end;
        }
        tokens(&(text + &source[done..]))
    }
}

struct Places<'a> {
    source: &'a str,
    found: Functions,
}

impl Places<'_> {
    fn at(&self, place: LineColumn) -> usize {
        let start = self.found.lines[place.line - 1];
        let chars = self.source[start..].char_indices().nth(place.column);
        start + chars.map_or(self.source.len() - start, |(at, _)| at)
    }

    fn range(&self, syntax: &impl Spanned) -> Range<usize> {
        let span = syntax.span();
        self.at(span.start())..self.at(span.end())
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let opaque = matches!(&signature.output, ReturnType::Type(_, returned)
            if matches!(**returned, Type::ImplTrait(_)));
        let constant = signature.constness.map(|constant| self.range(&constant));
        let body = self.range(block);
        self.found.all.push(Function { body, constant, opaque });
    }
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_signature(self, &item.sig);
    }
}
