//! `agentapi audit verify`: one pass over the file, a line in memory at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use agentapi_shared::audit::export::LINE_BYTES_MAX;
use agentapi_shared::audit::{Checkpoint, Fault, PLATFORM, PublicKey, Report, Trust, Verifier};
use anyhow::Context as _;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::args::{AuditVerifyArgs, KeySource};
use crate::failure::{ExitKind, Failure};
use crate::output;

/// Read at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Says whether a trail is what was recorded.
pub(super) fn verify(args: &AuditVerifyArgs, json: bool) -> anyhow::Result<()> {
    let trust = trust(args)?;
    let found = if args.file == Path::new("-") {
        read(std::io::stdin().lock(), &trust)
    } else {
        let file = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
        read(file, &trust)
    };
    match found? {
        Ok(report) => say(&report, json),
        Err(bad) => {
            let Bad { fault, line } = &bad;
            if json {
                output::json(
                    &json!({ "ok": false, "first_bad": fault.number(), "line": line, "fault": fault.to_string() }),
                )?;
                return Err(Failure::silent(ExitKind::Tampered as u8).into());
            }
            let words = format!("{}: line {line}: {fault}", args.file.display());
            Err(Failure::new(ExitKind::Tampered, output::clean(&words)).into())
        }
    }
}

/// What is wrong, and where in the file it was seen.
struct Bad {
    fault: Fault,
    line: u64,
}

fn read(file: impl std::io::Read, trust: &Trust) -> anyhow::Result<Result<Report, Bad>> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let (mut text, mut line, mut verifier) = (Vec::new(), 0, None::<Verifier>);
    while next_line(&mut file, &mut text)? {
        line += 1;
        let taken = match &mut verifier {
            None => Verifier::begin(&text, trust).map(|begun| verifier = Some(begun)),
            Some(verifier) => verifier.record(&text),
        };
        if let Err(fault) = taken {
            return Ok(Err(Bad { fault, line }));
        }
    }
    let empty = || Fault::Manifest("the file is empty".to_owned());
    let finished = verifier.ok_or_else(empty).and_then(Verifier::finish);
    Ok(finished.map_err(|fault| Bad { fault, line: line + 1 }))
}

/// Reads a line without its end. One that is too long is cut, and then is no record.
fn next_line(file: &mut impl BufRead, text: &mut Vec<u8>) -> anyhow::Result<bool> {
    text.clear();
    let most = LINE_BYTES_MAX as u64 + 1;
    let length = file.by_ref().take(most).read_until(b'\n', text).context("cannot read on")?;
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok(length > 0)
}

fn trust(args: &AuditVerifyArgs) -> anyhow::Result<Trust> {
    let key = match &args.key {
        None => None,
        Some(KeySource::Key(key)) => Some(*key),
        Some(KeySource::File(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(text.parse::<PublicKey>().with_context(|| path.display().to_string())?)
        }
    };
    let Some(path) = &args.checkpoints else { return Ok(Trust { checkpoints: Vec::new(), key }) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    // A line that a crash of the server cut off says nothing; whoever removes one makes the trail vouched for less far, which is told.
    let checkpoints: Vec<Checkpoint> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    anyhow::ensure!(!checkpoints.is_empty() || lines.is_empty(), "{} has no checkpoints", path.display());
    if checkpoints.len() < lines.len() {
        output::note(&format!("{} lines of {} are no checkpoints", lines.len() - checkpoints.len(), path.display()));
    }
    Ok(Trust { checkpoints, key })
}

fn say(report: &Report, json: bool) -> anyhow::Result<()> {
    let exported_at = report.exported_at.format(&Rfc3339)?;
    let signed = report.checkpoint.map(|(number, at)| Ok::<_, time::error::Format>((number, at.format(&Rfc3339)?)));
    let checkpoint = signed.transpose()?;
    if json {
        return output::json(&json!({
            "ok": true, "org_id": report.org, "exported_at": exported_at, "signed": report.signed, "after": report.after,
            "last": report.end.number, "head": report.end.hash,
            "checkpoint": checkpoint.map(|(number, at)| json!({ "number": number, "at": at })),
            "key_is_known": report.key_is_known, "unvouched": report.unvouched(),
        }));
    }
    for line in told(report, &exported_at, checkpoint.as_ref()) {
        output::line(&line);
    }
    Ok(())
}

/// What was found, how far it is vouched for and by whom, and what is not.
fn told(report: &Report, exported_at: &str, checkpoint: Option<&(u64, String)>) -> Vec<String> {
    let (first, last) = (report.after + 1, report.end.number);
    let whose = if report.org == PLATFORM { "the platform".to_owned() } else { format!("organisation {}", report.org) };
    let mut lines = vec![if last == report.after {
        format!("no records after {} of {whose}, exported {exported_at}", report.after)
    } else {
        format!("records {first} to {last} of {whose}, exported {exported_at}: the chain is whole")
    }];
    let key = if report.key_is_known { "the given key" } else { "the key that the file names itself" };
    lines.push(if report.signed {
        format!("the file is what was handed out then, from its first record to its last: signed with {key}")
    } else {
        "the file is not signed: it may have been cut at either end, or dated anew".to_owned()
    });
    lines.push(match checkpoint {
        Some((number, at)) => {
            format!("the trail is what it was up to record {number} at {at}: a checkpoint agrees, signed with {key}")
        }
        None => "no checkpoint speaks of the trail: what was in it before the export is the database's word".to_owned(),
    });
    if checkpoint.is_some() && report.unvouched() > 0 {
        let from = last - report.unvouched() + 1;
        lines.push(format!(
            "records {from} to {last} came after it: what they were before the export is the database's word"
        ));
    }
    lines.push(format!("nothing is said of what came after record {last}, or after {exported_at}"));
    if !report.key_is_known {
        lines.push("no key was given: whoever changed the file may have signed it themselves, and then nothing of this holds; pass --key".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> (u64, Fault) {
        let Ok(Err(bad)) = read(text, &Trust::default()) else { panic!("not found") };
        (bad.line, bad.fault)
    }

    #[test]
    fn what_is_no_trail_is_told_and_never_read_whole() {
        assert!(matches!(fault(b""), (1, Fault::Manifest(_))));
        assert!(matches!(fault(b"PK\x03\x04\xff\xfe"), (1, Fault::Manifest(_))));
        let zeros = "0".repeat(64);
        let mut text = format!(
            "{{\"format\":\"agentapi-audit-1\",\"org_id\":\"00000000-0000-0000-0000-000000000001\",\"exported_at\":\"2026-01-02T03:04:05Z\",\
             \"after\":0,\"previous\":\"{zeros}\",\"last\":9,\"head\":\"{zeros}\",\"count\":9,\"public_key\":null,\"checkpoints\":[]}}\n"
        )
        .into_bytes();
        assert_eq!(fault(&text), (2, Fault::Missing { number: 1, sealed: 9 }));
        // A line without an end is cut where no record ends.
        text.resize(text.len() + 4 * LINE_BYTES_MAX, b' ');
        assert!(matches!(fault(&text), (2, Fault::Malformed { number: 1, .. })));
    }

    #[test]
    fn a_key_is_given_itself_or_by_its_file() {
        let key = "ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        assert!(matches!(key.parse(), Ok(KeySource::Key(_))));
        assert!(matches!("./audit-checkpoints.pub".parse(), Ok(KeySource::File(_))));
    }
}
