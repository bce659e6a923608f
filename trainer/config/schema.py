"""What a run can be told: every key with its type, meaning and unit.

Turns names on a command line into typed objects. It refuses to know Keras, JAX and
Hydra; `trainer.config.checks` says which combinations make sense.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.config.distributed_schema import DistributedConfig
from trainer.config.launch_schema import LaunchConfig
from trainer.config.plan_schema import PlanConfig
from trainer.config.trainer_schema import TrainerConfig


@dataclass(kw_only=True)
class PresetConfig:
    """Which model to start from."""

    name: str = "gemma2_tiny_en"
    """Built-in name, `kaggle://` or `hf://` handle, or a directory in KerasHub's or
    Hugging Face's form."""
    dtype: str | None = None
    """Of frozen weights and computation: `float32` or `bfloat16`; null takes bfloat16
    on accelerators and float32 on a CPU, which gains nothing from bfloat16."""
    quantize: str = "none"
    """Keep the base under adapters in `int8` or `int4`, made while it is loaded;
    `none` keeps it in `dtype`."""
    load_weights: bool = True
    """False draws random weights, for training from nothing."""


@dataclass(kw_only=True)
class MeshConfig:
    """How devices are arranged: `batch` x `model`."""

    shape: str = "auto"
    """`auto`, or batch x model such as `1x8`."""
    slices: int | None = None
    """Slices over which `batch` runs, `model` staying inside; null asks the devices."""


@dataclass(kw_only=True)
class DeviceConfig:
    """Which devices to use."""

    simulated: int = 0
    """Number of devices to simulate on the CPU; 0 uses the real ones."""


@dataclass(kw_only=True)
class ColumnsConfig:
    """Names of the fields in the rows."""

    prompt: str = "prompt"
    """Field with the user's text."""
    response: str = "response"
    """Field with the answer that is learned."""
    messages: str = "messages"
    """Field with a list of {role, content}, role `user` or `model`."""
    text: str = "text"
    """Field with plain text, learned whole."""


@dataclass(kw_only=True)
class DataConfig:
    """Which rows to train and evaluate on, and how they become sequences."""

    source: str = "wordnet"
    """Kind of source: `wordnet` (embedded), `jsonl` or `tfds`."""
    path: str | None = None
    """File or glob of JSONL rows to train on (`jsonl`)."""
    eval_path: str | None = None
    """File or glob of held-out JSONL rows (`jsonl`); null evaluates nothing."""
    name: str | None = None
    """TFDS data set, `name` or `name/config:version` (`tfds`)."""
    data_dir: str | None = None
    """Directory that holds prepared TFDS data sets (`tfds`)."""
    split: str = "train"
    """TFDS split to train on, slices such as `train[:10%]` included."""
    eval_split: str | None = None
    """TFDS split to evaluate on; null evaluates nothing."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Names of the fields in the rows."""
    sequence_length: int = 128
    """Tokens in a sequence; longer rows follow `on_long_row`."""
    pack: bool = True
    """Put several rows into a sequence, isolated from each other. false pads each batch
    to the least of a few lengths; the step is compiled for those before the first."""
    pack_window_rows: int = 1024
    """Rows among which packs are formed; larger fills better and buffers more."""
    shuffle: bool = True
    """Draw rows in a new order every epoch; false keeps the order of the source."""
    eval_rows: int | None = None
    """Evaluate on the first so many rows; null means all."""
    on_bad_row: str = "raise"
    """`raise` or `skip` rows that cannot be read; both name file and line."""
    on_long_row: str = "truncate"
    """Rows longer than `sequence_length`: `truncate`, `skip` or `raise`."""


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters; rank 0 trains every weight instead."""

    rank: int = 8
    """Inner dimension of an adapter; 0 means full fine-tuning."""
    alpha: float | None = None
    """Adapters are scaled by alpha / rank; null means alpha = rank."""
    targets: list[str] = field(default_factory=lambda: ["query", "value"])
    """Patterns (fnmatch) of projection names that get adapters."""
    factorisation: str = "keras"
    """`keras`: Keras's factors; `shared`: one A for all heads, as PEFT has it."""
    dropout: float = 0.0
    """Probability of dropping an input of an adapter while training."""
    train_embedding: bool = False
    """Train the embedding beside the adapters, in float32: for new words or languages.
    No file of adapters can hold it: `artifacts/preset` has both, and no other file."""
    path: str | None = None
    """Adapter to start from or to use: a `.lora.h5` file, or a directory of PEFT's."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: str = "adamw"
    """`adamw`, `adafactor`, `lion`, `muon` or `sgd`, each as Keras has it."""
    learning_rate: float = 3e-3
    """Peak of the schedule; Adafactor takes it relative to a tensor's own size."""
    weight_decay: float = 0.0
    """Decoupled decay per step, relative to the learning rate."""
    beta_1: float = 0.9
    """Decay of the first moment (AdamW, Lion), momentum (SGD); of Muon it concerns
    the tensors that AdamW updates."""
    beta_2: float = 0.999
    """Decay of the second moment (AdamW), of the momentum (Lion)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment (AdamW)."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm; null never clips."""
    decay_embeddings: bool = False
    """Apply weight decay to the embedding too; norms are never decayed."""
    ema_decay: float | None = None
    """Keep a moving average of the trained weights with this decay per step; it is
    what is evaluated and written. null: the weights themselves."""


