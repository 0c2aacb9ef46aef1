"""`splitplace submit` and what it consists of."""
