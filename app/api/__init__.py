"""Routes: parse, call a service function, answer."""
