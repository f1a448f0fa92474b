"""Settings from the environment: every one parsed, every bad value refused with its name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from choreo.errors import HostError
from choreo.runtime.settings import SETTINGS, Settings, duration_ms

BAD = {
    "CHOREO_BROKERS": ["localhost", ":9092", "a:0", "a:70000", "a:9092,b", "kafka://a:x", "a:9092,"],
    "CHOREO_PROFILE": ["../prod", "a b", "-x"],
    "CHOREO_SCHEMA_REGISTRY": ["files", "ftp://x", "http://"],
    "CHOREO_INSTANCE": ["a/b", "ä", "x" * 101, ".a"],
    "CHOREO_DRAIN": ["10", "ten", "-1s", "11m", "1.5s"],
    "CHOREO_SESSION_TIMEOUT": ["0s", "500ms", "1d"],
}


def test_defaults_hold_without_an_environment() -> None:
    assert Settings.read({}) == Settings()


def test_every_setting_has_a_field_and_every_field_a_setting() -> None:
    assert {setting.field for setting in SETTINGS} == {field.name for field in fields(Settings)}
    defaults = Settings()
    assert all(getattr(defaults, setting.field) == setting.default for setting in SETTINGS)


def test_values_are_parsed() -> None:
    settings = Settings.read(
        {
            "CHOREO_BROKERS": " a:9092, b:9093 ",
            "CHOREO_SCHEMA_REGISTRY": "https://registry:8081/apis/ccompat/v7/",
            "CHOREO_INSTANCE": "worker-0",
            "CHOREO_DRAIN": "500ms",
            "CHOREO_PROFILE": "",
        }
    )
    assert settings.brokers == "a:9092,b:9093"
    assert settings.schema_registry == "https://registry:8081/apis/ccompat/v7"
    assert settings.instance == "worker-0"
    assert settings.drain_ms == 500
    assert settings.profile is None


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(HostError) as refused:
        Settings.read({variable: value})
    assert refused.value.code == "CH0806"
    assert variable in refused.value.message
    assert repr(value.strip()) in refused.value.message


@pytest.mark.parametrize(("text", "expected"), [("0ms", 0), ("90s", 90_000), ("2m", 120_000), ("1h", 3_600_000)])
def test_durations(text: str, expected: int) -> None:
    assert duration_ms(text) == expected
