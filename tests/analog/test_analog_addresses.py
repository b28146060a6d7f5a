"""Compiled code that works with addresses keeps the memory behind them.

Numba gives an array's memory back after the last statement that names the array; an address is a
plain number that keeps nothing. What is written there then belongs to somebody else, which shows
rarely, and in other threads first.
"""

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import repast_dist


def compiled_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted(Path(repast_dist.__file__).parent.rglob("*.py")):
        text = path.read_text()
        # Most modules take no address, and are not parsed.
        for node in ast.walk(ast.parse(text if ".ctypes" in text else "")):
            if isinstance(node, ast.FunctionDef) and "njit" in map(decorator, node.decorator_list):
                yield f"{path.name}: {node.name}", node


def decorator(node: ast.expr) -> str:
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else ""


def addressed(node: ast.AST) -> Iterator[str]:
    """Yield the names of the arrays whose addresses are taken."""
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Attribute(value=array, attr="ctypes"), attr="data"):
                yield from arrays(array)


def arrays(node: ast.expr) -> Iterator[str]:
    """Yield the names of the arrays that an expression may be a part of."""
    match node:
        case ast.Name(name):
            yield name
        case ast.Subscript(value=array):
            yield from arrays(array)
        case ast.IfExp(body=one, orelse=other):
            yield from arrays(one)
            yield from arrays(other)
        case _:
            raise AssertionError(f"whose address is {ast.unparse(node)}?")


def made(node: ast.AST) -> set[str]:
    return {
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


def unkept(function: ast.FunctionDef) -> list[str]:
    """Return the arrays made in a function of which an address is kept in a name and that nothing
    keeps alive: no loop goes round with them.
    """
    own, found = made(function), []

    def look(statements: list[ast.stmt], loop: ast.stmt | None) -> None:
        for statement in statements:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value:
                new_each_time = made(loop) if loop else own
                found.extend(set(addressed(statement.value)) & new_each_time)
            inner = statement if isinstance(statement, ast.For | ast.While) else loop
            for part in ("body", "orelse"):
                look(getattr(statement, part, []), inner)

    look(function.body, None)
    return found


def parsed(text: str) -> ast.FunctionDef:
    (function,) = ast.parse(textwrap.dedent(text)).body
    assert isinstance(function, ast.FunctionDef)
    return function


def test_no_address_outlives_its_array() -> None:
    functions = dict(compiled_functions())
    assert any(list(addressed(function)) for function in functions.values())
    assert {name: unkept(one) for name, one in functions.items() if unkept(one)} == {}


def test_an_address_that_outlives_its_array_is_found() -> None:
    lost = """
        def work(inputs):
            order = np.empty(8)
            place, first = order.ctypes.data, inputs.ctypes.data
            for n in range(8):
                write(first, place)
    """
    kept = """
        def work(inputs):
            order = np.empty(8)
            first = inputs.ctypes.data
            for n in range(8):
                place = order[n].ctypes.data + 4
                write(first, place, order.ctypes.data)
    """
    new_each_time = """
        def work(inputs):
            for n in range(8):
                order = np.empty(8)
                place = order.ctypes.data
                write(place)
    """
    assert unkept(parsed(lost)) == ["order"]
    assert unkept(parsed(kept)) == []
    assert unkept(parsed(new_each_time)) == ["order"]
