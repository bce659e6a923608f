"""What a run needs to go on: arrays and position, kept with Orbax, proven on return."""

from trainer.checkpoint.digest import compile_ahead, digests
from trainer.checkpoint.on_request import SaveRequest
from trainer.checkpoint.store import Store

__all__ = ["SaveRequest", "Store", "compile_ahead", "digests"]
