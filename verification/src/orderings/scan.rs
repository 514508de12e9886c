//! Finds the atomic operations and fences of a source text.

use std::collections::HashMap;

use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Pat};

/// An atomic operation, or a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// `FILE:LINE:COLUMN`, as the compiler says it of a call.
    pub place: String,
    /// The file, from the workspace's root.
    pub file: String,
    /// The function that it stands in, with its type.
    pub function: String,
    /// `load`, `fence` and so on.
    pub operation: String,
    /// Which of the function's operations of this name it is, from 0.
    pub nth: usize,
    /// The orderings that it names: one, or those of success and failure.
    pub orders: Vec<Order>,
    /// What the comment before it says of the reason, and of its partner.
    pub why: String,
    /// It is in what users build: not a test's, not loom's, not a fault's.
    pub built: bool,
}

/// An ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Relaxed,
    Acquire,
    Release,
    AcqRel,
    SeqCst,
}

impl Order {
    fn named(name: &syn::Ident) -> Option<Self> {
        Some(match name.to_string().as_str() {
            "Relaxed" => Self::Relaxed,
            "Acquire" => Self::Acquire,
            "Release" => Self::Release,
            "AcqRel" => Self::AcqRel,
            "SeqCst" => Self::SeqCst,
            _ => return None,
        })
    }

    /// Whether it has `other`'s part.
    pub fn has(self, other: Self) -> bool {
        self == other || (self == Self::AcqRel && matches!(other, Self::Acquire | Self::Release))
    }
}

const METHODS: &[&str] = &[
    "load",
    "store",
    "swap",
    "compare_exchange",
    "compare_exchange_weak",
    "fetch_add",
    "fetch_sub",
    "fetch_or",
    "fetch_and",
    "fetch_xor",
    "fetch_update",
];

const FENCES: &[&str] = &["fence", "compiler_fence"];

/// The operations in `text`, the file `file`.
///
/// # Errors
/// Why it is no Rust.
pub fn sites(file: &str, text: &str) -> Result<Vec<Site>, String> {
    let tree = syn::parse_file(text).map_err(|e| format!("{file}: {e}"))?;
    let lines = text.lines().collect();
    let mut scan = Scan {
        file,
        lines,
        path: Vec::new(),
        first: 0,
        bound: HashMap::new(),
        apart: false,
        found: Vec::new(),
    };
    scan.visit_file(&tree);
    Ok(scan.found)
}

struct Scan<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    /// The types and functions around.
    path: Vec<String>,
    /// The line that the function begins in.
    first: usize,
    /// Names that stand for orderings.
    bound: HashMap<String, Vec<Order>>,
    /// What is read is not in what users build.
    apart: bool,
    found: Vec<Site>,
}

