"""What Rowbeam counts of itself: instruments that any code may use, without Ray."""
