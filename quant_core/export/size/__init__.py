"""Bytes of a file before there is one."""
