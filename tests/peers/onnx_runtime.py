"""ONNX Runtime's side: `python onnx_runtime.py RUNS MODEL.onnx...` prints seconds of each run, on one thread, as JSON.

All models are loaded together; a run is one of each. `python onnx_runtime.py --quantise MODEL.onnx OUT.onnx` makes the dynamic int8 form:
unsigned weights, its fastest on x86-64.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic


def feed(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    """Ones for ids and masks, noise for the rest; free dimensions are 1."""
    rng, inputs = np.random.default_rng(0), {}
    for wanted in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
        if "int" in wanted.type:
            inputs[wanted.name] = np.ones(shape, np.int64)
        else:
            inputs[wanted.name] = rng.standard_normal(shape, dtype=np.float32)
    return inputs


def run(runs: int, models: list[str]) -> dict[str, object]:
    """One run that is not measured, then `runs` that are."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for model in models]
    feeds = [feed(session) for session in sessions]
    cpu, wall = [], []
    for _ in range(runs + 1):
        start = time.process_time(), time.perf_counter()
        for session, inputs in zip(sessions, feeds):
            session.run(None, inputs)
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu_seconds": cpu[1:], "wall_seconds": wall[1:], "peak_rss_bytes": peak}


if __name__ == "__main__":
    if sys.argv[1] == "--quantise":
        quantize_dynamic(sys.argv[2], sys.argv[3], weight_type=QuantType.QUInt8, use_external_data_format=True)
    else:
        print(json.dumps(run(int(sys.argv[1]), sys.argv[2:])))
