"""NVML as nvidia-ml-py has it, of one GPU whose counter a test moves."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest
import torch


class NVMLError(Exception):
    """What each call raises that fails."""


def fake_nvml(
    monkeypatch: pytest.MonkeyPatch, millijoules: Callable[[], int], *, counts: bool = True
) -> None:
    """Put it in the place of `pynvml`; a GPU that does not count is older than Volta."""

    def by_uuid(uuid: str) -> str:
        assert uuid == "GPU-1234"
        return uuid

    def energy(handle: str) -> int:
        if not counts:
            raise NVMLError("Not Supported")
        return millijoules()

    module = types.ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
