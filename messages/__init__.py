"""The contract: every topic and message type of SplitPlace. No I/O."""
