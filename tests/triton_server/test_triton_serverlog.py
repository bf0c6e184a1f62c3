from __future__ import annotations

from tritonforge.triton import serverlog

LOG = r"""
E1121 03:57:01.995151 7161 server.cc:241] "CudaDriverHelper has not been initialized."
[libprotobuf ERROR /tmp/x/text_format.cc:335] Error parsing text-format inference.ModelConfig: 2:4: Message type "inference.ModelConfig" has no field named "foo".
E1121 03:57:01.996355 7161 model_repository_manager.cc:1460] "Poll failed for model directory 'nb_b': failed to read text proto from repo2/nb_b/config.pbtxt"
E1121 03:57:01.997497 7161 model_lifecycle.cc:642] "failed to load 'nb_a' version 1: Invalid argument: unable to find backend library for backend 'tensorrt', try specifying runtime on the model configuration."
I1121 03:53:25.022633 4995 pb_stub.cc:366] "Failed to initialize Python stub: ValueError: boom\n"
E1121 03:53:25.234302 4995 model_lifecycle.cc:642] "failed to load 'm' version 1: Internal: ValueError: a \"quoted\" reason\n\nAt:\n  /tmp/model.py(12): initialize\n"
+-------+---------+
| Model | Version |
E1121 03:57:03.378685 7161 tritonserver.cc:2607] "Internal: failed to load all models"
"""  # noqa: E501

PLAIN = """\
E0101 10:00:00.000001 1 model_lifecycle.cc:621] failed to load 'm' version 3: Internal: ValueError: boom

At:
  /models/m/3/model.py(4): initialize

I0101 10:00:00.000002 1 model_lifecycle.cc:756] failed to load 'm'
"""


def test_failures_name_the_model_and_the_whole_reason() -> None:
    failures = serverlog.load_failures(LOG)
    assert set(failures) == {"nb_a", "nb_b", "m"}
    assert failures["m"] == 'Internal: ValueError: a "quoted" reason\n\nAt:\n  /tmp/model.py(12): initialize'


def test_a_config_that_cannot_be_parsed_gets_the_parsers_line() -> None:
    reason = serverlog.load_failures(LOG)["nb_b"]
    assert reason.startswith("failed to read text proto from")
    assert 'has no field named "foo"' in reason


def test_logs_of_older_servers_continue_over_lines() -> None:
    reason = serverlog.load_failures(PLAIN)["m"]
    assert reason == "Internal: ValueError: boom\n\nAt:\n  /models/m/3/model.py(4): initialize"


def test_missing_backends_are_found() -> None:
    assert serverlog.missing_backends(LOG) == ["tensorrt"]


def test_a_busy_port_is_found() -> None:
    line = "E1121 03:57:12.0 1 main.cc:257] \"failed to start HTTP service: Unavailable - Socket '[::1]:18205' already in use \""  # noqa: E501
    assert serverlog.busy_port(line) == 18205
    assert serverlog.busy_port(LOG) is None


def test_without_a_model_the_last_errors_speak() -> None:
    text = 'I1121 03:57:07.401454 7328 server.cc:302] "No server context available."\nerror: creating server: Internal - failed to stat file repo2/x\n'  # noqa: E501
    assert serverlog.last_errors(text) == ["creating server: Internal - failed to stat file repo2/x"]
    assert serverlog.last_errors("tritonserver: error while loading shared libraries: libx.so\n") == [
        "tritonserver: error while loading shared libraries: libx.so"
    ]
    usage = "tritonserver: unrecognized option '--nope'\nUsage: tritonserver [options]\n  --help\n\tPrint usage\n"
    assert serverlog.last_errors(usage) == ["tritonserver: unrecognized option '--nope'"]
