-- 0007_normalize_user_addresses.down.sql
-- Rollback Migration: Merge user addresses back
-- Version: 0007
-- Description: Concatenates each address to one column of users and drops the separate table
-- Impact: One update per user with an address
-- Data Loss: None (data preserved in both directions)
-- nexus: lock-timeout 2s
-- nexus: statement-timeout 10min

ALTER TABLE users ADD COLUMN IF NOT EXISTS address TEXT;

UPDATE users
SET address = concat_ws(
  ', ',
  addresses.street,
  NULLIF(concat_ws(' ', addresses.postal_code, addresses.city), ''),
  addresses.country
)
FROM addresses
WHERE addresses.user_id = users.id;

DROP TABLE IF EXISTS addresses;
