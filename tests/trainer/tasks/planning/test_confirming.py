import pytest

from tests.trainer.tasks.planning.test_search import search_of
from trainer.tasks.planning.compiling import Compilation
from trainer.tasks.planning.confirming import Sizes, confirmed
from trainer.tasks.planning.search import Search


def compilation(*, fits, total):
    """What a compiler for chips that are not here says."""
    return Compilation(
        compiler="x", seconds=1.0, fits=fits, total=total, collectives=[]
    )


def sizes_of(search, compile_size):
    memory = search.plan

    def estimated(size):
        return search._with_microbatch(size).bytes_per_device(search.shape)

    return Sizes(
        unit=2,
        largest=Search.largest_microbatch,
        state=memory.estimate(search.shape).state,
        estimated=estimated,
        compile=compile_size,
    )


@pytest.mark.parametrize("total", [None, 1 << 60])
def test_the_size_asked_for_stays_where_no_larger_one_compiles(total):
    search = search_of()
    sizes = sizes_of(search, lambda size: compilation(fits=False, total=total))
    assert confirmed(sizes, search, asked=16) == (16, True)


def test_a_size_that_never_compiled_is_an_estimate():
    search = search_of()
    tried = []

    def refuse(size):
        tried.append(size)
        return compilation(fits=False, total=None)

    size, is_compiled = confirmed(sizes_of(search, refuse), search, asked=0)
    assert len(tried) == 3 and 0 < size < tried[-1]
    assert size % 2 == 0 and not is_compiled


def test_what_compiles_within_the_limit_is_taken():
    search = search_of()
    taken = sizes_of(search, lambda size: compilation(fits=True, total=search.limit))
    assert confirmed(taken, search, asked=16) == (search.largest_microbatch(), True)
