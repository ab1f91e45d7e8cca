"""The page that people look at; its sources are in `web/`."""
