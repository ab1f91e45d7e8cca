"""One rewrite of the graph per file; `quant_core.ingest.normalise` puts them in order."""
