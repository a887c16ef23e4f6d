//! The steps of the filter. After the check of the processor they are a tree of comparisons, whose leaves are the rules
//! for ranges of call numbers. The reason: the kernel runs a new filter once for each number, to remember which calls
//! are allowed with any arguments. It needs 0.32 ms for a filter with a list of comparisons, 0.15 ms for a tree.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::{ALLOW, CallArgument, CallRule, Condition, FAIL, KILL};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// Offsets in the data of a call.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The calls of the x32 ABI have this number and higher ones.
const X32: u32 = 0x4000_0000;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const GO_ON: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on with the next step if the condition holds; else skips `otherwise` steps.
fn jump(code: u16, k: u32, otherwise: u8) -> sock_filter {
    sock_filter { code, jt: 0, jf: otherwise, k }
}

/// The filter with these rules by the number of the call. Calls with other numbers get the verdict `others`.
pub(super) fn of(verdicts: &BTreeMap<u32, CallRule>, others: u32) -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, ARCH),
        sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: ARCHITECTURE },
        step(RETURN, KILL),
        step(LOAD, NUMBER),
    ];
    program.extend(tree(&leaves(verdicts, others)));
    program
}

/// The steps for all numbers from this one to that of the next leaf.
struct Leaf {
    from: u32,
    steps: Vec<sock_filter>,
}

/// The leaves in the order of their numbers. The first begins at 0, the last at [`X32`].
fn leaves(verdicts: &BTreeMap<u32, CallRule>, others: u32) -> Vec<Leaf> {
    let mut leaves: Vec<(Leaf, Option<u32>)> = Vec::new();
    // A rule with one verdict for all arguments belongs to the leaf before it, if that leaf has the same verdict.
    let mut add = |from: u32, rule: &CallRule| {
        let always = if let CallRule::Always(verdict) = rule { Some(*verdict) } else { None };
        if always.is_none() || leaves.last().is_none_or(|(_, before)| *before != always) {
            leaves.push((Leaf { from, steps: block(rule) }, always));
        }
    };
    let mut next = 0;
    for (number, rule) in verdicts {
        if *number > next {
            add(next, &CallRule::Always(others));
        }
        add(*number, rule);
        next = number + 1;
    }
    add(next, &CallRule::Always(others));
    add(X32, &CallRule::Always(KILL));
    leaves.into_iter().map(|(leaf, _)| leaf).collect()
}

/// Compares the number with that of the middle leaf, then goes on in one half of the leaves. The steps of a leaf end
/// with a verdict, so they never run into the next leaf.
fn tree(leaves: &[Leaf]) -> Vec<sock_filter> {
    if let [leaf] = leaves {
        return leaf.steps.clone();
    }
    let (below, from) = leaves.split_at(leaves.len() / 2);
    let (first, below, from) = (from[0].from, tree(below), tree(from));
    let over = u32::try_from(below.len()).expect("a filter has few steps");
    let mut steps = match u8::try_from(over) {
        Ok(jt) => vec![sock_filter { code: IF_AT_LEAST, jt, jf: 0, k: first }],
        // A comparison can skip 255 steps at most.
        Err(_) => vec![jump(IF_AT_LEAST, first, 1), step(GO_ON, over)],
    };
    steps.extend(below);
    steps.extend(from);
    steps
}

fn block(verdict: &CallRule) -> Vec<sock_filter> {
    match verdict {
        CallRule::Always(verdict) => vec![step(RETURN, *verdict)],
        CallRule::If { all, otherwise } => {
            let mut block: Vec<_> =
                all.iter().flat_map(|condition| unless(condition, *otherwise)).collect();
            block.push(step(RETURN, ALLOW));
            block
        }
        CallRule::Unless(conditions) => {
            let mut block: Vec<_> =
                conditions.iter().flat_map(|condition| when(condition, FAIL)).collect();
            block.push(step(RETURN, ALLOW));
            block
        }
        CallRule::IfZero(arguments) => {
            let halves: Vec<u32> = arguments.iter().flat_map(halves).collect();
            let mut block = Vec::new();
            for (done, half) in halves.iter().enumerate() {
                // A jump to the last step, which refuses the call.
                let rest = 2 * (halves.len() - done) - 1;
                let rest = u8::try_from(rest).expect("a block has few steps");
                block.extend([step(LOAD, *half), jump(IF_EQUAL, 0, rest)]);
            }
            block.extend([step(RETURN, ALLOW), step(RETURN, FAIL)]);
            block
        }
    }
}

fn load(condition: &Condition) -> Vec<sock_filter> {
    vec![step(LOAD, lower_half(condition.argument)), step(AND, condition.mask)]
}

/// The verdict if the condition holds; else the next block.
fn when(condition: &Condition, verdict: u32) -> Vec<sock_filter> {
    let mut block = load(condition);
    for value in &condition.values {
        block.extend([jump(IF_EQUAL, *value, 1), step(RETURN, verdict)]);
    }
    block
}

/// The verdict if the condition does not hold; else the next block.
fn unless(condition: &Condition, verdict: u32) -> Vec<sock_filter> {
    let mut block = load(condition);
    for (left, value) in (1..=condition.values.len()).rev().zip(&condition.values) {
        let jt = u8::try_from(left).expect("a block has few steps");
        block.push(sock_filter { code: IF_EQUAL, jt, jf: 0, k: *value });
    }
    block.push(step(RETURN, verdict));
    block
}

