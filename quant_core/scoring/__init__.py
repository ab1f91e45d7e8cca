"""Scoring: sensitivities of a prepared job."""
