-- 0001_create_users.up.sql
-- Migration: Create users table
-- Version: 0001
-- Description: Creates users, whose e-mail addresses are unique without regard to case
-- Impact: New table, no existing rows
-- Rollback Impact: Table is dropped
-- Data Loss: All users on rollback

CREATE TABLE IF NOT EXISTS users (
  id BIGSERIAL PRIMARY KEY,
  email TEXT NOT NULL,
  full_name TEXT NOT NULL,
  address TEXT,
  status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive')),
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE UNIQUE INDEX IF NOT EXISTS idx_users_email ON users (lower(email));
