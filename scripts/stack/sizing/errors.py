"""What the planner says when it cannot plan."""

from __future__ import annotations


class CannotPlanError(Exception):
    """This model, card or combination is not one the formulas are known to hold for. The message says which and why."""
