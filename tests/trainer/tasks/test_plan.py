import dataclasses
import json

import pytest

from gemma.lora import lora_settings
from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.config.topology import parse_topology
from trainer.distribution.mesh import choose_mesh
from trainer.run import run
from trainer.tasks.planning.chips import target_of, undescribed
from trainer.tasks.planning.preparing import prepare
from trainer.tasks.run_directory import RunDirectory

KEYS = {
    "fits",
    "total_bytes_per_device",
    "bytes_per_device",
    "flops_per_step",
    "collectives",
    "shards",
    "largest",
    "advice",
}
PURPOSES = {
    "weights",
    "adapters",
    "optimizer",
    "gradients",
    "activations",
    "loss",
    "headroom",
}
TINY = ["preset=gemma2_tiny_en", "plan.topology=cpu:8", "mesh=2x4"]
TOO_LARGE = ["preset=gemma2_27b_en", "plan.topology=a100:1", "mesh=1x1"]


@pytest.fixture
def planned(capsys, tmp_path):
    def plan(*words):
        root = f"run.root={tmp_path}"
        typed = ["task=plan", "plan.format=json", root, *words]
        code = run(compose(typed), typed)
        return code, json.loads(capsys.readouterr().out)

    return plan


def test_a_plan_is_one_json_object_with_the_promised_keys(planned):
    code, plan = planned(*TINY)
    assert (code, plan["fits"]) == (0, True)
    assert set(plan) == KEYS
    assert set(plan["bytes_per_device"]) == PURPOSES
    assert set(plan["largest"]) == {"microbatch_size", "sequence_length"}
    assert plan["advice"] == []
    parts = dict(plan["bytes_per_device"])
    parts.pop("headroom")
    assert sum(parts.values()) == plan["total_bytes_per_device"]
    # gemma2_tiny_en: 4 layers, so 7 kernels, 4 factors and 4 norms of 4, and two more
    assert sum(shard["layers"] for shard in plan["shards"]) == 4 * 15 + 2
    # 16 sequences of 128 tokens, all with loss; kernels and table, forward and back
    kernels = 4 * 256 * (4 * 640 * 3 // 4 + 2 * 4 * 64 + 2 * 2 * 64) + 4096 * 256
    attention = 4 * 12 * 4 * 64 * 129 // 2
    least = 16 * 128 * (4 * kernels + attention)
    assert least < plan["flops_per_step"] < 1.1 * least
    assert {"all-reduce", "all-gather"} <= {c["kind"] for c in plan["collectives"]}


def test_a_plan_for_a_person_has_every_part(capsys, tmp_path):
    assert run(compose(["task=plan", f"run.root={tmp_path}", *TINY])) == 0
    text = capsys.readouterr().out
    for words in (
        "gemma2_tiny_en, 3,805,440 parameters",
        "compiled by jaxlib",
        "yes: ",
        "activations",
        "headroom",
        "FLOPs",
        "all-gather over 2",
        "microbatch_size",
        "decoder_block_*/attention/query/lora_kernel_a",
    ):
        assert words in text
    assert "what to change" not in text


def test_what_does_not_fit_ends_with_5_and_advice(planned):
    code, plan = planned(*TOO_LARGE)
    assert (code, plan["fits"]) == (5, False)
    assert plan["bytes_per_device"]["headroom"] < 0
    changes = {change["change"]: change for change in plan["advice"]}
    # 27 billion weights of 2 bytes on 30 GiB: half a byte each leaves room for a step
    assert changes["preset.quantize=int4"]["fits"]


def test_advice_gives_what_it_says(planned):
    _, plan = planned(*TOO_LARGE)
    for change in plan["advice"]:
        code, again = planned(*TOO_LARGE, *change["change"].split())
        assert again["total_bytes_per_device"] == change["total_bytes_per_device"]
        assert code == (0 if change["fits"] else 5)


def test_what_does_not_fit_is_told_with_what_to_change(capsys, tmp_path):
    words = ["task=plan", f"run.root={tmp_path}", *TOO_LARGE]
    assert run(compose(words)) == 5
    text = capsys.readouterr().out
    assert "estimated: NVIDIA chips that are not here" in text
    assert "no: " in text
    assert "what to change" in text
    assert "preset.quantize=int4" in text


def test_changes_are_put_together_where_one_alone_is_not_enough(planned):
    words = ["preset=gemma2_27b_en", "plan.topology=l4:1", "mesh=1x1"]
    _, plan = planned(*words, "trainer.global_batch_size=64")
    together = plan["advice"][-1]
    assert " " in together["change"]
    assert together["total_bytes_per_device"] == min(
        change["total_bytes_per_device"] for change in plan["advice"]
    )


def test_more_chips_are_advised_where_no_change_is_enough(planned):
    words = ["preset=gemma2_27b_en", "lora=none", "plan.topology=v5e:2x2", "mesh=4x1"]
    code, plan = planned(*words)
    more = plan["advice"][-1]
    assert code == 5
    assert more["fits"] and more["change"].startswith("plan.topology=v5e:")
    # 27 billion weights, their gradients and two moments are 435 GB: 27 chips or more
    assert more["change"].split()[0].endswith(("v5e:4x8", "v5e:8x8"))
    words[2:] = more["change"].split()
    assert planned(*words)[0] == 0


def test_largest_steps_fit_and_larger_ones_do_not(planned):
    words = ["preset=gemma2_9b_en", "plan.topology=h100:8", "mesh=2x4"]
    _, plan = planned(*words)
    size, length = plan["largest"].values()
    assert size % 2 == 0 and length % 128 == 0
    for key, value, code in (
        ("trainer.global_batch_size", size, 0),
        ("trainer.global_batch_size", size + 2, 5),
        ("data.sequence_length", length, 0),
    ):
        assert planned(*words, f"{key}={value}")[0] == code
    # a sequence longer than the model was made for is never recommended
    assert length == 8192 or planned(*words, f"data.sequence_length={length + 128}")[0]


@pytest.mark.slow
def test_what_is_found_is_compiled_when_asked_to(planned, capsys):
    words = ["preset=gemma2_tiny_en", "plan.topology=cpu:8", "mesh=1x8"]
    _, plan = planned(*words, "plan.confirm=true")
    size, length = plan["largest"].values()
    assert size > 0 and length > 0
    for key, value in (
        ("trainer.global_batch_size", size),
        ("data.sequence_length", length),
    ):
        code, again = planned(*words, f"{key}={value}")
        assert code == 0
        assert again["bytes_per_device"]["headroom"] >= 0


def test_several_slices_are_planned_as_one_mesh(planned):
    words = ["preset=gemma3_27b_text", "mesh=64x4", "trainer.global_batch_size=256"]
    code, plan = planned(*words, "plan.topology=h100:64", "mesh.slices=4")
    assert code == 0
    assert {shard["devices"] for shard in plan["shards"]} >= {256}


def test_a_run_is_planned_with_its_own_configuration(planned, tmp_path):
    words = [*TINY, f"run.root={tmp_path}", "run.name=mine"]
    stored = compose([*words, "lora=rank16", "optimizer=lion", "task=train"])
    RunDirectory(stored).write_config(stored)
    _, plan = planned(*words)
    factors = plan["bytes_per_device"]["adapters"]
    _, eight = planned(*TINY)
    assert factors == 2 * eight["bytes_per_device"]["adapters"]
    # one slot of Lion, and the number of finished steps
    assert plan["bytes_per_device"]["optimizer"] == factors + 4


def test_what_is_typed_counts_over_a_run_even_where_it_is_a_default(planned, tmp_path):
    words = [*TINY, f"run.root={tmp_path}", "run.name=mine"]
    unlike = ["lora=rank16", "optimizer=lion", "trainer.remat=none"]
    stored = compose([*words, *unlike, "data.sequence_length=256", "task=train"])
    RunDirectory(stored).write_config(stored)
    typed = ["lora.rank=8", "optimizer=adamw", "trainer.remat=block"]
    typed.append("data.columns.prompt=prompt")  # a key inside a section of another
    _, plan = planned(*words, *typed, "data.sequence_length=128")
    _, default = planned(*TINY, *typed)
    assert plan["bytes_per_device"] == default["bytes_per_device"]


def test_full_fine_tuning_that_does_not_fit_is_told_what_adapters_need(planned):
    words = ["preset=gemma2_9b_en", "mesh=1x1", "plan.topology=h100:1"]
    words += ["trainer.global_batch_size=1", "trainer.remat=block"]
    code, plan = planned(*words, "lora=none")
    told = {change["change"]: change for change in plan["advice"]}
    assert code == 5
    for other in (["lora=rank8"], ["lora=none", "optimizer=adafactor"]):
        _, instead = planned(*words, *other)
        found = told[other[-1]]
        assert found["total_bytes_per_device"] == instead["total_bytes_per_device"]
        assert found["fits"] == instead["fits"]
    assert told["lora=rank8"]["fits"]


def test_a_compilation_is_announced_beside_the_plan(capsys, tmp_path):
    words = [*TINY, "task=plan", "plan.format=json", f"run.root={tmp_path}"]
    words += ["trainer.global_batch_size=2", "data.sequence_length=64"]
    assert run(compose(words), words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fits"]
    told = "compiling for cpu:8, mesh 2x4: 2 sequences of 64 tokens\n"
    assert err == told


def test_a_run_on_another_mesh_is_checked_again(planned, tmp_path):
    words = ["preset=gemma2_tiny_en", f"run.root={tmp_path}", "run.name=mine"]
    stored = compose([*words, "mesh=2x4"])
    RunDirectory(stored).write_config(stored)
    with pytest.raises(ConfigError, match="as many devices as mesh=2x4 has, 8"):
        planned(*words, "plan.topology=h100:4")


@pytest.mark.parametrize(("size", "mesh"), [(64, "8x1"), (4, "4x2"), (1, "1x8")])
def test_auto_takes_the_first_mesh_that_fits(capsys, tmp_path, size, mesh):
    words = ["task=plan", "preset=gemma2_9b_en", f"run.root={tmp_path}"]
    words += ["plan.topology=h100:8", f"trainer.global_batch_size={size}"]
    assert run(compose(words)) == 0
    assert f"mesh {mesh} " in capsys.readouterr().out


def test_auto_takes_the_smallest_mesh_where_none_fits(planned):
    words = ["preset=gemma2_27b_en", "lora=none", "plan.topology=l4:8"]
    code, plan = planned(*words)
    assert code == 5
    totals = [
        planned(*words, f"mesh={mesh}")[1]["total_bytes_per_device"]
        for mesh in ("8x1", "4x2", "2x4", "1x8")
    ]
    assert plan["total_bytes_per_device"] == min(totals)


@pytest.mark.parametrize(
    ("devices", "size"),
    [(6, 4), (7, 16), (12, 8), (24, 4)],
)
def test_auto_plans_the_mesh_that_training_takes(devices, size):
    target = undescribed(parse_topology(f"h100:{devices}"))
    words = ["preset=gemma2_tiny_en", f"trainer.global_batch_size={size}"]
    config = compose(words)
    planned = prepare(config, target)
    choice = choose_mesh(
        "auto",
        num_devices=devices,
        microbatch_size=size,
        planned_bytes=planned.memory.bytes_per_device,
        bytes_per_device=target.bytes_per_device,
    )
    assert planned.config.mesh.shape == str(choice)


@pytest.mark.parametrize(("size", "remat"), [(4, "attention"), (16, "block")])
def test_auto_plans_the_remat_that_leaves_room(size, remat):
    words = ["preset=gemma2_9b_en", "mesh=1x1", "data.sequence_length=1024"]
    config = compose([*words, f"trainer.global_batch_size={size}"])
    found = prepare(config, undescribed(parse_topology("h100:1")))
    assert found.memory.remat == remat
    assert found.least.remat == "block"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.sequence_length=100000", "mesh=8x1"], "at most 8,192, the positions"),
        (["trainer.global_batch_size=6", "mesh=4x2"], r"mesh's batch axis \(4\)"),
        (["mesh.slices=4", "mesh=2x16"], "4 slices share evenly"),
    ],
)
def test_an_estimate_refuses_what_training_refuses(words, told):
    slices = 4 if "mesh.slices=4" in words else 1
    target = undescribed(parse_topology("h100:8"))
    target = dataclasses.replace(target, num_devices=8 * slices)
    with pytest.raises(ConfigError, match=told):
        prepare(compose(["preset=gemma2_2b_en", *words]), target)


