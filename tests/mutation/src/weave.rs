//! Weaves the mutants of a file into it, each behind the question whether it is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, Block, Expr, ExprBinary, ExprMatch, ExprStruct, ExprUnary, Pat, ReturnType, Signature,
    Type,
};

use crate::copy;
use crate::list::{Mutant, Place};

/// What every woven crate gets: which mutant is meant, read once. If none is but `MUTANTS_REACHED`
/// names a file, then the numbers of those that are asked for are appended to it, once each.
pub const SWITCH: &str = r#"
extern crate std;
/// Which mutant is meant.
pub mod mutant {
    use std::fs::File;
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::LazyLock;
    enum Mode {
        Meant(usize),
        Original,
        Record(File),
    }
    static MODE: LazyLock<Mode> = LazyLock::new(|| {
        if let Some(id) = std::env::var("MUTANT").ok().and_then(|id| id.parse().ok()) {
            return Mode::Meant(id);
        }
        let Ok(path) = std::env::var("MUTANTS_REACHED") else { return Mode::Original };
        Mode::Record(File::options().append(true).create(true).open(path).unwrap())
    });
    static SEEN: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
    /// Whether this one is.
    pub fn on(id: usize) -> bool {
        match &*MODE {
            Mode::Meant(meant) => *meant == id,
            Mode::Original => false,
            Mode::Record(file) => {
                let (word, bit) = (&SEEN[id / 64 % 256], 1 << (id % 64));
                if word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0 {
                    let line = std::format!("{id}\n");
                    (&*file).write_all(line.as_bytes()).unwrap();
                }
                false
            }
        }
    }
}
"#;

/// The files into which mutants were woven.
#[derive(Default)]
pub struct Woven {
    files: BTreeMap<PathBuf, String>,
    ids: BTreeSet<usize>,
}

impl Woven {
    pub fn new(files: BTreeMap<PathBuf, String>, ids: BTreeSet<usize>) -> Self {
        Self { files, ids }
    }

    pub fn ids(&self) -> &BTreeSet<usize> {
        &self.ids
    }

    /// The mutant that stands at this place of a file or before it.
    pub fn mutant_at(&self, file: &Path, offset: usize) -> Option<usize> {
        const QUESTION: &str = "mutant::on(";
        let text = self.files.get(file)?.get(..offset)?;
        let digits = &text[text.rfind(QUESTION)? + QUESTION.len()..];
        digits.split(')').next()?.parse().ok()
    }
}

/// Weaves all mutants that are not `out` into the copy of their crate, which has these files.
pub fn all(
    repository: &Path,
    copy: &Path,
    files: &[String],
    mutants: &[Mutant],
    out: &BTreeSet<usize>,
) -> Result<Woven, Box<dyn Error>> {
    let mut of_files: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::new();
    of_files.extend(files.iter().map(|file| (file.as_str(), Vec::new())));
    for (id, mutant) in mutants.iter().enumerate() {
        let file = of_files.entry(&mutant.file).or_default();
        if !out.contains(&id) {
            file.push((id, mutant));
        }
    }
    let mut woven = Woven::default();
    for (file, mutants) in of_files {
        let source = fs::read_to_string(repository.join(file))?;
        let mut text = one(&source, &mutants, &mut woven.ids)?;
        if file.ends_with("/src/lib.rs") {
            text = format!("#![allow(warnings, clippy::all)]\n{text}{SWITCH}");
        }
        copy::write(&copy.join(file), text.as_bytes())?;
        woven.files.insert(PathBuf::from(file), text);
    }
    Ok(woven)
}

fn one(
    source: &str,
    mutants: &[(usize, &Mutant)],
    ids: &mut BTreeSet<usize>,
) -> Result<String, Box<dyn Error>> {
    let lines =
        std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut weaver =
        Weaver { source, lines, mutants, ids, edits: Vec::new(), count: 0, complete: false };
    weaver.visit_file(&syn::parse_file(source)?);
    let mut edits = weaver.edits;
    edits.sort_by_key(|edit| (edit.at, edit.order));
    let mut text = String::new();
    let mut done = 0;
    for edit in edits {
        text.push_str(&source[done..edit.at]);
        text.push_str(&edit.text);
        done = edit.at + edit.drop;
    }
    text.push_str(&source[done..]);
    Ok(text)
}

/// Text that goes in at an offset, where so many bytes are dropped.
struct Edit {
    at: usize,
    /// Ends come before beginnings; inner ends and outer beginnings first.
    order: i64,
    text: String,
    drop: usize,
}

struct Weaver<'a> {
    source: &'a str,
    lines: Vec<usize>,
    mutants: &'a [(usize, &'a Mutant)],
    ids: &'a mut BTreeSet<usize>,
    edits: Vec<Edit>,
    count: i64,
    /// The match that is being visited still has an answer for everything without one of its arms.
    complete: bool,
}

pub fn on(id: usize) -> String {
    format!("crate::mutant::on({id})")
}

