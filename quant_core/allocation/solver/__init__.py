"""A problem of rows, choices, scores and costs, solved: numbers alone, that know nothing of models or requests."""
