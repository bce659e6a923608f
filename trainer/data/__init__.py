"""Rows in, batches out: sources, order, packing and exact positions."""

from trainer.data.batches import BatchFacts, Step
from trainer.data.opening import TrainingData, open_data
from trainer.data.order import Position
from trainer.data.packing import Batch

__all__ = ["Batch", "BatchFacts", "Position", "Step", "TrainingData", "open_data"]
