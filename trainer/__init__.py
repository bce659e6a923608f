"""Fine-tunes Gemma from a configuration; see `trainer.run` for the way of the data."""