fn halves(argument: &CallArgument) -> Vec<u32> {
    match *argument {
        CallArgument::LowerHalf(argument) => vec![lower_half(argument)],
        CallArgument::Whole(argument) => vec![lower_half(argument), lower_half(argument) + 4],
    }
}

/// The lower half comes first on all processors that have a list of calls.
fn lower_half(argument: u32) -> u32 {
    ARGUMENTS + 8 * argument
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Rules;

    /// The verdict on a call with these arguments, and the number of steps to it, as the kernel runs a filter.
    fn run(filter: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCH => arch,
            offset => {
                let (index, half) = ((offset - ARGUMENTS) / 8, (offset - ARGUMENTS) % 8);
                (arguments[index as usize] >> (8 * half)) as u32
            }
        };
        let (mut at, mut value, mut steps) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at];
            (at, steps) = (at + 1, steps + 1);
            match code {
                LOAD => value = word(k),
                AND => value &= k,
                GO_ON => at += k as usize,
                IF_EQUAL => at += usize::from(if value == k { jt } else { jf }),
                IF_AT_LEAST => at += usize::from(if value >= k { jt } else { jf }),
                RETURN => return (k, steps),
                other => panic!("an unknown step: {other}"),
            }
        }
    }

    /// The rules of several sandboxes.
    fn several() -> Vec<(BTreeMap<u32, CallRule>, u32)> {
        let mut several = Vec::new();
        for bits in 0..16_u32 {
            let has = |bit: u32| bits & (1 << bit) != 0;
            let (is_strict, network, processes) = (has(0), has(1), has(2));
            let rules = Rules { is_strict, network, processes, ..Rules::default() };
            several.push(super::super::verdicts(&rules, has(3)));
        }
        several
    }

    #[test]
    fn each_call_gets_the_verdict_of_its_own_rule_after_few_steps() {
        let mut most = 0;
        for (verdicts, others) in several() {
            let filter = of(&verdicts, others);
            for number in (0..2000).chain([X32 - 1]) {
                for argument in [0, 1, 2, 3, 5, 10, 0x5413, 0x8901, 0x6600, 0o4755, u64::MAX] {
                    let arguments = [argument; 6];
                    let expected = match verdicts.get(&number) {
                        // Each block by itself.
                        Some(rule) => run(&block(rule), ARCHITECTURE, number, arguments).0,
                        None => others,
                    };
                    let (verdict, steps) = run(&filter, ARCHITECTURE, number, arguments);
                    assert_eq!(verdict, expected, "call {number} with {argument:#x}");
                    let own = verdicts.get(&number).map_or(1, |rule| block(rule).len());
                    most = most.max(steps - own.min(steps));
                }
            }
        }
        // A list has hundreds.
        assert!(most <= 24, "{most} steps to a rule");
    }

    /// Rules of all lengths and with any gaps between their numbers, so that comparisons reach across any number of steps.
    #[test]
    fn a_tree_of_any_rules_finds_each_of_them() {
        let mut random = 7_u32;
        let mut below = |end: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % end
        };
        let mut far = 0;
        for last in [0, 1, 5, 40, X32 - 1] {
            let (mut verdicts, mut number) = (BTreeMap::new(), below(2));
            while number < last.min(120) {
                let values = (1..=below(90)).collect();
                let all = vec![Condition { argument: below(6), mask: 0xffff, values }];
                let rule = match below(3) {
                    0 => CallRule::Always([FAIL, ALLOW, KILL][below(3) as usize]),
                    1 => CallRule::If { all, otherwise: KILL },
                    _ => CallRule::Unless(all),
                };
                verdicts.insert(number, rule);
                number += 1 + below(3);
            }
            verdicts.insert(last, CallRule::Always(ALLOW));
            let filter = of(&verdicts, FAIL);
            far += filter.iter().filter(|step| step.code == GO_ON).count();
            for number in (0..=130).chain([X32 - 2, X32 - 1]) {
                for argument in [0, 1, 40, 89, 90] {
                    let expected = match verdicts.get(&number) {
                        Some(rule) => run(&block(rule), ARCHITECTURE, number, [argument; 6]).0,
                        None => FAIL,
                    };
                    let (verdict, _) = run(&filter, ARCHITECTURE, number, [argument; 6]);
                    assert_eq!(verdict, expected, "call {number} with {argument}");
                }
            }
            for number in [X32, X32 + last, u32::MAX] {
                assert_eq!(run(&filter, ARCHITECTURE, number, [0; 6]).0, KILL);
            }
        }
        assert!(far > 3, "{far} jumps beyond the reach of a comparison");
    }

    #[test]
    fn calls_of_other_kinds_of_processors_end_the_process() {
        for (verdicts, others) in several() {
            let filter = of(&verdicts, others);
            for number in [0, 1, 60, 231, 400] {
                assert_eq!(run(&filter, ARCHITECTURE, X32 + number, [0; 6]).0, KILL);
                assert_eq!(run(&filter, ARCHITECTURE ^ 1, number, [0; 6]).0, KILL);
            }
            assert_eq!(run(&filter, ARCHITECTURE, u32::MAX, [0; 6]).0, KILL);
        }
    }
}
