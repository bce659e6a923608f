"""The compiler's account of a program's memory, on one of its devices."""

from typing import Any


def bytes_a_chip(memory: Any) -> dict[str, int]:
    """Return the parts of a `memory_analysis()`, and what they come to."""
    parts = {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }
    return parts | {
        "total_bytes": sum(parts.values()),
        "host_bytes": memory.host_temp_size_in_bytes,
    }
