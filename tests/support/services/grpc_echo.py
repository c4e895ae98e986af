"""A real gRPC server in a process of its own, of grpcio: echoes a message, or ends with the status that it names.

It prints its port.
"""

import sys
from concurrent import futures
from typing import Any

import grpc

REFUSE = b"refuse "


def echo(request: bytes, context: Any) -> bytes:
    if request.startswith(REFUSE):
        context.abort(
            next(code for code in grpc.StatusCode if code.value[0] == int(request[len(REFUSE) :])), "as asked"
        )
    return request


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    server.add_generic_rpc_handlers((handler,))
    sys.stdout.write(f"{server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    server.start()
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
