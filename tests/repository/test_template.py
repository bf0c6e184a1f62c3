from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.errors import Place, SpecError
from tritonforge.repository.template import house_names, house_templates, render

from .making import made


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_house_has_its_styles() -> None:
    assert set(house_names("config")) == {"default", "edge", "latency", "throughput"}
    assert "bls" in house_names("routers")
    assert (house_templates() / "config" / "base.pbtxt.j2").is_file()


@pytest.mark.parametrize("name", ["mine", "config/mine.pbtxt.j2"])
def test_a_template_of_the_users_goes_by_name_or_by_path(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, "config/mine.pbtxt.j2", "max_batch_size: 3")
    rendered = render("config", name, {}, folders=[tmp_path])
    assert rendered.text == "max_batch_size: 3"
    assert rendered.file == file.resolve()


def test_the_users_folder_comes_before_the_house(tmp_path: Path) -> None:
    write(tmp_path, "latency.pbtxt.j2", "max_batch_size: 3")
    config = made(template="latency", template_folders=(tmp_path,))
    assert config.message.max_batch_size == 3
    assert any("latency.pbtxt.j2" in origin.source for origin in config.origins)


def test_a_template_of_the_users_extends_the_house(tmp_path: Path) -> None:
    text = '{% extends "config/throughput.pbtxt.j2" %}{% block scheduling %}{% endblock %}'
    write(tmp_path, "own.pbtxt.j2", text)
    config = made(template="own", template_folders=(tmp_path,))
    assert config.message.max_batch_size == 64
    assert not config.message.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n{% if %}", 2, "not well formed"),
        ("\n\n{{ nmae }}", 3, "'nmae' is undefined"),
        ("{{ ''.__class__ }}", 1, "__class__"),
        ("{{ cycler.__init__.__globals__ }}", 1, "unsafe|undefined"),
        ("{{ inputs.append(1) }}", 1, "append"),
        ("{{ 'x' * 1000000000 }}", 1, "only for numbers"),
        ("{{ 10 ** 10000000 }}", 1, "only for numbers"),
        ("{{ '%999999999d' % 1 }}", 1, "not taken"),
        ("{% for i in range(10000000) %}x{% endfor %}", 1, "[Rr]ange"),
        ("\n{{ supports('model_metrix') }}", 2, "no Triton has"),
        ("\n{{ 1 // 0 }}", 2, "zero"),
        ('{% include "missing.j2" %}', 1, "missing.j2"),
        ('{% include "../secret" %}', 1, "secret"),
    ],
)
def test_a_bad_template_is_an_error_with_its_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    write(tmp_path.parent, "secret", "secret")
    file = write(tmp_path, "bad.pbtxt.j2", text)
    with pytest.raises(SpecError, match=message) as caught:
        made(template="bad", template_folders=(tmp_path,))
    assert caught.value.place == Place(file.resolve(), line)


def test_a_template_cannot_write_without_end(tmp_path: Path) -> None:
    loop = "{% for i in range(9999) %}{% for j in range(9999) %}xxxxxxxxxx{% endfor %}{% endfor %}"
    write(tmp_path, "big.pbtxt.j2", loop)
    with pytest.raises(SpecError, match="more than"):
        made(template="big", template_folders=(tmp_path,))


def test_a_template_that_writes_no_config_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "odd.pbtxt.j2", "dynamic_batchin { }")
    with pytest.raises(SpecError, match="wrote no valid config") as caught:
        made(template="odd", template_folders=(tmp_path,))
    assert caught.value.place == Place(file.resolve())
    assert "dynamic_batching" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.pbtxt.j2", "a/../../x.j2", "", "latencyy", "base.pbtxt"])
def test_a_name_that_leads_nowhere_or_out_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path.parent, "x.pbtxt.j2", "")
    with pytest.raises(SpecError, match="no template"):
        made(template=name, template_folders=(tmp_path,))


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", "t.pbtxt.j2", "max_batch_size: 3")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "t.pbtxt.j2").symlink_to(outside)
    with pytest.raises(SpecError, match="there is no template"):
        made(template="t", template_folders=(tmp_path / "inside",))
