-- 0005_seed_orders.down.sql
-- Rollback Migration: Remove the seeded orders
-- Version: 0005
-- Description: Deletes the payments and orders of the seeded users
-- Data Loss: All orders of the seeded users

DELETE FROM payments
USING orders, users
WHERE payments.order_id = orders.id
  AND orders.user_id = users.id
  AND users.email LIKE '%@example.com';

DELETE FROM orders
USING users
WHERE orders.user_id = users.id
  AND users.email LIKE '%@example.com';
