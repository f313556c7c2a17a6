-- The audit trail: records keep the exact text that is hashed, a second table chains them, a third holds what is personal. What was written
-- before gets the text that it would have today.
ALTER TABLE audit_logs RENAME TO audit_logs_before;
CREATE TABLE audit_logs (
    n INTEGER PRIMARY KEY, -- the order in which they came: a rowid of their own may change
    id TEXT NOT NULL UNIQUE, org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    actor_kind TEXT NOT NULL, action TEXT NOT NULL, channel TEXT NOT NULL, session_id TEXT, host_id TEXT,
    entry TEXT NOT NULL
) STRICT;
INSERT INTO audit_logs (id, org_id, created_by, created_at, actor_kind, action, channel, session_id, host_id, entry)
SELECT id, org_id, created_by, created_at, actor_kind, action, channel, session_id, host_id,
       json_object('id', id, 'org_id', org_id, 'at', created_at, 'action', action, 'channel', channel,
                   'actor', json_object('kind', actor_kind, 'id', created_by, 'credential', NULL), 'session_id', session_id,
                   'host_id', host_id, 'request_id', NULL, 'detail', json(detail))
FROM audit_logs_before ORDER BY rowid;
DROP TABLE audit_logs_before;
CREATE INDEX audit_logs_by_session ON audit_logs (session_id, id);

-- hash = sha256(previous hash || seq as 8 bytes || org_id as 16 bytes || record's id as 16 bytes || sha256(entry)); the first previous is
-- 32 zero bytes.
CREATE TABLE audit_seals (
    n INTEGER PRIMARY KEY REFERENCES audit_logs (n),
    org_id TEXT NOT NULL, created_by TEXT NOT NULL DEFAULT 'sealer', created_at TEXT NOT NULL,
    seq INTEGER NOT NULL, hash TEXT NOT NULL,
    UNIQUE (org_id, seq)
) STRICT;

-- Where each chain ends.
CREATE TABLE audit_heads (
    org_id TEXT PRIMARY KEY, created_by TEXT NOT NULL DEFAULT 'sealer', seq INTEGER NOT NULL, hash TEXT NOT NULL
) STRICT;

-- Names, addresses and the like of a record's actor: erased without breaking a hash.
CREATE TABLE audit_personal (
    n INTEGER PRIMARY KEY REFERENCES audit_logs (n),
    org_id TEXT NOT NULL, created_by TEXT NOT NULL, data TEXT NOT NULL
) STRICT;
CREATE INDEX audit_personal_by_actor ON audit_personal (created_by);

CREATE TRIGGER audit_logs_kept BEFORE DELETE ON audit_logs BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER audit_logs_fixed BEFORE UPDATE ON audit_logs BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER audit_seals_kept BEFORE DELETE ON audit_seals BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER audit_seals_fixed BEFORE UPDATE ON audit_seals BEGIN SELECT RAISE(ABORT, 'append_only'); END;
