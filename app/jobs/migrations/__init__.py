"""Versions of the tables; the service brings its database to the last one when it starts."""
