"""How time and memory grow with what is asked for: one table and one plot of each."""
