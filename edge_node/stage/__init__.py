"""A stage: neighbouring pieces of a network, joined into one session, prepared once and mapped."""
