"""The loss, the optimizer, one compiled step, and the loop around it."""
