"""ONNX Runtime's side: `python onnx_runtime.py MODEL.onnx RUNS` prints CPU seconds of each run, on one thread, as JSON.

`python onnx_runtime.py --quantise MODEL.onnx OUT.onnx` makes its dynamic int8 form: unsigned weights, its fastest on x86-64.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic


def run(model: str, runs: int) -> dict[str, object]:
    """One run that is not measured, then `runs` that are."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng, feed = np.random.default_rng(0), {}
    for wanted in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
        if "int" in wanted.type:
            feed[wanted.name] = np.ones(shape, np.int64)
        else:
            feed[wanted.name] = rng.standard_normal(shape, dtype=np.float32)
    seconds = []
    for _ in range(runs + 1):
        start = time.process_time()
        session.run(None, feed)
        seconds.append(time.process_time() - start)
    return {"cpu_seconds": seconds[1:], "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    if sys.argv[1] == "--quantise":
        quantize_dynamic(sys.argv[2], sys.argv[3], weight_type=QuantType.QUInt8, use_external_data_format=True)
    else:
        print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
