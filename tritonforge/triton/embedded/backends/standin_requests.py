"""What the stand-in backends share: running the requests of one batch."""

import numpy as np
import triton_python_backend_utils as pb_utils
from standin_config import DTYPES, shape_text


def respond(requests, config, run, states=None):
    """One response for each request, from as few calls of ``run`` as batching allows.

    ``run(feeds, names)`` gets and gives arrays by name. With ``max_batch_size`` above 0, requests of one shape (but
    for axis 0) are joined along axis 0, run once and split again. When a joined run fails, each request is run by
    itself, so that only the bad one gets the error (the native backends fail all of them). ``states`` keeps the
    implicit state of sequences (``standin_state.States``); where a request fails, its sequence keeps the state it had.
    """
    responses = [None] * len(requests)
    groups = {}
    declared = [tensor["name"] for tensor in config["output"]]
    for position, request in enumerate(requests):
        try:
            feeds = {tensor.name(): _array(tensor) for tensor in request.inputs()}
            if states is not None:
                feeds = states.feeds(request, feeds)
            asked = request.requested_output_names()
            names = tuple(name for name in declared if name in asked)
        except Exception as error:
            responses[position] = _failure(error)
            continue
        groups.setdefault(_key(position, feeds, config), []).append((position, feeds, names))
    after = () if states is None else states.outputs

    def keep(position, results):
        if states is not None:
            states.keep(requests[position], results)

    for group in groups.values():
        for position, outcome in _run_group(group, config, run, after, keep):
            responses[position] = outcome
    return responses


def _array(tensor):
    if not tensor.is_cpu():
        raise ValueError(f"input '{tensor.name()}' is in GPU memory, which the stand-in cannot read")
    return tensor.as_numpy()


def _key(position, feeds, config):
    if config["max_batch_size"] <= 0 or any(array.ndim == 0 for array in feeds.values()):
        return position
    rows = {array.shape[0] for array in feeds.values()}
    if len(rows) != 1:
        return position
    return tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in feeds.items()))


def _run_group(group, config, run, after, keep):
    if len(group) == 1:
        position, feeds, names = group[0]
        try:
            results = run(feeds, _also(names, after))
            response = _response(results, names, config, _rows(feeds, config))
            keep(position, results)
            return [(position, response)]
        except Exception as error:
            return [(position, _failure(error))]
    try:
        joined = {name: np.concatenate([feeds[name] for _, feeds, _ in group]) for name in group[0][1]}
        wanted = {name for _, _, names in group for name in names}
        names = tuple(tensor["name"] for tensor in config["output"] if tensor["name"] in wanted)
        rows = _rows(joined, config)
        results = run(joined, _also(names, after))
        for name in names:
            _check(name, results[name], config, rows)
        for name in after:
            _follows(name, results[name], rows)
    except Exception:
        return [outcome for one in group for outcome in _run_group([one], config, run, after, keep)]
    outcomes, start = [], 0
    for position, feeds, names in group:
        count = _rows(feeds, config)
        part = {name: results[name][start : start + count] for name in _also(names, after)}
        try:
            response = _response(part, names, config, count)
            keep(position, part)
        except Exception as error:
            response = _failure(error)
        outcomes.append((position, response))
        start += count
    return outcomes


def _also(names, after):
    return (*names, *(name for name in after if name not in names))


def _rows(feeds, config):
    if config["max_batch_size"] <= 0 or not feeds:
        return None
    first = next(iter(feeds.values()))
    return first.shape[0] if first.ndim else None


def _response(results, names, config, rows):
    tensors = []
    for name in names:
        _check(name, results[name], config, rows)
        array = np.asarray(results[name])
        tensors.append(pb_utils.Tensor(name, array if array.flags.c_contiguous else array.copy(order="C")))
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _check(name, array, config, rows):
    wanted = next(tensor["data_type"] for tensor in config["output"] if tensor["name"] == name)
    if array.dtype.name != DTYPES.get(wanted):
        raise ValueError(f"output '{name}': the configuration says {wanted}, the model returned {array.dtype.name}")
    _follows(name, array, rows)


def _follows(name, array, rows):
    if rows is not None and (array.ndim == 0 or array.shape[0] != rows):
        raise ValueError(
            f"output '{name}' has the shape {shape_text(array.shape)} for a batch of {rows}: its first axis is no batch"
        )


def _failure(error):
    message = str(error) or type(error).__name__
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))
