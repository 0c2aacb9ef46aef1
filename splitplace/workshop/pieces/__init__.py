"""Cut a network into pieces, write them, and check that they joined are the network."""
