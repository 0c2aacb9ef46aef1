"""The resource monitor knows which nodes live and how busy they are."""
