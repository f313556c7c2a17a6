-- Who of an organisation sees a session beside whoever made it. Pages: of one person, and of what is shared.
ALTER TABLE user_sessions ADD COLUMN visibility TEXT NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'organization'));
CREATE INDEX user_sessions_by_maker ON user_sessions (org_id, created_by, id);
CREATE INDEX user_sessions_shared ON user_sessions (org_id, id) WHERE visibility = 'organization';
