"""What a search is asked, and its bounds."""
