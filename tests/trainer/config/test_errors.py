import pytest

from trainer.config import errors

FACTS = {"key": "mesh.shape", "expected": "8 devices", "received": (1, 4)}


def test_an_error_tells_key_expected_received_and_fix():
    error = errors.ConfigError(**FACTS, fix="mesh=1x8")
    assert str(error).splitlines() == [
        "configuration error (exit code 2)",
        "  key       mesh.shape",
        "  expected  8 devices",
        "  received  (1, 4)",
        "  fix       mesh=1x8",
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 3),
        ("PresetError", 4),
        ("MemoryPlanError", 5),
        ("PeerLostError", 6),
        ("StorageError", 7),
        ("DamagedError", 7),
        ("NumericsError", 8),
        ("DirectoryInUseError", 9),
        ("Preempted", 83),
    ],
)
def test_every_end_has_its_exit_code(name, code):
    error = getattr(errors, name)(**FACTS, fix="none")
    assert error.exit_code == code
    assert f"exit code {code}" in str(error)


def test_a_long_fact_is_wrapped_beside_its_label():
    text = errors.ConfigError(**FACTS, fix="word " * 40).message()
    assert max(map(len, text.splitlines())) <= errors.WIDTH
    assert text.splitlines()[-1].startswith(" " * 12 + "word")


def test_many_problems_fit_one_screen():
    problems = [
        errors.ConfigError(key=f"k{n}", expected="e", received=n, fix="f")
        for n in range(9)
    ]
    text = errors.ConfigErrors(problems).message()
    assert text.startswith("9 configuration errors (exit code 2)")
    assert "also      k6, k7, k8" in text
    assert text.count("\n") < 40
