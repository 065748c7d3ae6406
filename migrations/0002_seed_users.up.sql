-- 0002_seed_users.up.sql
-- Migration: Seed users
-- Version: 0002
-- Description: Adds the five accounts that every environment of the shop begins with
-- Impact: 5 rows inserted
-- Rollback Impact: The same 5 rows are deleted
-- Data Loss: Changes made to these accounts are lost on rollback

INSERT INTO users (email, full_name, address, status)
VALUES
  ('ada@example.com', 'Ada Lovelace', '12 St James''s Square, SW1Y London, United Kingdom', 'active'),
  ('grace@example.com', 'Grace Hopper', '3 Chapel Street, 10011 New York, United States', 'active'),
  ('edgar@example.com', 'Edgar Codd', 'Fleet Air Arm, Dorset', 'inactive'),
  ('emmy@example.com', 'Emmy Noether', 'Hauptstraße 23, 91054 Erlangen, Germany', 'active'),
  ('alan@example.com', 'Alan Turing', NULL, 'active')
ON CONFLICT DO NOTHING;
