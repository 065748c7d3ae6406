-- 0007_normalize_user_addresses.up.sql
-- Migration: Normalize user addresses
-- Version: 0007
-- Description: Splits address column into separate table
-- Impact: One row per user with an address; users is locked for the few milliseconds of the drop
-- Rollback Impact: Addresses concatenated back to single column
-- Data Loss: None (data preserved in both directions)
-- nexus: lock-timeout 2s
-- nexus: statement-timeout 10min

CREATE TABLE IF NOT EXISTS addresses (
  user_id BIGINT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  street TEXT NOT NULL,
  postal_code TEXT,
  city TEXT,
  country TEXT
);

-- "STREET, POSTAL_CODE CITY, COUNTRY" is split; whatever has another form stays whole in street.
INSERT INTO addresses (user_id, street, postal_code, city, country)
SELECT users.id, COALESCE(part[1], users.address), part[2], part[3], part[4]
FROM users
LEFT JOIN LATERAL regexp_match(users.address, '^([^,]+), (\S+) ([^,]+), ([^,]+)$') AS part ON TRUE
WHERE users.address IS NOT NULL;

ALTER TABLE users DROP COLUMN address;
