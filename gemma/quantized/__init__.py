"""Weights in 8 or 4 bits: their grids, their arrays and how they are loaded."""
