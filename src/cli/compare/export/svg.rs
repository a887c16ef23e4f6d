//! The chart as a picture: bars with whiskers, in SVG without references to other files, in light and
//! dark colours.

use super::Exporter;
use crate::cli::compare::chart::ChartBar;
use crate::cli::compare::comparison::Comparison;
use crate::cli::compare::report::ComparisonReport;

const WIDTH: f64 = 720.0;
/// Height of one bar with the space around it.
const PITCH: f64 = 34.0;
const THICK: f64 = 18.0;
const TOP: f64 = 40.0;
/// Height of the scale below the bars.
const BOTTOM: f64 = 52.0;
/// Approximate width of a character of the labels.
const CHARACTER: f64 = 7.6;

/// The style of the picture. Its class names are unique, so that the picture can be part of a page.
const STYLE: &str = "
.cmp{font:13px system-ui,sans-serif;--ink:#1f2328;--faint:#59636e;--grid:#d1d9e0;--bar:#2f6fd0;--whisker:#1f2328;--paper:#ffffff}
@media (prefers-color-scheme:dark){.cmp{--ink:#e6edf3;--faint:#9198a1;--grid:#3d444d;--bar:#4f8ff7;--whisker:#e6edf3;--paper:#0d1117}}
.cmp .paper{fill:var(--paper)}.cmp .bar{fill:var(--bar)}.cmp .grid{stroke:var(--grid)}
.cmp .whisker{stroke:var(--whisker);stroke-width:1.5;fill:none}
.cmp text{fill:var(--ink)}.cmp .faint{fill:var(--faint);font-size:12px}.cmp .title{font-weight:600;font-size:14px}
";

pub(super) struct Svg;

impl Exporter for Svg {
    fn extension(&self) -> &'static str {
        "svg"
    }

    fn export(&self, _: &Comparison, report: &ComparisonReport) -> String {
        draw(&format!("{}: mean time", report.title), &report.bars)
    }
}

/// Draws the bars, whose values are seconds.
pub(super) fn draw(title: &str, bars: &[ChartBar]) -> String {
    let longest = |text: fn(&ChartBar) -> &str| {
        bars.iter().map(|bar| text(bar).chars().count()).max().unwrap_or(0) as f64 * CHARACTER
    };
    let left = (longest(|bar| &bar.label) + 24.0).min(WIDTH / 2.0);
    let right = longest(|bar| &bar.text) + 24.0;
    let most = bars.iter().map(|bar| bar.high).fold(0.0, f64::max);
    let (step, last) = ticks(most);
    let x = |seconds: f64| left + seconds / last * (WIDTH - left - right);
    let foot = TOP + PITCH * bars.len() as f64;
    let height = foot + BOTTOM;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"cmp\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{0}\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"12\" y=\"24\">{0}</text>\n",
        escape(title)
    );
    let (unit, factor) = if last < 1.0 { ("ms", 1e3) } else { ("s", 1.0) };
    let count = (last / step).round() as usize;
    for n in 0..=count {
        let seconds = step * n as f64;
        let text = trimmed(seconds * factor);
        svg += &format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{foot}\"/>\
             <text class=\"faint\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}{u}</text>\n",
            x = x(seconds),
            y = foot + 17.0,
            u = if n == count { format!(" {unit}") } else { String::new() },
        );
    }
    for (n, bar) in bars.iter().enumerate() {
        let middle = TOP + PITCH * (n as f64 + 0.5);
        let (low, high) = (x(bar.low), x(bar.high));
        svg += &format!(
            "<g><title>{label}: {text}</title>\
             <text x=\"{label_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{label}</text>\
             <rect class=\"bar\" x=\"{left:.1}\" y=\"{bar_y:.1}\" width=\"{width:.2}\" height=\"{THICK}\" rx=\"2\"/>\
             <path class=\"whisker\" d=\"M{low:.2} {up:.1}V{down:.1}M{low:.2} {middle:.1}H{high:.2}M{high:.2} {up:.1}V{down:.1}\"/>\
             <text x=\"{value_x:.1}\" y=\"{text_y:.1}\">{text}</text></g>\n",
            label = escape(&bar.label),
            text = escape(&bar.text),
            label_x = left - 10.0,
            text_y = middle + 4.5,
            bar_y = middle - THICK / 2.0,
            width = (x(bar.value) - left).max(1.0),
            up = middle - 5.0,
            down = middle + 5.0,
            value_x = high + 8.0,
        );
    }
    svg += &format!(
        "<text class=\"faint\" x=\"12\" y=\"{:.1}\">{LEGEND}</text>\n</svg>\n",
        height - 12.0
    );
    svg
}

const LEGEND: &str = "bars: mean time; whiskers: fastest and slowest run";

/// The distance of the marks of the scale, and the last mark, which is at least `most`.
fn ticks(most: f64) -> (f64, f64) {
    if most <= 0.0 || !most.is_finite() {
        return (1.0, 1.0);
    }
    let rough = most / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
    let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(power * 10.0);
    (step, (most / step - 1e-9).ceil() * step)
}

/// A number without trailing zeros.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The text with the special characters of SVG and HTML escaped.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_round_numbers_that_cover_everything() {
        assert_eq!(ticks(49.1), (10.0, 50.0));
        assert_eq!(ticks(0.0), (1.0, 1.0));
        for most in [1e-6, 0.0123, 0.9, 1.0, 3.6, 10.0, 97.6, 86_400.0] {
            let (step, last) = ticks(most);
            assert!(last >= most && last < most + step * 1.001, "{most}: {step}, {last}");
            assert!((2.0..=6.01).contains(&(last / step)), "{most}: {step}, {last}");
        }
        assert_eq!(
            (trimmed(0.25), trimmed(10.0), trimmed(0.0)),
            ("0.25".into(), "10".into(), "0".into())
        );
    }
}
