//! docs/unsafe.md: where the `unsafe` code of the libraries is, counted.

use std::fmt::Write as _;

use syn::visit::{self, Visit};

/// The sources of what users build.
const SOURCES: &[&str] = &["core/src", "hal-linux/src", "hal-baremetal/src"];

/// What there is in a file.
#[derive(Default)]
struct Count {
    blocks: u32,
    functions: u32,
    /// Of traits, and of their implementations.
    claims: u32,
}

impl<'ast> Visit<'ast> for Count {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let test = |attribute: &syn::Attribute| {
            let list = attribute.meta.require_list();
            list.is_ok_and(|list| list.path.is_ident("cfg") && list.tokens.to_string() == "test")
        };
        if !item.attrs.iter().any(test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.blocks += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.functions += u32::from(signature.unsafety.is_some());
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.claims += u32::from(item.unsafety.is_some());
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.claims += u32::from(item.unsafety.is_some());
        visit::visit_item_trait(self, item);
    }
}

/// The first sentence of a file's own words.
fn about(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let words = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let end = words.find(". ").or(words.find(": ")).unwrap_or(words.len());
    words[..end].trim_end_matches(['.', ':']).to_owned()
}

fn page(files: &[(String, String)]) -> String {
    let mut text = String::from(
        "# Where the unsafe code is\n\n\
         Each `unsafe` block of the three libraries has its reason before it (`clippy::undocumented_unsafe_blocks`), each\n\
         unsafe function and trait says what its caller or implementor promises, and an operation inside an unsafe function\n\
         needs a block of its own (`unsafe_op_in_unsafe_fn`). This page counts them, file by file, and is checked: whoever adds\n\
         one has to say so here. `ANNULUS_BLESS=1 cargo test -p annulus-verification unsafe` writes it. Files that are not listed have none.\n\n\
         | file | blocks | functions | traits and impls | what it is |\n|---|---:|---:|---:|---|\n",
    );
    let mut sum = Count::default();
    for (name, source) in files {
        let mut count = Count::default();
        count.visit_file(&syn::parse_file(source).expect("the sources are Rust"));
        let Count { blocks, functions, claims } = count;
        if blocks + functions + claims > 0 {
            let about = about(source);
            let row = format!("| `{name}` | {blocks} | {functions} | {claims} | {about} |");
            let _ = writeln!(text, "{row}");
        }
        sum.blocks += blocks;
        sum.functions += functions;
        sum.claims += claims;
    }
    let Count { blocks, functions, claims } = sum;
    let _ = writeln!(text, "| **all** | {blocks} | {functions} | {claims} | |");
    text
}

#[test]
fn the_page_of_unsafe_code_is_the_code() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = crate::sources::all(&root, SOURCES).expect("the sources can be read");
    crate::pages::check("unsafe", &page(&files));
}

#[test]
fn unsafe_code_is_counted_and_tests_are_not() {
    let source = "//! A thing: of some\n//! kind.\n\nunsafe impl Sync for A {}\n\
        impl A { unsafe fn f() { unsafe { g() } } }\n\
        #[cfg(test)] mod tests { fn h() { unsafe { g() } } }";
    let page = page(&[("a.rs".into(), source.into())]);
    assert!(page.contains("| `a.rs` | 1 | 1 | 1 | A thing |"), "{page}");
}
