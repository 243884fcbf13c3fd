"""The read side: how batches and uploads stand, and what search finds.

Plain functions over a connection, returning immutable records; `documents` turns those into the
JSON that the command line prints. Nothing in here changes a row.
"""
