-- 0005_seed_orders.up.sql
-- Migration: Seed orders
-- Version: 0005
-- Description: Gives every active seeded user one order with two items, and pays the order
-- Impact: 4 orders, 8 items and 4 payments inserted
-- Rollback Impact: The orders of the seeded users are deleted
-- Data Loss: Further orders of the seeded users are lost on rollback

WITH placed AS (
  INSERT INTO orders (user_id, status)
  SELECT id, 'paid'
  FROM users
  WHERE email LIKE '%@example.com' AND status = 'active'
  ORDER BY id
  RETURNING id
), items AS (
  INSERT INTO order_items (order_id, position, title, quantity, unit_price)
  SELECT placed.id, item.position, item.title, item.quantity, item.unit_price
  FROM placed
  CROSS JOIN (
    VALUES
      (1, 'Notebook', 2, 4.50),
      (2, 'Fountain pen', 1, 29.00)
  ) AS item (position, title, quantity, unit_price)
  RETURNING order_id, quantity * unit_price AS amount
)
INSERT INTO payments (order_id, amount, state)
SELECT order_id, sum(amount), 'captured'
FROM items
GROUP BY order_id;
