"""The service: jobs over HTTP, run by the engine in processes of their own."""
