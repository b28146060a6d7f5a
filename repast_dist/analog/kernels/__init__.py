"""What the hot path of a product is computed with: one implementation per kind of machine."""
