"""How much memory does a script take at most? It runs in this process, and its peak is written when it ends.

python -m lm_recipes.evaluation.peak_memory OUT.json SCRIPT [FLAG ...]
"""

import resource
import runpy
import sys

from lm_recipes.artifacts import write_json


def peak() -> dict[str, int]:
    """`process_bytes`: resident memory at its highest; `device_bytes`: of tensors on this process's GPU (0 without)."""
    unit = 1 if sys.platform == "darwin" else 1024
    torch = sys.modules.get("torch")
    on_device = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_initialized() else 0
    return {
        "process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "device_bytes": on_device,
    }


def main() -> None:
    output, sys.argv = sys.argv[1], sys.argv[2:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        write_json(output, peak())


if __name__ == "__main__":
    main()
