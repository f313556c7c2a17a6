-- A login may be of somebody who is in no organisation yet. What was made with an API key names it, and ends with it; null: a person made it.
ALTER TABLE api_keys ADD COLUMN made_by_key TEXT REFERENCES api_keys (id);
CREATE INDEX api_keys_made_by_key ON api_keys (made_by_key) WHERE made_by_key IS NOT NULL;
ALTER TABLE login_codes ADD COLUMN made_by_key TEXT REFERENCES api_keys (id);
ALTER TABLE host_enrolments ADD COLUMN made_by_key TEXT REFERENCES api_keys (id);

CREATE TABLE browser_sessions_new (
    hash TEXT PRIMARY KEY,
    org_id TEXT REFERENCES organizations (id), -- null: of somebody who is in none
    created_by TEXT NOT NULL, created_at TEXT NOT NULL, expires_at TEXT NOT NULL,
    made_by_key TEXT REFERENCES api_keys (id)
) STRICT;
INSERT INTO browser_sessions_new (hash, org_id, created_by, created_at, expires_at)
SELECT hash, org_id, created_by, created_at, expires_at FROM browser_sessions;
CREATE TABLE login_refreshes_new (
    hash TEXT PRIMARY KEY REFERENCES browser_sessions (hash) ON DELETE CASCADE,
    org_id TEXT, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    key_id TEXT NOT NULL, ciphertext BLOB NOT NULL,
    taken_until TEXT
) STRICT;
INSERT INTO login_refreshes_new (hash, org_id, created_by, created_at, key_id, ciphertext, taken_until)
SELECT hash, org_id, created_by, created_at, key_id, ciphertext, taken_until FROM login_refreshes;
DROP TABLE login_refreshes;
DROP TABLE browser_sessions;
ALTER TABLE browser_sessions_new RENAME TO browser_sessions;
ALTER TABLE login_refreshes_new RENAME TO login_refreshes;
CREATE INDEX browser_sessions_by_user ON browser_sessions (created_by);
