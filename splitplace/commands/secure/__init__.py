"""The command `secure`: users, certificates and access rules of a broker."""
