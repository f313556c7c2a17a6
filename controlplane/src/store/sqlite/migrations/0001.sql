-- Every table has org_id and created_by; ids are UUIDv7 made by the application; times are RFC 3339 in UTC.
CREATE TABLE organizations (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    name TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    name TEXT NOT NULL, role TEXT NOT NULL
) STRICT;

CREATE TABLE hosts (
    id TEXT PRIMARY KEY,
    org_id TEXT REFERENCES organizations (id), -- null: shared by all
    created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    version TEXT, facts TEXT, last_seen_at TEXT,
    outbox_seq INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE user_sessions (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    name TEXT, labels TEXT NOT NULL, agent TEXT NOT NULL,
    command TEXT NOT NULL, args TEXT NOT NULL, -- as asked for
    run_command TEXT,                          -- as the host ran it
    cols INTEGER NOT NULL, rows INTEGER NOT NULL, workspace TEXT NOT NULL,
    host_id TEXT REFERENCES hosts (id),
    desired TEXT NOT NULL, generation INTEGER NOT NULL, stop_grace_ms INTEGER NOT NULL, stop_force INTEGER NOT NULL,
    purging INTEGER NOT NULL DEFAULT 0,
    restarting INTEGER NOT NULL DEFAULT 0, -- a new spawn is wanted as soon as the living one ended
    revision INTEGER NOT NULL, -- grows with each change, so that a late event is known to be late
    state TEXT NOT NULL -- of the newest spawn, for filters
) STRICT;
CREATE INDEX user_sessions_by_org ON user_sessions (org_id, id);
CREATE INDEX user_sessions_by_host ON user_sessions (host_id, state);

CREATE TABLE spawns (
    session_id TEXT NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    state TEXT NOT NULL,
    accepted INTEGER NOT NULL DEFAULT 0, -- a host said that it has it
    has_env INTEGER NOT NULL DEFAULT 0,  -- its environment came with the request and lives in memory until accepted
    report_generation INTEGER NOT NULL DEFAULT 0, report_seq INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT, started_at TEXT, ended_at TEXT, exit TEXT,
    PRIMARY KEY (session_id, number)
) STRICT;

CREATE TABLE audit_logs (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    actor_kind TEXT NOT NULL, action TEXT NOT NULL, channel TEXT NOT NULL, session_id TEXT, host_id TEXT, detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_logs_by_session ON audit_logs (session_id, id);

-- Secrets are kept as SHA-256 only.
CREATE TABLE api_tokens (
    hash TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    kind TEXT NOT NULL, user_id TEXT REFERENCES users (id), host_id TEXT REFERENCES hosts (id)
) STRICT;

CREATE TABLE browser_sessions (
    hash TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;

CREATE TABLE login_codes (
    hash TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;

CREATE TABLE idempotency_keys (
    org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    route TEXT NOT NULL, key TEXT NOT NULL,
    request_hash TEXT NOT NULL, status INTEGER, body TEXT, -- no status: the first request is still at work, or its outcome was lost
    PRIMARY KEY (org_id, created_by, route, key)
) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- One organisation, one person and one host from the start; their ids are constants of the program.
INSERT INTO organizations (id, org_id, created_by, created_at, name)
VALUES ('00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), 'default');
INSERT INTO users (id, org_id, created_by, created_at, name, role)
VALUES ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), 'admin', 'owner');
INSERT INTO hosts (id, org_id, created_by, created_at)
VALUES ('00000000-0000-7000-8000-000000000003', NULL, '00000000-0000-7000-8000-000000000002', strftime('%Y-%m-%dT%H:%M:%SZ', 'now'));
