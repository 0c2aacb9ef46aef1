"""The command `asyncapi`: the contract as documents."""
