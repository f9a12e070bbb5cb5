"""Which setting to use: chosen with a promise on validation, held to the promise on test."""
