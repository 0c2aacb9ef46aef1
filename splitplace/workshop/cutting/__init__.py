"""Where a network is cut, and what each part costs."""
