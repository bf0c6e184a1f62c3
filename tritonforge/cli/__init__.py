"""The command line: parse, call an action, render. One file a command group; nothing else may import this package."""
