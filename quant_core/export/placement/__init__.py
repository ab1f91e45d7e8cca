"""What runs on codes and what in float: the forms of layers, and where rounding happens between them."""
