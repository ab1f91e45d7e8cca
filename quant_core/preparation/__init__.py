"""Preparation: everything that is known of a job before its first probe."""

from quant_core.preparation.prepare import Prepared, choose_device, prepare

__all__ = ["Prepared", "choose_device", "prepare"]
