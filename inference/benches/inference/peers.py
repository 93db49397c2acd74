#!/usr/bin/env python3
"""Runs a network in ONNX Runtime or OpenVINO on the CPU, as `make bench-inference` asks.

A request is a line of JSON on standard input, its answer one on standard output:

  {"peer", "precision", "model", "width", "height", "picture", "threads", "passes"}    -> {"times_ms": [...]}
  the same with "workers" and "seconds" for "threads" and "passes"                     -> {"passes", "seconds"}
  the same with "output", a file that its numbers are written to, f32                   -> {"numbers"}

`model` is an ONNX file, or an OpenVINO int8 model (.xml); `picture` a file of planes, f32 in 0..=1. Networks stay loaded:
the first request for one loads it and warms it up. What can't be done is answered with {"error"}.
"""
import json
import sys
import threading
import time

import numpy as np
import onnxruntime
import openvino

WARM_UP = 3


def onnx_workers(request, blob):
    """A session a worker."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = request.get("threads", 1)

    def worker():
        session = onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: blob})

    return [worker() for _ in range(request.get("workers", 1))]


def openvino_workers(request, blob):
    """One network, a stream and a request of it a worker."""
    core = openvino.Core()
    model = core.read_model(request["model"])
    resize(model, request["width"], request["height"])
    workers = request.get("workers", 1)
    settings = {
        "INFERENCE_NUM_THREADS": request.get("threads", workers),
        "NUM_STREAMS": workers,
        "PERFORMANCE_HINT": "LATENCY" if workers == 1 else "THROUGHPUT",
    }
    # An int8 model says itself what is computed how.
    if request["precision"] != "int8":
        settings["INFERENCE_PRECISION_HINT"] = request["precision"]
    compiled = core.compile_model(model, "CPU", settings)

    def worker():
        infer = compiled.create_infer_request()
        return lambda: infer.infer({0: blob})

    return [worker() for _ in range(workers)]


def resize(model, width, height):
    """Makes a network that was exported for one size one for another.

    Its anchors are constants, of as many columns as the size has anchors: cut to the new count. Where boxes would lie is
    wrong then; how long it takes is right.
    """
    _, _, old_height, old_width = tuple(model.input(0).shape)
    if (old_width, old_height) == (width, height):
        return

    def anchors(width, height):
        return sum((width // stride) * (height // stride) for stride in (8, 16, 32))

    old, new = anchors(old_width, old_height), anchors(width, height)
    for node in model.get_ops():
        if node.get_type_name() != "Constant":
            continue
        data = node.get_data()
        if old in data.shape:
            data = data.take(range(new), axis=data.shape.index(old))
        elif data.dtype.kind == "i" and (data == old).any():
            data = np.where(data == old, new, data).astype(data.dtype)
        else:
            continue
        constant = openvino.opset8.constant(data)
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(constant.output(0))
    # `Model.reshape` would check the constants against the old size first.
    model.input(0).get_node().set_partial_shape(openvino.PartialShape([1, 3, height, width]))
    model.validate_nodes_and_infer_types()


class Networks:
    """The networks that are loaded, each as its workers' calls."""

    LOADERS = {"onnxruntime": onnx_workers, "openvino": openvino_workers}

    def __init__(self):
        self.loaded = {}

    def workers(self, request):
        fields = ("peer", "precision", "model", "width", "height", "picture", "threads", "workers")
        key = tuple(request.get(field) for field in fields)
        if key not in self.loaded:
            shape = (1, 3, request["height"], request["width"])
            blob = np.fromfile(request["picture"], np.float32).reshape(shape)
            workers = self.LOADERS[request["peer"]](request, blob)
            for call in workers:
                for _ in range(WARM_UP):
                    call()
            self.loaded[key] = workers
        return self.loaded[key]


def times(call, passes):
    found = []
    for _ in range(passes):
        begun = time.perf_counter()
        call()
        found.append((time.perf_counter() - begun) * 1e3)
    return {"times_ms": found}


def output(call, file):
    numbers = np.asarray(call()[0], np.float32)
    numbers.tofile(file)
    return {"numbers": numbers.size}


def throughput(workers, seconds):
    """All workers at once, each pass after pass until the time is up."""
    counts = [0] * len(workers)
    begun = time.perf_counter()

    def work(number, call):
        while time.perf_counter() - begun < seconds:
            call()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=each) for each in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"passes": sum(counts), "seconds": time.perf_counter() - begun}


def main():
    networks = Networks()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            workers = networks.workers(request)
            if "output" in request:
                answer = output(workers[0], request["output"])
            elif "seconds" in request:
                answer = throughput(workers, request["seconds"])
            else:
                answer = times(workers[0], request["passes"])
        except Exception as error:  # whatever a peer can't do: the benchmark goes on without it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
