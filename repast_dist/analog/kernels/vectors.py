"""What compiled functions ask of the compiler that it would not do by itself."""

from typing import Any

from numba import types
from numba.extending import intrinsic

# The names by which LLVM knows them are strings of their own, which llvmlite does not list.
_WIDEST = '"prefer-vector-width"="512"'


@intrinsic
def wide(typing_context: Any) -> Any:
    """Let the compiled function that calls this use the widest vectors that the processor has.

    Without it, loops are compiled for 256 bits on most processors with 512, which takes up to 1.5
    times as long here. Results do not change, and nothing happens elsewhere.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if isinstance(builder.function.attributes, set):
            set.add(builder.function.attributes, _WIDEST)
        return context.get_dummy_value()

    return types.void(), generate
