"""Processors: how many this process is granted, work on several at a time, memory that their threads leave behind."""
