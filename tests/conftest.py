"""What every test shares: eight simulated devices, fixed sums, one compilation cache.

All of it is set before JAX is imported, here and in the processes that tests start.
"""

import os
import re
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]
_DEVICES = "--xla_force_host_platform_device_count"
_OTHER_FLAGS = re.sub(rf"{_DEVICES}=\S*", "", os.environ.get("XLA_FLAGS", ""))

os.environ["XLA_FLAGS"] = f"{_OTHER_FLAGS} {_DEVICES}=8".strip()
os.environ["NPROC"] = "2"  # XLA:CPU's sums depend on its number of threads
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"  # trainer/config/simulated.py
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_REPOSITORY / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax  # noqa: E402
import pytest  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

CACHE_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(scope="session")
def repository() -> Path:
    return _REPOSITORY


@pytest.fixture
def own_cache():
    """JAX's settings are the process's: give them back, and what was compiled."""
    before = {name: getattr(jax.config, name) for name in CACHE_OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
