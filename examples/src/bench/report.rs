//! The figures, for people and for programs.

use std::fmt::Write;

use super::medium::Medium;
use super::plan::Plan;
use super::stats::Lane;
use crate::human;

/// Cells of a full bar in the histogram.
const BAR: usize = 12;

/// Rows of the histogram at most; what is above goes to the last one.
const MOST_ROWS: usize = 9;

/// A bucket with less than this share of every engine's operations does not start or end the
/// histogram.
const VISIBLE: f64 = 0.001;

/// One object a line and engine.
pub fn json(plan: &Plan, lanes: &[Lane]) -> String {
    let mut text = String::new();
    for lane in lanes {
        let iops = lane.iops();
        let ns_per_op = if iops > 0.0 { 1e9 / iops } else { 0.0 };
        let [p50, p99, p999] = lane.percentiles_us();
        // Every string is a fixed word, so nothing needs escaping.
        let _ = writeln!(
            text,
            "{{\"engine\":\"{}\",\"mode\":\"{}\",\"rw\":\"{}\",\"bs\":{},\"depth\":{},\
             \"batch\":{},\"wait\":{},\"ops\":{},\"iops\":{iops:.1},\"ns_per_op\":{ns_per_op:.2},\
             \"p50_us\":{p50:.3},\"p99_us\":{p99:.3},\"p999_us\":{p999:.3},\"errors\":{}}}",
            lane.engine.name(),
            lane.engine.mode(),
            plan.work_name(),
            plan.bs,
            lane.depth,
            lane.batch,
            lane.wait,
            lane.ops(),
            lane.errors,
        );
    }
    text
}

/// A heading, a table, the ratios and a histogram.
pub fn text(plan: &Plan, medium: Option<&Medium>, lanes: &[Lane], checked: u64) -> String {
    let mut text = heading(plan, medium, lanes);
    table(&mut text, plan, lanes);
    ratios(&mut text, lanes);
    if plan.verify {
        let bad: u64 = lanes.iter().map(|lane| lane.errors).sum();
        let _ = writeln!(
            text,
            "\nverify: {} blocks checked after reading, {bad} errors",
            human::count(checked)
        );
        text.push_str(
            "        (the time to make and to check the blocks is part of the figures above)\n",
        );
    }
    histogram(&mut text, lanes);
    text
}

fn heading(plan: &Plan, medium: Option<&Medium>, lanes: &[Lane]) -> String {
    let mut text = format!("\n{}", plan.work_name());
    if let Some(medium) = medium {
        let _ = write!(
            text,
            ", {} blocks, {} of {}, {}",
            human::size(plan.bs),
            human::size(medium.size()),
            medium.name(),
            medium.way(plan)
        );
    }
    let _ = write!(text, ", depth {}, batch {}", plan.depth, plan.batch);
    if plan.wait > 1 {
        let _ = write!(text, ", waiting for {} at once", plan.wait);
    }
    if plan.registered {
        text.push_str(", registered file and buffers");
    }
    let rounds = lanes[0].rounds.len();
    let _ = match rounds {
        1 => writeln!(text, "; one round"),
        _ => writeln!(text, "; median of {rounds} rounds"),
    };
    text
}

fn table(text: &mut String, plan: &Plan, lanes: &[Lane]) {
    let _ = writeln!(
        text,
        "\n{:<8} {:<7} {:>12} {:>9} {:>10} {:>9} {:>9} {:>9} {:>7}",
        "engine", "mode", "IOPS", "MB/s", "ns/op", "p50 µs", "p99 µs", "p99.9 µs", "errors"
    );
    for lane in lanes {
        let iops = lane.iops();
        let rate =
            if plan.bs == 0 { "-".into() } else { format!("{:.0}", iops * plan.bs as f64 / 1e6) };
        let [p50, p99, p999] = lane.percentiles_us().map(human::micros);
        let _ = writeln!(
            text,
            "{:<8} {:<7} {:>12} {rate:>9} {:>10.1} {p50:>9} {p99:>9} {p999:>9} {:>7}",
            lane.engine.name(),
            lane.engine.mode(),
            human::count(iops as u64),
            1e9 / iops.max(1e-9),
            lane.errors,
        );
    }
}

