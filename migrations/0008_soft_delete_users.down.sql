-- 0008_soft_delete_users.down.sql
-- Rollback Migration: Remove the soft delete of users
-- Version: 0008
-- Description: Drops the mark and its index; nobody was really deleted
-- Data Loss: The moments of deletion
-- nexus: lock-timeout 2s

DROP INDEX IF EXISTS idx_users_live;
ALTER TABLE users DROP COLUMN IF EXISTS deleted_at;
