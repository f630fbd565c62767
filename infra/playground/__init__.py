"""The chat page of a server, as files and how to send them. It speaks to the HTTP API only."""
