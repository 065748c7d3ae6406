-- 0002_seed_users.down.sql
-- Rollback Migration: Remove the seeded users
-- Version: 0002
-- Description: Deletes the five accounts by their e-mail addresses
-- Data Loss: The five accounts

DELETE FROM users
WHERE lower(email) IN (
  'ada@example.com',
  'grace@example.com',
  'edgar@example.com',
  'emmy@example.com',
  'alan@example.com'
);
