-- What the organisation allowed of sandboxes when a spawn began; null: nothing was narrowed.
ALTER TABLE spawns ADD COLUMN sandbox_policy TEXT;
