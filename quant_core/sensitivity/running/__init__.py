"""How an estimate is run: in units, over processes, with less memory at a time, taken up where it was cut off."""
