"""Private elements of the makers, in the terms of the standard."""
