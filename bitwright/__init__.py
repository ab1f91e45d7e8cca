"""The client SDK and the command line of Bitwright."""
