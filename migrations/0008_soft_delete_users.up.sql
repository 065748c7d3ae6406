-- 0008_soft_delete_users.up.sql
-- Migration: Soft delete users
-- Version: 0008
-- Description: Marks users as deleted instead of deleting them, inactive ones at once
-- Impact: New column; inactive users are marked (1 of the seeded ones)
-- Rollback Impact: Column is dropped, the status of every user is as before
-- Data Loss: The moments of deletion on rollback
-- nexus: lock-timeout 2s

ALTER TABLE users ADD COLUMN IF NOT EXISTS deleted_at TIMESTAMPTZ;

UPDATE users SET deleted_at = NOW() WHERE status = 'inactive';

CREATE INDEX IF NOT EXISTS idx_users_live ON users (id) WHERE deleted_at IS NULL;
