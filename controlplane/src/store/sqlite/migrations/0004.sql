-- How many connections a row stands for: hosts count refusals that come again before they could send the first.
ALTER TABLE egress_decisions ADD COLUMN times INTEGER NOT NULL DEFAULT 1;
