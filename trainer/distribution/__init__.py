"""Devices as a mesh of `batch` x `model`, and processes as numbers."""
