//! Random schedules of tasks on many hosts: `--schedules N` (default 100,000), `--first SEED`.

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (schedules, first) = (number("--schedules", 100_000), number("--first", 0));
    let (mut steps, mut begun, mut refused) = (0, 0, 0);
    for seed in first..first + schedules {
        let counts = std::panic::catch_unwind(|| procession_nats::simulation::run(seed));
        let Ok(counts) = counts else {
            eprintln!("schedule {seed} breaks a law: --first {seed} --schedules 1");
            std::process::exit(1);
        };
        steps += counts.steps;
        begun += counts.begun;
        refused += counts.refused;
    }
    println!("{schedules} schedules, {steps} steps, {begun} runs, {refused} late results refused");
}
