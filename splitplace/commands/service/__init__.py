"""`splitplace service`: parts under systemd. The units are here."""
