"""daemon.json as it was and as it shall be: a user's own keys stay; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged_daemon_json(before: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The file's keys with the options laid over: objects key by key, lists joined, all else replaced.

    The log options of another driver are dropped: they would keep every new container from starting. Of an exec-opts
    setting that both name, the options' one stays: dockerd refuses none of two and takes one silently.
    """
    kept = dict(before)
    default = "json-file"
    if options.get("log-driver", before.get("log-driver", default)) != before.get("log-driver", default):
        kept.pop("log-opts", None)
    return _merged(kept, options)


def _merged(before: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(before)
    for key, value in options.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            names = {_setting(each) for each in value}
            result[key] = [each for each in old if _setting(each) not in names] + list(value)
        else:
            result[key] = value
    return result


def _setting(value: Any) -> Any:
    """native.cgroupdriver of native.cgroupdriver=systemd; all else is itself."""
    return value.split("=", 1)[0] if isinstance(value, str) and "=" in value else value


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"merged_daemon_json": merged_daemon_json}
