//! Refuses calls in which a task calls itself as if that ran it. Such a call only makes a value. Without this check the
//! compiler would only report that a type with the name of the function does not fit.
//!
//! A call is refused where a task is of no use: as an operand, before `?`, or as the value that the function returns. A
//! call that is an argument, for example of `submit`, is accepted.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    Block, Expr, ExprBinary, ExprClosure, ExprForLoop, ExprIf, ExprLet, ExprMatch, ExprMethodCall,
    ExprReturn, ExprTry, ExprUnary, Ident, Item, ItemFn, Local, Macro, Pat, PatIdent, ReturnType,
    Stmt, Type,
};

use crate::check::Refusals;

const REASON: &str = "calling a task makes a value and does not run it: put the work into a function without \
                      `#[procession::task]`, which the task calls, or submit the value to an executor";

/// Refuses the calls in this function.
pub(crate) fn check(function: &ItemFn, refusals: &mut Refusals) {
    let mut calls =
        SelfCalls { name: &function.sig.ident, found: Vec::new(), is_hidden: false, inner: 0 };
    function.sig.inputs.iter().for_each(|input| calls.visit_fn_arg(input));
    calls.visit_block(&function.block);
    let returns_tasks = match &function.sig.output {
        ReturnType::Type(_, ty) => calls.is_named_in(ty.to_token_stream()),
        ReturnType::Default => false,
    };
    if !returns_tasks {
        calls.end_of_block(&function.block);
    }
    if !calls.is_hidden {
        calls.found.into_iter().for_each(|call| refusals.add(call, REASON));
    }
}

struct SelfCalls<'f> {
    name: &'f Ident,
    found: Vec<&'f Expr>,
    /// Something else in the function has its name.
    is_hidden: bool,
    /// Number of closures and inner functions around the current expression. The task does not return what they return.
    inner: usize,
}

impl<'f> SelfCalls<'f> {
    /// Records the expression if it is a call of the task.
    fn note(&mut self, expr: &'f Expr) {
        match expr {
            Expr::Paren(inner) => self.note(&inner.expr),
            Expr::Group(inner) => self.note(&inner.expr),
            Expr::Call(call) if is_path(&call.func, self.name) => self.found.push(expr),
            _ => {}
        }
    }

    /// Records calls whose value is the value of this expression.
    fn value_of(&mut self, expr: &'f Expr) {
        match expr {
            Expr::Block(inner) => self.end_of_block(&inner.block),
            Expr::Unsafe(inner) => self.end_of_block(&inner.block),
            Expr::If(inner) => {
                self.end_of_block(&inner.then_branch);
                if let Some((_, otherwise)) = &inner.else_branch {
                    self.value_of(otherwise);
                }
            }
            Expr::Match(inner) => inner.arms.iter().for_each(|arm| self.value_of(&arm.body)),
            Expr::Call(call) if is_variant(&call.func) => {
                call.args.iter().for_each(|argument| self.value_of(argument));
            }
            expr => self.note(expr),
        }
    }

    fn end_of_block(&mut self, block: &'f Block) {
        if let Some(Stmt::Expr(expr, None)) = block.stmts.last() {
            self.value_of(expr);
        }
    }

    fn is_named_in(&self, tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == *self.name,
            TokenTree::Group(group) => self.is_named_in(group.stream()),
            _ => false,
        })
    }
}

impl<'f> Visit<'f> for SelfCalls<'f> {
    fn visit_expr_binary(&mut self, it: &'f ExprBinary) {
        self.note(&it.left);
        self.note(&it.right);
        visit::visit_expr_binary(self, it);
    }

    fn visit_expr_unary(&mut self, it: &'f ExprUnary) {
        self.note(&it.expr);
        visit::visit_expr_unary(self, it);
    }

    fn visit_expr_try(&mut self, it: &'f ExprTry) {
        self.note(&it.expr);
        visit::visit_expr_try(self, it);
    }

    fn visit_expr_method_call(&mut self, it: &'f ExprMethodCall) {
        if ["expect", "result", "unwrap"].iter().any(|method| it.method == method) {
            self.note(&it.receiver);
        }
        visit::visit_expr_method_call(self, it);
    }

    fn visit_expr_if(&mut self, it: &'f ExprIf) {
        self.note(&it.cond);
        visit::visit_expr_if(self, it);
    }

    fn visit_expr_for_loop(&mut self, it: &'f ExprForLoop) {
        self.note(&it.expr);
        visit::visit_expr_for_loop(self, it);
    }

    fn visit_expr_let(&mut self, it: &'f ExprLet) {
        if is_of_result(&it.pat) {
            self.note(&it.expr);
        }
        visit::visit_expr_let(self, it);
    }

    fn visit_expr_match(&mut self, it: &'f ExprMatch) {
        if it.arms.iter().any(|arm| is_of_result(&arm.pat)) {
            self.note(&it.expr);
        }
        visit::visit_expr_match(self, it);
    }

    fn visit_local(&mut self, it: &'f Local) {
        if let (Pat::Type(typed), Some(init)) = (&it.pat, &it.init)
            && !matches!(*typed.ty, Type::Infer(_))
            && !self.is_named_in(typed.ty.to_token_stream())
        {
            self.value_of(&init.expr);
        }
        visit::visit_local(self, it);
    }

    fn visit_expr_return(&mut self, it: &'f ExprReturn) {
        if let (0, Some(expr)) = (self.inner, &it.expr) {
            self.value_of(expr);
        }
        visit::visit_expr_return(self, it);
    }

    fn visit_expr_closure(&mut self, it: &'f ExprClosure) {
        self.inner += 1;
        visit::visit_expr_closure(self, it);
        self.inner -= 1;
    }

    fn visit_item(&mut self, it: &'f Item) {
        // An inner function may have the name of the task, and a `use` may import the name.
        self.is_hidden |= match it {
            Item::Fn(function) => function.sig.ident == *self.name,
            Item::Use(_) => true,
            item => self.is_named_in(item.to_token_stream()),
        };
        self.inner += 1;
        visit::visit_item(self, it);
        self.inner -= 1;
    }

    fn visit_macro(&mut self, it: &'f Macro) {
        // It is not known what a macro does with the name.
        self.is_hidden |= self.is_named_in(it.tokens.clone());
    }

    fn visit_pat_ident(&mut self, it: &'f PatIdent) {
        self.is_hidden |= it.ident == *self.name;
        visit::visit_pat_ident(self, it);
    }
}

