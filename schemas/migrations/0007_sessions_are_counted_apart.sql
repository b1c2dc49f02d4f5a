-- A late event can join two sessions, in another minute than its own: sessions are counted from their table.
ALTER TABLE rolling_counts DROP COLUMN IF EXISTS sessions
