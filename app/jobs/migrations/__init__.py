"""Versions of the tables; the service brings its database to the last one when it starts."""

HEAD = "0005"
"""The version of the tables that the code knows."""
