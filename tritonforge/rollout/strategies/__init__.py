"""How a release takes over: ``two_slots`` (a second server behind a proxy), ``one_slot`` (one server, in place)."""