def test_an_estimate_for_a_cpu_refuses_offload():
    target = target_of(parse_topology("cpu:8"))
    config = compose(["preset=gemma2_tiny_en", "trainer.remat=offload", "mesh=2x4"])
    with pytest.raises(ConfigError, match="a choice for cpu devices"):
        prepare(config, dataclasses.replace(target, devices=None))


@pytest.mark.parametrize(
    ("chips", "path"),
    [("a100:1", "blocked"), ("l4:1", "blocked"), ("l40s:1", "blocked")]
    + [("h100:1", "cudnn"), ("h200:1", "cudnn"), ("b200:1", "cudnn")],
)
def test_cudnn_is_planned_where_its_kernels_take_gemmas_heads(chips, path):
    words = ["preset=gemma3_1b", "data.pack=false", "preset.dtype=bfloat16"]
    planned = prepare(compose(words), undescribed(parse_topology(chips)))
    assert planned.preset.config.head_dim == 256
    assert planned.memory.attention == path


def test_a_plan_waits_for_no_other_process(planned):
    words = ["distributed.coordinator=127.0.0.1:9", "distributed.num_processes=2"]
    words += ["distributed.process_index=1", "distributed.initialize_seconds=1"]
    code, _ = planned("preset=gemma2_2b_en", "mesh=1x1", "plan.topology=h100:1", *words)
    assert code == 0


def test_adapters_of_checkpoints_need_no_file(tmp_path):
    gone = tmp_path / "gone.lora.h5"
    config = compose(["preset=gemma2_tiny_en", f"lora.path={gone}"])
    target = undescribed(parse_topology("h100:1"))
    planned = prepare(config, target, saved=lora_settings(4, targets=["key"]))
    assert planned.config.lora.path is None
    assert planned.config.lora.targets == ["key"]
    # 4 layers, 2 heads: A of 2 x 256 x 4 and B of 4 x 64
    assert planned.memory.estimate((1, 1)).adapters == 4 * 4 * (2 * 256 * 4 + 4 * 64)
