from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from server.cli import build_parser, explain, flagged_fields, main
from server.limits import Limits
from server.settings import ENV_PREFIX, Settings


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """`main` sets logging up for its process, which is ours."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def parse(*flags: str) -> Settings:
    arguments = vars(build_parser().parse_args(["serve", *flags]))
    del arguments["command"]
    return Settings(**arguments)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}PORT", "1234")
    monkeypatch.setenv(f"{ENV_PREFIX}DTYPE", "float32")
    settings = parse("--port", "99")
    assert settings.port == 99
    assert settings.dtype == "float32"


def test_names_are_repeated_flags_or_a_comma_separated_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ("--served-model-name", "a", "--served-model-name", "b")
    assert parse(*flags).names() == ("a", "b")
    monkeypatch.setenv(f"{ENV_PREFIX}SERVED_MODEL_NAME", "x,y")
    assert parse().names() == ("x", "y")


def test_switches_have_a_no() -> None:
    assert parse("--no-prefix-cache").prefix_cache is False
    assert parse("--prefix-cache").prefix_cache is True


def test_every_field_is_a_flag_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    page = " ".join(capsys.readouterr().out.split())
    assert len(Settings.model_fields.keys() - Limits.model_fields.keys()) <= 56
    assert Settings.model_fields.keys() - dict(flagged_fields()) == {"api_keys"}
    for name, field in flagged_fields():
        assert f"--{name.replace('_', '-')}" in page
        assert field.description
        assert field.description.endswith(".")


def test_what_is_wrong_is_named_by_its_flag() -> None:
    with pytest.raises(ValidationError) as error:
        parse("--port", "abc", "--dtype", "int4")
    port, dtype = explain(error.value)
    assert port.startswith("--port (INTERNVL_SERVE_PORT): ")
    assert port.endswith("got 'abc'")
    assert dtype.startswith("--dtype (INTERNVL_SERVE_DTYPE): ")


def test_a_wrong_flag_ends_without_a_traceback() -> None:
    with pytest.raises(SystemExit, match=r"--port .*got '70000'"):
        main(["serve", "--port", "70000"])


def test_a_layer_pipeline_does_not_speculate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--speculate", "ngram", "--pipeline-parallel-size", "2"])
    assert ended.value.code == 1
    assert "leave it or --pipeline-parallel-size 2 out" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--host", "127.0.0.1", "--port", "0", "--model", "./nowhere"])
    assert ended.value.code == 1
    assert "--model ./nowhere: there is no such folder" in capsys.readouterr().err
