//! `session egress`.

use agentapi_shared::api::Page;
use agentapi_shared::egress::EgressDecision;
use time::OffsetDateTime;

use super::{Context, select};
use crate::args::EgressArgs;
use crate::output::{self, Format, age};

pub(super) async fn list(context: &Context<'_>, args: &EgressArgs) -> anyhow::Result<()> {
    let id = select::resolve(&context.client, &args.session.session).await?.id;
    let decisions = context.client.egress(id, args.verdict, args.limit as usize).await?;
    if context.format == Format::Json {
        return output::json(&Page { data: decisions, next_cursor: None });
    }
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Vec<String>> = decisions.iter().map(|decision| row(decision, now)).collect();
    output::table(&["AGE", "VERDICT", "HOST", "PORT", "RULE", "TIMES", "UP", "DOWN", "TIME"], &rows);
    Ok(())
}

fn row(decision: &EgressDecision, now: OffsetDateTime) -> Vec<String> {
    vec![
        age(now - decision.at),
        decision.verdict.as_str().to_owned(),
        if decision.host.is_empty() { "-".to_owned() } else { decision.host.clone() },
        decision.port.to_string(),
        decision.rule.clone(),
        decision.times.to_string(),
        bytes(decision.bytes_up),
        bytes(decision.bytes_down),
        format!("{} ms", decision.duration_ms),
    ]
}

/// A number of bytes as people say it.
fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        _ => format!("{} GiB", count / 1_073_741_824),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::egress::EgressVerdict;
    use agentapi_shared::{EventId, SessionId};

    #[test]
    fn a_row_says_what_was_asked_for_and_what_became_of_it() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let decision = EgressDecision {
            id: EventId::generate(),
            session: SessionId::generate(),
            spawn: 1,
            at,
            host: "evil.example".to_owned(),
            port: 443,
            address: None,
            verdict: EgressVerdict::WouldDeny,
            rule: "no_rule".to_owned(),
            bytes_up: 517,
            bytes_down: 5 * 1_048_576,
            duration_ms: 42,
            times: 1,
        };
        let cells = row(&decision, at + time::Duration::minutes(3));
        assert_eq!(cells, ["3m", "would_deny", "evil.example", "443", "no_rule", "1", "517 B", "5 MiB", "42 ms"]);
    }
}