@dataclass(kw_only=True)
class ScheduleConfig:
    """How the learning rate moves over the run."""

    name: str = "constant"
    """`constant`, `linear`, `cosine` or `wsd` (stable, then a linear decay), after the
    warm-up."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises linearly from zero."""
    decay_fraction: float = 0.2
    """Last part of the run's steps in which `wsd` decays."""
    final_fraction: float = 0.0
    """Learning rate at the last step as a fraction of the peak."""


@dataclass(kw_only=True)
class CheckpointConfig:
    """What is kept so that a run can go on."""

    every_steps: int = 50
    """Steps between checkpoints; the last step is always kept."""
    keep_last: int = 3
    """Number of newest checkpoints that stay."""
    on_corrupt: str = "stop"
    """`stop` names what is damaged in a checkpoint and ends, `previous` goes on from
    the newest whole one and puts the damaged one aside."""


@dataclass(kw_only=True)
class TrackerConfig:
    """Where metrics go beside `metrics.jsonl`."""

    name: str = "jsonl"
    """`jsonl`, or `wandb` beside it."""
    project: str = "gemma-finetuning"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null means the key's owner."""
    group: str | None = None
    """W&B group of runs, such as a sweep."""
    mode: str = "auto"
    """W&B mode: `auto` (online with a key, else offline), `online`, `offline`."""
    upload: list[str] = field(default_factory=lambda: ["lora"])
    """Artifacts to upload: `lora`, `preset`."""


@dataclass(kw_only=True)
class ArtifactsConfig:
    """What a finished run leaves behind."""

    preset: bool = True
    """Write the full preset, adapter merged."""
    dtype: str | None = None
    """Of the full preset's weights; null keeps the dtype of computation."""
    source: str = "last"
    """Step whose weights are written or read: `last` or `best`."""


@dataclass(kw_only=True)
class GenerateConfig:
    """Settings of `task=generate` and of the samples of a run."""

    prompt: str | None = None
    """User's turn to answer; null answers held-out prompts."""
    max_new_tokens: int = 32
    """Tokens to generate at most."""
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn."""
    top_k: int | None = None
    """Draw among this many of the likeliest tokens; null among all."""
    top_p: float = 1.0
    """Draw among the fewest tokens whose probabilities reach this together."""
    min_p: float = 0.0
    """Draw among tokens this many times as probable as the likeliest, or more."""
    seed: int | None = None
    """Of the draws; null takes `seed`."""
    chat: bool = True
    """Wrap the prompt in Gemma's turns; false continues it as plain text."""


@dataclass(kw_only=True)
class ExportConfig:
    """Settings of `task=export`."""

    format: str = "preset"
    """`preset` (KerasHub's directory) or `hf` (transformers'), both with the adapter
    merged, or `peft` (the adapter alone)."""
    path: str | None = None
    """New or empty directory; null takes `artifacts/FORMAT` of the run."""


@dataclass(kw_only=True)
class RunIdentity:
    """Name and place of a run's directory."""

    name: str | None = None
    """Directory below `root`; null derives `<preset>-<data>-<hash>`."""
    root: str = "outputs"
    """Directory of runs: local, network-mounted or `gs://`."""


@dataclass(kw_only=True)
class RunConfig:
    """Everything that a run is a function of."""

    preset: PresetConfig = field(default_factory=PresetConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    artifacts: ArtifactsConfig = field(default_factory=ArtifactsConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    run: RunIdentity = field(default_factory=RunIdentity)
    task: str = "train"
    """`train`, `evaluate`, `generate`, `export` or `plan`."""
    resume: str = "auto"
    """`auto` goes on where a checkpoint is, `never` starts in a new directory only,
    `must` fails without one."""
    seed: int = 0
    """Of weights, order of rows and randomness."""
    debug: bool = False
    """Show tracebacks."""
