"""What `splitplace demo` is made of."""
