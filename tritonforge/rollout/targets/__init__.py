"""Where servers run, one file a kind; each implements ``rollout.host.Host`` or says why it is another thing."""
