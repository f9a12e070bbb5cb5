"""What runs programs: flags and errors, several processes, compiled programs kept."""
