"""Who may do what where the broker has users. Pure: names, access rules, password hashes, tokens."""
