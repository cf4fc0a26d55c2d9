//! How deep a text nests, before it is parsed: what the parser builds is built and dropped by recursion, and the
//! parts of a dotted key multiply with the tables around them. No caller's text may exhaust the stack.
//!
//! The lexer is the parser's own, so both see the same brackets and dots.

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Brackets open at once. `product = { p = { plan = { p = { mode = ... } } } }` opens four.
const OPEN_MAX: usize = 8;
/// Dots in one key. `product.p.plan.p.mode` has four.
const DOTS_MAX: usize = 8;

/// Where the text nests deeper than any policy file, if it does.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let (mut open, mut dots) = (0_usize, 0_usize);
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => (open, dots) = (open + 1, 0),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => open = open.saturating_sub(1),
            TokenKind::Equals | TokenKind::Comma | TokenKind::Newline => dots = 0,
            TokenKind::Dot => dots += 1,
            TokenKind::Whitespace
            | TokenKind::Comment
            | TokenKind::LiteralString
            | TokenKind::BasicString
            | TokenKind::MlLiteralString
            | TokenKind::MlBasicString
            | TokenKind::Atom
            | TokenKind::Eof => {}
        }
        if open > OPEN_MAX || dots > DOTS_MAX {
            return Some(token.span().start());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_be_written_in_any_way_that_toml_has() {
        for text in [
            "[product.p.plan.free]\nmode = \"default_in\"\n",
            "product = { p = { plan = { free = { mode = \"default_in\" } } } }",
            "product.p.plan.free.mode = \"default_in\"\nproduct . \"p\" . kind.input = \"never\"",
            "loosens = [\"a.b.c.d.e.f.g.h.i.j.k.l\", '[[[[[[[[[[', \"{{{{{{{{{{\"] # [[[[[[[[[[",
            "name = \"\"\"\n[[[[[[[[[[\n\"\"\"\nlist = '''\na.b.c.d.e.f.g.h.i.j\n'''",
        ] {
            assert_eq!(too_deep(text), None, "{text}");
        }
        let many_lines = "[product.p.plan.free]\nmode = \"nil\"\n".repeat(1000);
        assert_eq!(too_deep(&many_lines), None);
    }

    #[test]
    fn what_nests_deeper_than_any_policy_is_found() {
        assert_eq!(too_deep("x = [[[[[[[[1]]]]]]]]"), None);
        assert_eq!(too_deep("x = [[[[[[[[[1]]]]]]]]]"), Some(12));
        assert_eq!(too_deep("x = {a={a={a={a={a={a={a={a={}}}}}}}}}"), Some(28));
        assert_eq!(too_deep("[a.b.c.d.e.f.g.h.i]"), None);
        assert_eq!(too_deep("[a.b.c.d.e.f.g.h.i.j]"), Some(18));
        assert_eq!(too_deep("'a' . \"b\" . c.d.e.f.g.h.i.j = 1"), Some(25));
    }
}
