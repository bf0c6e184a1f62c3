"""Steps that prove: reference answers, and comparison with them."""