fn is_path(expr: &Expr, name: &Ident) -> bool {
    matches!(expr, Expr::Path(it) if it.path.is_ident(name))
}

/// Whether it makes an `Ok` or a `Some` of its argument.
fn is_variant(expr: &Expr) -> bool {
    matches!(expr, Expr::Path(it) if ["Ok", "Some"].iter().any(|name| it.path.is_ident(name)))
}

/// Whether the pattern is for a `Result`, an `Option` or a literal.
fn is_of_result(pattern: &Pat) -> bool {
    match pattern {
        Pat::TupleStruct(it) => {
            ["Ok", "Err", "Some"].iter().any(|variant| it.path.is_ident(variant))
        }
        Pat::Lit(_) | Pat::Range(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many calls of a function `f` with this output and body are refused.
    fn refused((output, body): (&str, &str)) -> usize {
        let function = format!("fn f(n: u64) -> {output} {{ {body} }}");
        let function = syn::parse_str(&function).unwrap_or_else(|error| panic!("{error}: {body}"));
        let mut refusals = Refusals::default();
        check(&function, &mut refusals);
        refusals.into_result().err().map_or(0, |errors| errors.into_iter().count())
    }

    #[test]
    fn a_task_that_calls_itself_as_if_it_ran_is_refused() {
        for (output, body, number) in [
            ("u64", "if n < 2 { n } else { f(n - 1) + f(n - 2) }", 2),
            ("u64", "if n == 0 { 1 } else { n * f(n - 1) }", 1),
            ("u64", "match n { 0 => 0, _ => { return f(n - 1) } }", 1),
            ("u64", "if n > 0 { f(n - 1) } else { 0 }", 1),
            ("Result<u64, String>", "if n > 0 { f(n - 1)?; } Ok(f(n - 2)? + 1)", 2),
            ("Result<u64, String>", "Ok(f(n - 1))", 1),
            ("Option<u64>", "Some((f(n - 1)).unwrap())", 1),
            ("u64", "let mut sum = 0; sum += f(n - 1); sum", 1),
            ("u64", "let below: u64 = f(n - 1); below", 1),
            ("u64", "match f(n - 1) { Ok(it) => it, Err(_) => 0 }", 1),
            ("u64", "(0..n).map(|n| f(n) + 1).sum()", 1),
        ] {
            assert_eq!(refused((output, body)), number, "{body}");
        }
    }

    #[test]
    fn a_task_that_makes_values_of_its_own_kind_is_not_refused() {
        for function in [
            ("Result<u64, TaskError>", "Ok(n * pool.submit(f(n - 1)).result()?)"),
            ("u64", "pool.map((0..n).map(|n| f(n))).count() as u64"),
            ("Result<u64, Failure>", "f(n - 1).run(context)"),
            ("f", "f(n - 1)"),
            ("Option<f>", "if n == 0 { return None } Some(f(n - 1))"),
            ("u64", "let next = f(n - 1); let again: f = f(n); n"),
            ("u64", "fn f(n: u64) -> u64 { n * f(n - 1) } f(n) + 1"),
            ("u64", "let f = |n| n + 1; f(n) + 1"),
            ("u64", "use other::f; f(n) + 1"),
            ("u64", "define!(f); f(n) + 1"),
            ("u64", "other::f(n) + 1"),
            ("u64", "(0..n).map(|n| { return f(n) }).count() as u64"),
        ] {
            assert_eq!(refused(function), 0, "{function:?}");
        }
    }
}
