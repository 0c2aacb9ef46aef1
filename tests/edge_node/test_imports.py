"""A node installs without torch, so nothing of it may import torch, onnx or other big packages."""

import json
import subprocess
import sys

_IMPORT_ALL = """
import importlib, json, pkgutil, sys
from splitplace import edge_node
for module in pkgutil.iter_modules(edge_node.__path__):
    importlib.import_module(f"splitplace.edge_node.{module.name}")
print(json.dumps(sorted(sys.modules)))
"""


def test_a_node_imports_neither_torch_nor_anything_that_only_other_parts_need() -> None:
    command = [sys.executable, "-c", _IMPORT_ALL]
    imported = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert "onnxruntime" in imported
    assert "splitplace.edge_node.agent" in imported
    packages = {"torch", "onnx", "onnxscript", "PIL", "rich", "sympy"}
    others = ("workshop", "services", "commands", "simulator", "experiments")
    rooms = {f"splitplace.{room}" for room in others}
    assert not (packages | rooms) & set(imported)