impl Scan<'_> {
    /// The orderings that an expression can be.
    fn orders(&self, expr: &Expr) -> Option<Vec<Order>> {
        match expr {
            Expr::Path(path) => {
                let last = &path.path.segments.last()?.ident;
                let bound = || self.bound.get(&last.to_string()).cloned();
                Order::named(last).map(|order| vec![order]).or_else(bound)
            }
            // `order(FAULT, ORDER)`: weakened by a seeded fault.
            Expr::Call(call) => match &*call.func {
                Expr::Path(path) if path.path.segments.last()?.ident == "order" => {
                    self.orders(call.args.last()?)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn operation(&mut self, name: &syn::Ident, orders: Vec<Order>) {
        let at = name.span().start();
        let (operation, function) = (name.to_string(), self.path.join("::"));
        let same = |site: &&Site| site.function == function && site.operation == operation;
        self.found.push(Site {
            place: format!("{}:{}:{}", self.file, at.line, at.column + 1),
            file: self.file.into(),
            nth: self.found.iter().filter(same).count(),
            why: self.why(at.line - 1),
            built: !self.apart,
            function,
            operation,
            orders,
        });
    }

    /// The nearest comment above a line, in its function, that speaks of
    /// orderings.
    fn why(&self, line: usize) -> String {
        let mut end = line;
        while end > self.first {
            let comment = |at: usize| self.lines[at].trim_start().strip_prefix("//");
            if comment(end - 1).is_none() {
                end -= 1;
                continue;
            }
            let begin = (self.first..end).rev().take_while(|&at| comment(at).is_some()).last();
            let begin = begin.unwrap_or(end - 1);
            let words: Vec<_> = (begin..end).filter_map(comment).map(str::trim).collect();
            let text = words.join(" ");
            let speaks = ["Relaxed", "Acquire", "Release", "AcqRel", "airs with", "fence", "order"];
            if speaks.iter().any(|word| text.contains(word)) {
                return text;
            }
            end = begin;
        }
        String::new()
    }

    fn within(&mut self, name: String, go: impl FnOnce(&mut Self)) {
        self.path.push(name);
        go(self);
        self.path.pop();
    }

    /// Goes through what is in no build of users' if `apart` says so.
    fn apart_if(&mut self, apart: bool, go: impl FnOnce(&mut Self)) {
        let before = self.apart;
        self.apart |= apart;
        go(self);
        self.apart = before;
    }

    fn function(&mut self, name: &syn::Ident, block: &Block) {
        let (first, bound) = (self.first, std::mem::take(&mut self.bound));
        self.first = name.span().start().line - 1;
        self.within(name.to_string(), |scan| scan.visit_block(block));
        (self.first, self.bound) = (first, bound);
    }
}

/// Whether something is not in a build that users make.
fn elsewhere(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let Ok(list) = attribute.meta.require_list() else { return false };
        let said = list.tokens.to_string().replace(' ', "");
        matches!(said.as_str(), "test" | "loom" | "any(loom,annulus_faults)")
            || said.starts_with("all(test,")
    })
}

/// Whether it is `fault::on(FAULT)`.
fn asks_for_fault(expr: &Expr) -> bool {
    let Expr::Call(call) = expr else { return false };
    let Expr::Path(path) = &*call.func else { return false };
    let names: Vec<_> =
        path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    names == ["fault", "on"]
}

impl<'ast> Visit<'ast> for Scan<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.apart_if(elsewhere(&item.attrs), |scan| visit::visit_item_mod(scan, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            syn::Type::Reference(to) => match &*to.elem {
                syn::Type::Path(path) => {
                    path.path.segments.last().map(|last| last.ident.to_string())
                }
                _ => None,
            },
            _ => None,
        };
        self.apart_if(elsewhere(&item.attrs), |scan| {
            scan.within(name.unwrap_or_default(), |scan| visit::visit_item_impl(scan, item));
        });
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.within(item.ident.to_string(), |scan| visit::visit_item_trait(scan, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let apart = elsewhere(&item.attrs);
        self.apart_if(apart, |scan| scan.function(&item.sig.ident, &item.block));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let apart = elsewhere(&item.attrs);
        self.apart_if(apart, |scan| scan.function(&item.sig.ident, &item.block));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig.ident, block);
        }
    }

    fn visit_expr_if(&mut self, item: &'ast syn::ExprIf) {
        self.visit_expr(&item.cond);
        self.apart_if(asks_for_fault(&item.cond), |scan| scan.visit_block(&item.then_branch));
        if let Some((_, other)) = &item.else_branch {
            self.visit_expr(other);
        }
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        self.visit_expr(&item.expr);
        for arm in &item.arms {
            let yes = matches!(&arm.pat, Pat::Lit(lit) if matches!(&lit.lit, syn::Lit::Bool(yes) if yes.value));
            self.apart_if(yes && asks_for_fault(&item.expr), |scan| scan.visit_arm(arm));
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Some(init) = &local.init {
            match (&local.pat, &*init.expr) {
                (Pat::Ident(name), expr) => {
                    if let Some(orders) = self.orders(expr) {
                        self.bound.insert(name.ident.to_string(), orders);
                    }
                }
                (Pat::Tuple(names), Expr::Tuple(exprs)) => {
                    for (name, expr) in names.elems.iter().zip(&exprs.elems) {
                        if let (Pat::Ident(name), Some(orders)) = (name, self.orders(expr)) {
                            self.bound.insert(name.ident.to_string(), orders);
                        }
                    }
                }
                _ => {}
            }
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if METHODS.contains(&call.method.to_string().as_str()) {
            let orders: Vec<_> =
                call.args.iter().filter_map(|arg| self.orders(arg)).flatten().collect();
            if !orders.is_empty() {
                self.operation(&call.method, orders);
            }
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(path) = &*call.func
            && let Some(last) = path.path.segments.last()
        {
            let name = last.ident.to_string();
            if METHODS.contains(&name.as_str()) || FENCES.contains(&name.as_str()) {
                let orders: Vec<_> =
                    call.args.iter().filter_map(|arg| self.orders(arg)).flatten().collect();
                if !orders.is_empty() {
                    // A call of a path is where its first segment is.
                    let ident = &path.path.segments[0].ident;
                    let ident = syn::Ident::new(&name, ident.span());
                    self.operation(&ident, orders);
                }
            }
        }
        visit::visit_expr_call(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r"
impl Word {
    fn take(&self) -> u32 {
        // Acquire: pairs with the Release in `put`.
        let order = fault::order(Fault::Take, Ordering::Acquire);
        self.0.swap(0, order)
    }
    fn look(&self) {
        let (a, b) = (Ordering::AcqRel, Ordering::Relaxed);
        self.0
            .compare_exchange(1, 2, a, b).is_ok();
        list.swap(1, 2);
        if fault::on(Fault::Fence) {
            fence(Ordering::AcqRel);
        } else {
            fence(Ordering::SeqCst);
        }
        self.0.load(Ordering::Relaxed);
        self.0.load(Ordering::Relaxed);
    }
}
#[cfg(test)]
mod tests {
    fn not_this() { WORD.load(Ordering::Relaxed); }
}
";

    #[test]
    fn every_way_to_write_one_is_found() {
        let found = sites("a.rs", TEXT).unwrap();
        let short: Vec<_> = found
            .iter()
            .filter(|site| site.built)
            .map(|site| (site.place.as_str(), site.operation.as_str(), site.nth, &site.orders[..]))
            .collect();
        use Order::*;
        let wanted: &[(&str, &str, usize, &[Order])] = &[
            ("a.rs:6:16", "swap", 0, &[Acquire]),
            ("a.rs:11:14", "compare_exchange", 0, &[AcqRel, Relaxed]),
            ("a.rs:16:13", "fence", 1, &[SeqCst]),
            ("a.rs:18:16", "load", 0, &[Relaxed]),
            ("a.rs:19:16", "load", 1, &[Relaxed]),
        ];
        assert_eq!(short, wanted);
        assert_eq!(found[0].why, "Acquire: pairs with the Release in `put`.");
        assert_eq!(found[0].function, "Word::take");
        assert_eq!(found[1].why, "");
        let apart = found.iter().filter(|site| !site.built).map(|site| site.place.as_str());
        assert_eq!(apart.collect::<Vec<_>>(), ["a.rs:14:13", "a.rs:24:26"]);
    }
}
