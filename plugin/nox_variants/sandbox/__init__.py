"""Commands and programs in bubblewrap: contained, bounded, ended for sure."""
