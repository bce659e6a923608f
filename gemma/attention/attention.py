"""The one function behind which every path of attention stands.

Turns queries, keys, values and what may be seen into mixes of values, by the path that
suits the devices. Layers call it and know no path; whoever builds a program says once
what it is for.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
from jax.sharding import Mesh

from gemma.attention.blocked import LARGEST_BLOCK, attend_blocked
from gemma.attention.choosing import Facts, Target, choose
from gemma.attention.cudnn import attend_cudnn
from gemma.attention.on_mesh import Path, split_over
from gemma.attention.reference import attend_reference
from gemma.attention.sight import Sight

OTHER_BLOCK = 512  # a step of a loop costs an accelerator more; not measured on one


def largest_block(platform: str) -> int:
    """Return the places of a block at most, where `blocked` runs on a platform."""
    return LARGEST_BLOCK if platform == "cpu" else OTHER_BLOCK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """The attention of a program.

    Attributes:
        choice: `auto`, or the name of a path.
        target: What the program is compiled for.
        mesh: Where the batch is split over the first axis and heads over the second;
            None: one device, or XLA splits as it likes.
        one_row_each: No sequence holds two rows, and padding comes after the row.
            Segments then change nothing that counts, and are left out where a kernel
            could not express them.
        interpret: Run Pallas's kernels in its interpreter, for tests.
    """

    choice: str = "auto"
    target: Target = Target("cpu")
    mesh: Mesh | None = None
    one_row_each: bool = False
    interpret: bool = False

    @classmethod
    def on_mesh(cls, mesh: Mesh, choice: str = "auto", **options: bool) -> Attention:
        """Return the attention of programs for a mesh's devices."""
        return cls(
            choice=choice,
            target=Target.of_mesh(mesh),
            mesh=mesh if mesh.size > 1 else None,
            **options,
        )

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        sight: Sight,
        *,
        soft_cap: float | None,
    ) -> jax.Array:
        """Average the values that each scaled query attends to.

        Queries and keys are the tokens of a sequence, in order.

        Args:
            query: [batch, seq, heads, head_dim], already scaled.
            key: [batch, seq, kv_heads, head_dim]; heads // kv_heads queries share one.
            value: As `key`.
            sight: What each query may see.
            soft_cap: Bound of the scores; None leaves them.

        Returns:
            [batch, seq, heads, head_dim] in the query's dtype; softmax in float32. A
            query that sees no key gets zeros.

        Raises:
            Unfit: The chosen path cannot run on the target or express this.
        """
        path, sight = self._path(query, sight, soft_cap)
        if self.mesh is not None:
            return split_over(self.mesh, path, query, key, value, sight=sight)
        return path(query, key, value, sight)

    def _path(
        self, query: jax.Array, sight: Sight, soft_cap: float | None
    ) -> tuple[Path, Sight]:
        is_padded = sight.key_segments is not None  # prompts, on their left
        has_segments = sight.segments is not None and not self.one_row_each
        facts = Facts(
            head_dim=query.shape[3],
            soft_cap=soft_cap,
            dtype=str(query.dtype),
            has_segments=has_segments or is_padded,
            length=query.shape[1],
        )
        target = Target("tpu") if self.interpret else self.target
        # who chooses cuDNN for training means no prompts, which it cannot express
        choice = "auto" if self.choice == "cudnn" and is_padded else self.choice
        name = choose(choice, target, facts)
        if name == "cudnn":
            sight = Sight(sight.window)
        return functools.partial(self._function(name), soft_cap=soft_cap), sight

    def _function(self, name: str) -> Path:
        if name == "splash":
            # Pallas's TPU kernels take 0.1 s to import: only where they are used
            from gemma.attention.splash import attend_splash

            return functools.partial(attend_splash, interpret=self.interpret)
        if name == "blocked":
            largest = largest_block(self.target.platform)
            return functools.partial(attend_blocked, largest_block=largest)
        return {"reference": attend_reference, "cudnn": attend_cudnn}[name]
