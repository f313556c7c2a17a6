-- What egress gateways decided: one row per connection out of a session. Goes with its session.
CREATE TABLE egress_decisions (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    session_id TEXT NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    spawn INTEGER NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL, address TEXT,
    verdict TEXT NOT NULL, rule TEXT NOT NULL,
    bytes_up INTEGER NOT NULL, bytes_down INTEGER NOT NULL, duration_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX egress_decisions_by_session ON egress_decisions (session_id, id);
CREATE INDEX egress_decisions_by_verdict ON egress_decisions (session_id, verdict, id);
