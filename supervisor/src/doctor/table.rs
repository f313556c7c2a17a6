//! The report for people: what the sandbox is made of, what came of trying it, what else was looked at, and one sentence in the end.

use std::io::{self, Write};

use super::layers::Layer;
use super::{Report, Verdict};
use crate::canary::Outcome;
use crate::self_test::Trial;

/// Between two columns.
const GAP: &str = "  ";

/// Writes it, or the same as JSON.
pub(super) fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(report)?);
    }
    columns(&mut out, &report.layers)?;
    for trial in &report.trials {
        writeln!(out)?;
        of_trial(&mut out, trial)?;
    }
    writeln!(out)?;
    for check in report.checks.iter().filter(|check| !check.name.starts_with("sandbox: ")) {
        writeln!(out, "{}  {:<34} {}", if check.ok { "ok" } else { "--" }, check.name, check.detail)?;
        if let Some(fix) = &check.fix {
            writeln!(out, "      {fix}")?;
        }
    }
    writeln!(out)?;
    writeln!(out, "isolation: {}; verdict: {}. {}", report.isolation, report.verdict.as_str(), sentence(report))
}

fn columns(out: &mut impl Write, layers: &[Layer]) -> io::Result<()> {
    const HEAD: [&str; 4] = ["LAYER", "STATE", "EVIDENCE", "WHAT TO DO"];
    let rows = layers.iter().map(|layer| {
        [layer.name, layer.state.as_str(), &layer.evidence, layer.remedy.as_deref().unwrap_or("nothing")]
            .map(str::to_owned)
    });
    let rows: Vec<[String; 4]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let width = |index: usize| rows.iter().filter_map(|row| row.get(index)).map(String::len).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [name, state, evidence, remedy] in &rows {
        let [first, second, third] = widths;
        writeln!(out, "{name:<first$}{GAP}{state:<second$}{GAP}{evidence:<third$}{GAP}{remedy}")?;
    }
    Ok(())
}

/// A line if all is well; else each attempt that was not refused.
fn of_trial(out: &mut impl Write, trial: &Trial) -> io::Result<()> {
    writeln!(out, "self-test  {} ({} ms)", trial.summary(), trial.took_ms)?;
    for attempt in &trial.attempts {
        let word = match attempt.outcome {
            Outcome::Open => "GOT THROUGH",
            Outcome::Unclear => "no result",
            Outcome::Refused | Outcome::Absent => continue,
        };
        writeln!(out, "  {word:<11}  {}  {}", attempt.name, attempt.effect)?;
    }
    Ok(())
}

fn sentence(report: &Report) -> String {
    match report.verdict {
        Verdict::Ok => "Sessions are isolated here as they should be.".to_owned(),
        Verdict::Degraded => format!("Sessions start here, and say that they lack: {}.", report.degraded.join(", ")),
        Verdict::Refused if report.degraded.is_empty() => "No session starts here.".to_owned(),
        Verdict::Refused => format!("No session starts here; missing: {}.", report.degraded.join(", ")),
        Verdict::Broken => "The sandbox does not hold here, so no session starts.".to_owned(),
    }
}
