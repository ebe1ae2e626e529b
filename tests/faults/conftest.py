"""The same stack as the integration tests', brought up once for all faults."""

from __future__ import annotations

from integration.conftest import stack

__all__ = ["stack"]
