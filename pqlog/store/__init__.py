"""Where messages are kept: the protocol of an engine, and the engines."""