impl Weaver<'_> {
    fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.lines[line - 1];
        let chars = self.source[start..].char_indices().nth(column);
        start + chars.map_or(self.source.len() - start, |(at, _)| at)
    }

    fn at(&self, place: LineColumn) -> usize {
        self.offset(place.line, place.column)
    }

    fn place(&self, place: Place) -> usize {
        self.offset(place.line, place.column - 1)
    }

    fn range(&self, syntax: &impl Spanned) -> Range<usize> {
        let span = syntax.span();
        self.at(span.start())..self.at(span.end())
    }

    /// The mutants of this genre that replace something within `range`: all of it, or its beginning.
    fn of(&self, genre: &str, range: &Range<usize>) -> Vec<(usize, Range<usize>, String)> {
        let fits = |mutant: &Mutant| {
            mutant.genre == genre && range.contains(&self.place(mutant.span.start))
        };
        let mutants = self.mutants.iter().filter(|(_, mutant)| fits(mutant));
        mutants
            .map(|(id, mutant)| {
                let span = self.place(mutant.span.start)..self.place(mutant.span.end);
                (*id, span, mutant.replacement.clone())
            })
            .collect()
    }

    fn insert(&mut self, at: usize, text: String) {
        // Between what ends here and what begins here.
        self.edits.push(Edit { at, order: 0, text, drop: 0 });
    }

    fn around(&mut self, range: &Range<usize>, before: String, after: String) {
        self.count += 1;
        self.edits.push(Edit { at: range.start, order: self.count, text: before, drop: 0 });
        self.edits.push(Edit { at: range.end, order: -self.count, text: after, drop: 0 });
    }

    /// Puts the mutants of an expression before it.
    fn choice(&mut self, whole: &Range<usize>, mutants: Vec<(usize, Range<usize>, String)>) {
        if mutants.is_empty() {
            return;
        }
        let mut before = String::from("(");
        for (id, span, replacement) in mutants {
            self.ids.insert(id);
            let left = &self.source[whole.start..span.start];
            let right = &self.source[span.end..whole.end];
            before += &format!("if {} {{\n{left}{replacement}{right}\n}} else ", on(id));
        }
        before += "{\n";
        self.around(whole, before, "\n})".into());
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let range = self.range(block);
        let Some(first) = block.stmts.first().map(|statement| self.range(statement).start) else {
            return;
        };
        let mutants = self.of("FnValue", &range);
        // Of all functions around it, it is the one that begins with it.
        let mutants = mutants.into_iter().filter(|(_, span, _)| span.start == first);
        let questions = self.mutants.iter().any(|(_, m)| range.contains(&self.place(m.span.start)));
        if let (Some(constant), true) = (signature.constness, questions) {
            let constant = self.range(&constant);
            self.edits.push(Edit {
                at: constant.start,
                order: 0,
                text: String::new(),
                drop: constant.len(),
            });
        }
        if let ReturnType::Type(_, returned) = &signature.output
            && matches!(**returned, Type::ImplTrait(_))
        {
            return; // Two ways out of one type, which nobody can name.
        }
        for (id, _, value) in mutants {
            self.ids.insert(id);
            self.insert(range.start + 1, format!("\nif {} {{\nreturn {value};\n}}\n", on(id)));
        }
    }
}

/// Functions that constants call: they have to stay what they are, and cannot ask.
const FOR_CONSTANTS: [&str; 1] = ["from_nanos"];

fn is_for_constants(signature: &Signature) -> bool {
    signature.constness.is_some() && FOR_CONSTANTS.iter().any(|name| signature.ident == name)
}

/// Whether there is a `let` in the chain of conditions, which must stay one.
fn has_let(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Weaver<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if is_for_constants(&item.sig) {
            return;
        }
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_for_constants(&item.sig) {
            return;
        }
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    // Constants cannot ask.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        if !has_let(&binary.left) && !has_let(&binary.right) {
            let mutants = self.of("BinaryOperator", &self.range(&binary.op));
            self.choice(&self.range(binary), mutants);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast ExprUnary) {
        let mutants = self.of("UnaryOperator", &self.range(&unary.op));
        self.choice(&self.range(unary), mutants);
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_struct(&mut self, expression: &'ast ExprStruct) {
        let fields: Vec<usize> =
            expression.fields.iter().map(|field| self.range(field).start).collect();
        let mut mutants = self.of("StructField", &self.range(expression));
        mutants.retain(|(_, span, _)| fields.contains(&span.start));
        self.choice(&self.range(expression), mutants);
        visit::visit_expr_struct(self, expression);
    }

    fn visit_expr_match(&mut self, expression: &'ast ExprMatch) {
        let takes_all = |arm: &Arm| arm.guard.is_none() && matches!(arm.pat, Pat::Wild(_));
        let outer = std::mem::replace(&mut self.complete, expression.arms.iter().any(takes_all));
        visit::visit_expr_match(self, expression);
        self.complete = outer;
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        let start = self.range(&arm.pat).start;
        let mut deleted = self.of("MatchArm", &self.range(arm));
        deleted.retain(|(_, span, _)| self.complete && span.start == start);
        let deleted: Vec<usize> = deleted.into_iter().map(|(id, ..)| id).collect();
        let stays: String = deleted.iter().map(|id| format!("!{} && ", on(*id))).collect();
        if let Some((_, guard)) = &arm.guard {
            let guard_range = self.range(&**guard);
            let mut values = self.of("MatchArmGuard", &guard_range);
            values.retain(|(_, span, _)| *span == guard_range);
            if !has_let(guard) {
                self.ids.extend(deleted.iter().chain(values.iter().map(|(id, ..)| id)));
                let value = |wanted: &str, not: &str, then: &str| -> String {
                    let of = values.iter().filter(|(_, _, value)| value == wanted);
                    of.map(|(id, ..)| format!("{not}{} {then} ", on(*id))).collect()
                };
                let (truth, falsehood) = (value("true", "", "||"), value("false", "!", "&&"));
                self.around(&guard_range, format!("{stays}({truth}{falsehood}("), "))".into());
            }
        } else if let Some(first) = deleted.first() {
            debug_assert_eq!(deleted.len(), 1, "an arm is deleted once: {first}");
            self.ids.extend(&deleted);
            let end = self.range(&arm.pat).end;
            self.insert(end, format!(" if {}", stays.trim_end_matches(" && ")));
        }
        visit::visit_arm(self, arm);
    }
}
