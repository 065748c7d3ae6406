-- 0001_create_users.down.sql
-- Rollback Migration: Remove users table
-- Version: 0001
-- Description: Drops users and its index
-- Data Loss: All users

DROP INDEX IF EXISTS idx_users_email;
DROP TABLE IF EXISTS users;
