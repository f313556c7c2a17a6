//! The platform's own audit trail: what was refused to callers whom nobody knows, and what operators did. No tenant reads it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use agentapi_shared::api::AuditEntryFields;
use clap::{Args, Subcommand};
use serde_json::json;
use serde_json::value::RawValue;

use super::{AdminError, clean, table};
use crate::audit::Checkpoints;
use crate::domain::trail;
use crate::store::Store;
use crate::store::records::{AuditFilter, AuditPosition, SealedRecord};

/// Characters of a record's detail in a table.
const DETAIL_CHARS_MAX: usize = 80;
/// Records of a page.
const PAGE: u32 = 200;

/// See [`super::AdminVerb::Audit`].
#[derive(Debug, Clone, Args)]
pub struct PlatformAudit {
    /// What else.
    #[command(subcommand)]
    pub verb: Option<PlatformAuditVerb>,
    /// Only this action, such as request.refused.
    #[arg(long)]
    pub action: Option<String>,
    /// At most so many, newest first.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is done with it.
#[derive(Debug, Clone, Subcommand)]
pub enum PlatformAuditVerb {
    /// Write it to a file that `agentapi audit verify` reads.
    Export {
        /// Only what comes after this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// Where to; standard output if absent.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Shows it.
pub(super) async fn list(store: &dyn Store, wanted: &PlatformAudit) -> Result<String, AdminError> {
    let (mut found, mut position) = (Vec::<SealedRecord>::new(), AuditPosition::default());
    loop {
        let left = wanted.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let filter =
            AuditFilter { action: wanted.action.clone(), position, limit: left.min(PAGE), ..AuditFilter::default() };
        let page = store.platform_records(filter).await.map_err(AdminError::Store)?;
        found.extend(page.records);
        match page.next {
            Some(next) if found.len() < wanted.limit as usize => position = AuditPosition::Before(next),
            _ => break,
        }
    }
    if wanted.json {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).ok();
        let records = found.iter().map(|record| {
            let SealedRecord { seal, entry, personal, .. } = record;
            json!({ "number": seal.number, "hash": seal.hash, "entry": raw(entry), "personal": personal.as_deref().and_then(raw) })
        });
        return Ok(json!({ "data": records.collect::<Vec<_>>() }).to_string());
    }
    let head = ["NUMBER", "TIME", "WHO", "ACTION", "DETAIL"].map(str::to_owned);
    let rows = std::iter::once(head.to_vec()).chain(found.iter().filter_map(row)).collect::<Vec<_>>();
    Ok(table(&rows))
}

fn row(record: &SealedRecord) -> Option<Vec<String>> {
    let entry: AuditEntryFields = serde_json::from_str(&record.entry).ok()?;
    let detail = if entry.detail.is_null() { String::new() } else { entry.detail.to_string() };
    Some(vec![
        record.seal.number.to_string(),
        entry.at,
        clean(&format!("{} {}", entry.actor.kind, entry.actor.id)),
        clean(&entry.action),
        clean(&detail).chars().take(DETAIL_CHARS_MAX).collect(),
    ])
}

/// Writes it out, signed as an export of a tenant is. Nothing is said where the trail itself goes to standard output.
pub(super) async fn export(
    store: &dyn Store,
    checkpoints: &Checkpoints,
    after: u64,
    output: Option<&Path>,
) -> Result<Option<String>, AdminError> {
    let mut export = trail::export_platform(store, after, checkpoints).await.map_err(AdminError::Trail)?;
    let Some(path) = output else {
        let named = |source| AdminError::Write { path: "standard output".into(), source };
        while let Some(lines) = export.next(store).await.map_err(AdminError::Trail)? {
            io::stdout().lock().write_all(lines.as_bytes()).map_err(named)?;
        }
        return Ok(None);
    };
    // Beside and then in place: what has the name is whole.
    let beside = path.with_added_extension("part");
    let named = |source| AdminError::Write { path: beside.clone(), source };
    let mut file = File::create(&beside).map_err(named)?;
    while let Some(lines) = export.next(store).await.map_err(AdminError::Trail)? {
        file.write_all(lines.as_bytes()).map_err(named)?;
    }
    file.sync_all().and_then(|()| std::fs::rename(&beside, path)).map_err(named)?;
    Ok(Some(format!("the platform's trail is in {}", path.display())))
}
