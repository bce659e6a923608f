"""TRL's `SFTTrainer` with peft on rows that are tokens already; prints one line.

Turns the file that `wordnet_270m.py` writes into seconds, bytes and held-out losses of
the real Gemma 3 270M:

    python tests/benchmarks/subjects/wordnet_trl.py MODEL ROWS.json OUTPUT SEED
"""

import importlib.metadata
import json
import pathlib
import resource
import sys
import time
from typing import Any

import datasets
import peft
import torch
import transformers
import trl

IGNORED = -100


class Clock(transformers.TrainerCallback):
    """Notes when training begins and when each step is over."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Start the first step."""
        self.ticks.append(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        """End a step."""
        self.ticks.append(time.perf_counter())


def train(
    directory: str, rows: dict[str, Any], output: str, *, seed: int
) -> dict[str, Any]:
    """Train and score; return what `wordnet_270m.py` shows of every subject."""
    transformers.set_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype="float32"
    )
    clock, settings = Clock(), rows["settings"]
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            output_dir=output,
            seed=seed,
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=settings["rows_per_step"],
            max_steps=settings["steps"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            weight_decay=0.0,
            gradient_checkpointing=False,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=datasets.Dataset.from_list(
            [{"input_ids": r["ids"], "labels": labels(r)} for r in rows["train"]]
        ),
        peft_config=peft.LoraConfig(
            r=settings["rank"],
            lora_alpha=settings["alpha"],
            target_modules=["q_proj", "v_proj"],
        ),
        processing_class=tokenizer(directory),
        callbacks=[clock],
    )
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pairs = zip(clock.ticks, clock.ticks[1:], strict=False)
    return {
        "step_seconds": [end - start for start, end in pairs],
        "rows": len(rows["train"]),
        "peak_bytes": peak,
        **score(trainer.model, rows),
        "versions": versions(),
    }


def labels(row: dict[str, Any]) -> list[int]:
    """Return the ids that carry loss, and what PyTorch leaves out for the others."""
    pairs = zip(row["ids"], row["loss_mask"], strict=True)
    return [token if learned else IGNORED for token, learned in pairs]


def tokenizer(directory: str) -> transformers.PreTrainedTokenizerBase:
    """Return a tokenizer; it only pads, since the rows are ids."""
    return transformers.GemmaTokenizer.from_pretrained(directory)


def score(model: torch.nn.Module, rows: dict[str, Any]) -> dict[str, float]:
    """Return nats a token on the held-out rows, with `<end_of_turn>` and without."""
    model.eval()
    totals = {"loss": [0.0, 0], "content_loss": [0.0, 0]}
    for row in rows["heldout"]:
        ids, learned = torch.tensor([row["ids"]]), torch.tensor(row["loss_mask"])[1:]
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].float()
        nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        content = learned & (ids[0, 1:] != rows["settings"]["end_of_turn"])
        for name, mask in (("loss", learned), ("content_loss", content)):
            totals[name][0] += float(nats[mask].sum())
            totals[name][1] += int(mask.sum())
    return {name: total / count for name, (total, count) in totals.items()}


def versions() -> str:
    """Return what was measured."""
    names = ("trl", "peft", "transformers", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


if __name__ == "__main__":
    model_directory, rows_file, output_directory, number = sys.argv[1:]
    values = json.loads(pathlib.Path(rows_file).read_text())
    result = train(model_directory, values, output_directory, seed=int(number))
    print(json.dumps(result), flush=True)
