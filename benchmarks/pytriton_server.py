"""PyTriton serving the session of an ONNX file; run by serving.py in PyTriton's own environment.

python pytriton_server.py MODEL HTTP GRPC METRICS BATCH
"""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch  # type: ignore[import-not-found,unused-ignore]
from pytriton.model_config import ModelConfig, Tensor  # type: ignore[import-not-found,unused-ignore]
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig  # type: ignore[import-not-found,unused-ignore]

model, http, grpc, metrics, largest = sys.argv[1], *map(int, sys.argv[2:6])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
(given,), (made,) = session.get_inputs(), session.get_outputs()


@batch  # type: ignore[untyped-decorator,unused-ignore]
def infer(**inputs: np.ndarray) -> list[np.ndarray]:
    return list(session.run([made.name], inputs))


ADDRESS = "127.0.0.1"
config = TritonConfig(
    http_address=ADDRESS,
    http_port=http,
    grpc_address=ADDRESS,
    grpc_port=grpc,
    metrics_address=ADDRESS,
    metrics_port=metrics,
)
open_to_all = TritonSecurityConfig(restricted_endpoints=[])  # perf_analyzer asks for the server's statistics
with Triton(config=config, security_config=open_to_all) as triton:
    triton.bind(
        model_name="net",
        infer_func=infer,
        inputs=[Tensor(name=given.name, dtype=np.float32, shape=tuple(given.shape[1:]))],
        outputs=[Tensor(name=made.name, dtype=np.float32, shape=tuple(made.shape[1:]))],
        config=ModelConfig(max_batch_size=largest),  # its default batcher is Triton's dynamic batching
    )
    triton.serve()
