"""How long to train, and how a step is computed: the keys of `trainer.*`.

Turns names into typed values, like `trainer.config.schema`, of which it is a part. It
refuses to know models and devices.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class TrainerConfig:
    """How long to train, in which portions, and what to show."""

    num_train_steps: int = 250
    """Optimizer steps in the whole run."""
    global_batch_size: int = 16
    """Sequences per optimizer step, all processes together."""
    microbatch_size: int | None = None
    """Sequences per forward pass, all processes; null means the global batch."""
    eval_every_steps: int = 125
    """Steps between evaluations; the first precedes training. 0: never."""
    log_every_steps: int = 1
    """Steps between lines of `metrics.jsonl`."""
    remat: str = "auto"
    """What the backward pass computes again. `none`; `block`, all of a scan step from
    its input, on TPUs each of Gemma 3's layers; `attention`, all but products with
    weights; `auto`, `attention` where the estimate of it leaves room on a device, else
    `block`; `offload`, as block, with the inputs in the host's memory; or one of two
    policies of JAX's, `dots_saveable` and `dots_with_no_batch_dims_saveable`."""
    attention: str = "auto"
    """`auto` takes what suits the devices: `splash` on TPU, `cudnn` on GPU where it can
    express the model, else `blocked`. `reference` keeps all scores at once."""
    loss_chunk_tokens: int = 1024
    """Positions that the loss takes at a time, in each part of the `batch` axis."""
    z_loss: float = 0.0
    """Coefficient of the squared logarithm of the softmax's sum, which is minimised
    beside the cross-entropy; `train/loss` and evaluation leave it out."""
    label_smoothing: float = 0.0
    """Share of the target that training spreads evenly over the vocabulary;
    `train/loss` and evaluation leave it out."""
    max_skipped_steps: int = 10
    """Steps in a row whose loss or gradient is not finite, or a spike, at which a run
    ends with exit code 8. None of them changes anything; their rows are recorded."""
    skip_spikes: float | None = None
    """Skip a step, too, whose loss or gradient norm is so many standard deviations
    above the mean of the last 128 updates, such as 6; null never does."""
    rewind: bool = False
    """At `max_skipped_steps` go back to the last checkpoint that was due, and go on
    after the skipped rows; a second time from the same one ends the run."""
    sample_prompts: int = 3
    """Held-out prompts that are answered before and after training."""
    profile: str | None = None
    """Steps to record, such as `10-15`: a trace and a memory profile of them in
    `profile/` of the run's directory. null records nothing."""
    compilation_cache: str = "auto"
    """Where compiled programs are kept for the next start: `auto` is below
    JAX_COMPILATION_CACHE_DIR or the user's cache directory; `none`; or a directory."""

    @property
    def forward_size(self) -> int:
        """Sequences per forward pass, with the null of `microbatch_size` resolved."""
        return self.microbatch_size or self.global_batch_size