fn ratios(text: &mut String, lanes: &[Lane]) {
    let Some((annulus, others)) = lanes.split_first() else { return };
    for other in others {
        let Some([median, least, most]) = annulus.ratio(other) else { continue };
        let whom = match other.engine.name() {
            "kernel" => "the kernel",
            _ => "plain pread/pwrite",
        };
        let _ = write!(
            text,
            "{}annulus is {median:.2}x {whom}",
            if other.engine.name() == "kernel" { "\n" } else { "" }
        );
        let _ = writeln!(text, " (rounds: {least:.2}x to {most:.2}x)");
    }
}

/// Upper bounds of the buckets in nanoseconds: 1, 2, 5, 10, 20, ...
fn bounds() -> impl Iterator<Item = u64> {
    (1..11).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)))
}

/// Each engine's share of operations in each bucket, trimmed to the buckets that matter.
fn shares(lanes: &[Lane]) -> Vec<(u64, Vec<f64>)> {
    let mut from = 0;
    let mut rows: Vec<(u64, Vec<f64>)> = bounds()
        .map(|to| {
            let share = |lane: &Lane| {
                let counted = lane.latencies.count_between(from, to - 1);
                counted as f64 / lane.latencies.len().max(1) as f64
            };
            let row = (to, lanes.iter().map(share).collect());
            from = to;
            row
        })
        .collect();
    let visible = |(_, shares): &(u64, Vec<f64>)| shares.iter().any(|&share| share >= VISIBLE);
    let first = rows.iter().position(visible).unwrap_or(0);
    let last = rows.iter().rposition(visible).unwrap_or(0);
    rows.truncate((last + 1).min(first + MOST_ROWS));
    rows.drain(..first);
    rows
}

fn bar(share: f64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share * (BAR * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    bar
}

fn bound(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

fn histogram(text: &mut String, lanes: &[Lane]) {
    if lanes.iter().all(|lane| lane.latencies.is_empty()) {
        return;
    }
    let _ = write!(text, "\n{:>10}", "latency");
    for lane in lanes {
        let head = format!("{} (1 in {} timed)", lane.engine.name(), lane.pace.interval());
        let _ = write!(text, "   {head:<24}");
    }
    text.truncate(text.trim_end().len());
    let rows = shares(lanes);
    let mut so_far = vec![0.0; lanes.len()];
    for (i, (to, shares)) in rows.iter().enumerate() {
        let last = i + 1 == rows.len();
        let _ = write!(
            text,
            "\n{} {:>8}",
            if last { '>' } else { '<' },
            bound(if last { rows[i.saturating_sub(1)].0 } else { *to })
        );
        for (share, so_far) in shares.iter().zip(&mut so_far) {
            // The last row has everything that is left.
            let share = if last { 1.0 - *so_far } else { *share };
            *so_far += share;
            let percent = format!("{:.1}%", share * 100.0);
            let _ = write!(text, "   {:<BAR$} {percent:>6}     ", bar(share.max(0.0)));
        }
        text.truncate(text.trim_end().len());
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_by_eighths() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0), "█".repeat(BAR));
        assert_eq!(bar(0.5), "█".repeat(BAR / 2));
        assert_eq!(bar(1.0 / 96.0), "▏");
    }

    #[test]
    fn bounds_have_units() {
        assert_eq!(bounds().take(4).collect::<Vec<_>>(), [10, 20, 50, 100]);
        assert_eq!(bound(500), "500 ns");
        assert_eq!(bound(20_000), "20 µs");
        assert_eq!(bound(5_000_000_000), "5 s");
    }
}
