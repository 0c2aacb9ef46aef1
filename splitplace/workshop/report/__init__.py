"""Present results: tables for a terminal, drawings of cuts, the report page and the training report."""
