//! What only the compiler can refuse: with which words it does. After a change:
//! `TRYBUILD=overwrite cargo test -p procession-macros`.

#[test]
fn types_that_cannot_be_sent_are_refused_with_the_reason() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/types.rs");
}
