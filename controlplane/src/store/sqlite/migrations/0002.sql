-- How a session is to be isolated, and how each of its spawns is; both JSON.
ALTER TABLE user_sessions ADD COLUMN sandbox TEXT NOT NULL DEFAULT '{}';
ALTER TABLE spawns ADD COLUMN posture TEXT;
