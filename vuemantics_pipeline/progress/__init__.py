"""Progress as messages: what the database committed, in the words of the application's clients."""
