"""The use cases, one a file: the only place where the stages meet. The command line parses for them and renders."""
