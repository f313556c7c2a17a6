//! `agentapi audit`.

mod verify;

use std::io::Write as _;
use std::path::Path;

use agentapi_shared::api::{AuditEntryFields, AuditKey, AuditRecord, LIMIT_MAX, Page};
use anyhow::Context as _;

use crate::args::{AuditCommand, AuditExportArgs, AuditListArgs, GlobalArgs};
use crate::client::{Client, Query};
use crate::config::{self, Environment};
use crate::output;

/// Characters of a record's detail in a table.
const DETAIL_CHARS_MAX: usize = 80;

/// Runs a command about the audit trail.
pub(crate) async fn audit(command: &AuditCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    match command {
        AuditCommand::List(args) => list(&Client::new(config::server(global, env)?)?, args, global.json).await,
        AuditCommand::Export(args) => export(&Client::new(config::server(global, env)?)?, args).await,
        AuditCommand::Verify(args) => verify::verify(args, global.json),
        AuditCommand::Key => key(&Client::new(config::server(global, env)?)?, global.json).await,
    }
}

async fn key(client: &Client, json: bool) -> anyhow::Result<()> {
    let key: AuditKey = client.read("audit/key").await?;
    if json {
        return output::json(&key);
    }
    output::line(&key.public_key);
    Ok(())
}

async fn list(client: &Client, args: &AuditListArgs, json: bool) -> anyhow::Result<()> {
    let limit = LIMIT_MAX.min(args.limit);
    let mut query: Query<'_> = vec![("limit", limit.to_string()), ("order", args.order.as_str().to_owned())];
    let filters = [
        ("actor", &args.actor),
        ("action", &args.action),
        ("session", &args.session),
        ("host", &args.host),
        ("from", &args.from),
        ("until", &args.until),
    ];
    query.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let records = client.audit(&query, args.limit as usize).await?;
    if json {
        return output::json(&Page { data: records, next_cursor: None });
    }
    let rows: Vec<Vec<String>> = records.iter().map(row).collect::<Result<_, _>>()?;
    output::table(&["NUMBER", "TIME", "WHO", "ACTION", "SESSION", "DETAIL"], &rows);
    Ok(())
}

fn row(record: &AuditRecord) -> anyhow::Result<Vec<String>> {
    let entry: AuditEntryFields =
        serde_json::from_str(record.entry.get()).with_context(|| format!("record {}", record.number))?;
    let personal = record.personal.as_ref().and_then(|personal| {
        serde_json::from_str::<agentapi_shared::api::AuditPersonal>(personal.get())
            .ok()
            .and_then(|personal| personal.name)
    });
    let detail = if entry.detail.is_null() { String::new() } else { entry.detail.to_string() };
    Ok(vec![
        record.number.to_string(),
        entry.at,
        personal.unwrap_or_else(|| format!("{} {}", entry.actor.kind, entry.actor.id)),
        entry.action,
        entry.session_id.unwrap_or_else(|| "-".to_owned()),
        detail.chars().take(DETAIL_CHARS_MAX).collect(),
    ])
}

async fn export(client: &Client, args: &AuditExportArgs) -> anyhow::Result<()> {
    let mut answer = client.audit_export(args.after).await?;
    let Some(path) = &args.output else {
        while let Some(chunk) = client.chunk(&mut answer).await? {
            output::bytes(&chunk);
        }
        return Ok(());
    };
    // Beside and then in place: what has the name is whole.
    let beside = path.with_added_extension("part");
    let named = |path: &Path| format!("cannot write {}", path.display());
    let mut file = std::fs::File::create(&beside).with_context(|| named(&beside))?;
    while let Some(chunk) = client.chunk(&mut answer).await? {
        file.write_all(&chunk).with_context(|| named(&beside))?;
    }
    file.sync_all().with_context(|| named(&beside))?;
    std::fs::rename(&beside, path).with_context(|| named(path))
}
