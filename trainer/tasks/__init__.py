"""What a command can do: train, evaluate, generate."""
