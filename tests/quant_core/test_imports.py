"""No two modules of the engine import each other, not for their types either."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import quant_core


def test_modules_import_in_one_direction():
    root = Path(quant_core.__file__).parent
    modules = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    imported = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                for each in node.names:
                    inner = f"{node.module}.{each.name}"
                    imported[name].add(inner if inner in modules else node.module)
    TopologicalSorter(imported).prepare()  # names the modules of a circle
