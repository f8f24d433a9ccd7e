"""gRPC server of the Open Inference Protocol v2 over an engine.

Calls, streams with provisional answers, and errors: docs/grpc.md.
"""

from apparate_jax.serve.grpc.limits import GrpcLimits
from apparate_jax.serve.grpc.server import GrpcServer

__all__ = ["GrpcLimits", "GrpcServer"]
